"""The process streamer: serves live pictures, live video and the web page to many viewers."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing

from shmcam.config.settings import EXIT_CONFIG
from shmcam.control.client import ControlClient
from shmcam.runtime.startup import startup
from streamer.http.server import CannotServe
from streamer.hub_link import COMMANDS, EVENTS, HubLink
from streamer.loop import serve, wait_for_port
from streamer.settings import MjpegServerSettings


def main() -> int:
    """Wires and runs the process. Returns: 0 when asked to stop, 78 when the settings forbid to start."""
    with startup("streamer", oom_score_adj=300) as process:  # out of memory: rather the viewers than the camera
        settings, stop = process.settings, process.stop
        with ControlClient(
            role="streamer", socket_path=settings.socket_path, stop=stop, commands=COMMANDS, subscribe=EVENTS
        ) as control:
            hub_link = HubLink(control, settings.socket_path, stop)
            if not settings.table(MjpegServerSettings).enable:
                hub_link.idle("idle", "mjpeg_server.enable is false")
                return 0
            try:
                with closing(wait_for_port(settings, stop, hub_link)) as port:
                    if not stop.requested:
                        asyncio.run(serve(settings, stop, hub_link, port))
            except CannotServe as error:
                print(f"streamer: {error}", file=sys.stderr)
                return EXIT_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
