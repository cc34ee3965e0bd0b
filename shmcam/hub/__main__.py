"""hub: the control socket. Carries messages between processes, people and programs; owns the settings."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.control.settings import NetworkSettings
from shmcam.hub.live_settings import Configuration
from shmcam.hub.own_commands import OwnCommands
from shmcam.hub.router import Router
from shmcam.hub.server import Server
from shmcam.hub.unix_socket import SocketTakenError, UnixPlace
from shmcam.runtime.files import sweep
from shmcam.runtime.programs import PROGRAMS
from shmcam.runtime.startup import startup

log = logging.getLogger("hub")

EXIT_TAKEN = 75
"""sysexits.h EX_TEMPFAIL: another hub has the socket."""


def main() -> int:
    """Run the hub until asked to stop."""
    with startup("hub") as process:
        settings = process.settings
        place = UnixPlace(settings.socket_path)
        settings.paths.run.mkdir(mode=0o750, parents=True, exist_ok=True)
        for path in left_over(settings):
            log.info("removed what a killed process left: %s", path)
        configuration = Configuration(settings, settings.paths.run / "changes.json", this_run())
        hub = Router(settings.cameras)
        server = Server(hub, OwnCommands(configuration, hub.roster), settings.table(NetworkSettings))
        try:
            asyncio.run(server.serve(place, process.stop))
        except SocketTakenError as problem:
            log.error("%s", problem)
            return EXIT_TAKEN
    return 0


def left_over(settings: Settings) -> Iterator[Path]:
    """Remove half-written files where the hub, the watchdog and `shmcam run` write; yield what is gone."""
    for folder in (settings.folder, settings.paths.run, settings.paths.run / PROGRAMS):
        yield from sweep(folder)


def this_run() -> str:
    """Name this run of the service: our parent (supervisord) and when it started."""
    parent = os.getppid()
    try:
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "?"
    return f"{parent}@{started}"


if __name__ == "__main__":
    sys.exit(main())
