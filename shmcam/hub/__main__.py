"""hub: the control socket. Carries messages between processes, people and programs; owns the settings."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.control.settings import NetworkSettings
from shmcam.hub.live_settings import LiveSettings
from shmcam.hub.own_commands import OwnCommands
from shmcam.hub.router import TCP_COMMANDS, TRUSTED_TCP_COMMANDS, Router
from shmcam.hub.server import Server
from shmcam.hub.unix_socket import SocketTakenError, UnixListener
from shmcam.runtime.atomic_files import sweep
from shmcam.runtime.procfs import run_id
from shmcam.runtime.startup import startup
from shmcam.runtime.supervisord_programs import PROGRAMS

log = logging.getLogger("hub")

EXIT_TAKEN = 75
"""sysexits.h EX_TEMPFAIL: another hub has the socket."""


def main() -> int:
    """Runs the hub until a stop is requested. Returns the exit code."""
    with startup("hub") as process:
        settings = process.settings
        listener = UnixListener(settings.socket_path)
        settings.paths.run.mkdir(mode=0o750, parents=True, exist_ok=True)
        for path in sweep_leftovers(settings):
            log.info("removed what a killed process left: %s", path)
        live_settings = LiveSettings(settings, settings.paths.run / "changes.json", run_id())
        network = settings.table(NetworkSettings)
        router = Router(settings.cameras, TRUSTED_TCP_COMMANDS if network.trusted else TCP_COMMANDS)
        own_commands = OwnCommands(live_settings, router.registry)
        server = Server(router, own_commands, network)
        try:
            asyncio.run(server.serve(listener, process.stop))
        except SocketTakenError as problem:
            log.error("%s", problem)
            return EXIT_TAKEN
    return 0


def sweep_leftovers(settings: Settings) -> Iterator[Path]:
    """Removes half-written files where the hub, the watchdog and `shmcam run` write; yields their paths."""
    for folder in (settings.folder, settings.paths.run, settings.paths.run / PROGRAMS):
        yield from sweep(folder)


if __name__ == "__main__":
    sys.exit(main())
