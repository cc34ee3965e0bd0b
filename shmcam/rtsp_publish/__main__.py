"""rtsp_publish: publishes live H.264 to an RTSP server."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack

from shm_ring import LiveRing
from shmcam.config.settings import EXIT_CONFIG
from shmcam.control.client import ControlClient
from shmcam.rtsp_publish.address import CannotPublish, addresses_of, list_secrets
from shmcam.rtsp_publish.loop import run
from shmcam.rtsp_publish.publisher import Publisher
from shmcam.rtsp_publish.settings import RtspPublishSettings
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.log import hide
from shmcam.runtime.startup import startup

log = logging.getLogger("rtsp_publish")


def main() -> int:
    """Runs until stop is requested. Returns: 0, or 78 when the settings forbid to start."""
    with startup("rtsp_publish", oom_score_adj=300) as process, ExitStack() as stack:
        settings, stop = process.settings, process.stop
        try:
            addresses = addresses_of(settings.table(RtspPublishSettings), settings.cameras)
        except CannotPublish as error:
            log.error("%s", error)
            print(f"rtsp_publish: {error}", file=sys.stderr)
            return EXIT_CONFIG
        publishers = []
        for camera, url in addresses.items():
            for secret in list_secrets(url):
                hide(secret)
            ring = stack.enter_context(LiveRing(settings.ring_name(camera, "h264"), stop))
            publishers.append(Publisher(camera, url, ring, stop))
        control = stack.enter_context(ControlClient("rtsp_publish", socket_path=settings.socket_path, stop=stop))
        for publisher in publishers:
            stack.enter_context(Worker(f"publish-{publisher.camera}", publisher.run, stop))
        log.info("ready cameras=%s", ",".join(addresses))
        run(publishers, control, settings.socket_path, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
