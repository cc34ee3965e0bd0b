"""The watchdog process: a supervisord event listener (`[eventlistener:watchdog]`)."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import closing
from pathlib import Path

from shmcam.control.client import ControlClient
from shmcam.control.settings import ControlSettings
from shmcam.runtime.procfs import run_id
from shmcam.runtime.startup import startup
from shmcam.runtime.supervisord import Supervisord
from shmcam.watchdog.camera_changes import CameraGroups
from shmcam.watchdog.hang_detector import HangDetector
from shmcam.watchdog.restart_policy import RestartPolicy
from shmcam.watchdog.supervisord_program_files import ProgramFiles
from shmcam.watchdog.supervisord_socket import SocketKeeper
from shmcam.watchdog.watchdog import Watchdog

log = logging.getLogger("shmcam.watchdog")

EXIT_NOT_LISTENING = 64
"""sysexits.h EX_USAGE: the watchdog cannot be started by hand."""


def main() -> int:
    """Watches until stop is requested."""
    url = os.environ.get("SUPERVISOR_SERVER_URL", "")
    if not url:
        print("watchdog: started by supervisord only (see supervisord.conf, [eventlistener:watchdog])", file=sys.stderr)
        return EXIT_NOT_LISTENING
    answers = os.dup(1)  # supervisord reads the answers from here; the log takes descriptor 1 over
    with startup("watchdog") as process:
        settings = process.settings
        with (
            closing(SocketKeeper(Path(url.removeprefix("unix://")))) as socket,
            ControlClient(
                "watchdog", socket_path=settings.socket_path, stop=process.stop, subscribe=("heartbeat",)
            ) as control,
        ):
            log.info("ready supervisord=%s", url)
            own = settings.table(ControlSettings)
            watchdog = Watchdog(
                control=control,
                supervisord=Supervisord(url),
                settings=settings,
                detector=HangDetector(own),
                restarts=RestartPolicy(own),
                files=ProgramFiles(settings),
                groups=CameraGroups(settings.paths.run / "camera_groups.json", run_id()),
                socket=socket,
                answer=lambda data: _write(answers, data),
            )
            watchdog.run(0, process.stop)
    return 0


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    sys.exit(main())
