"""exporter: saves, stacks and archives pictures of all cameras, and keeps the library."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from exporter.commands.pictures import PictureCommands
from exporter.continuous.follower import CameraFollower
from exporter.disk_monitor import DiskMonitor
from exporter.job_queue import JobQueue
from exporter.loop import COMMANDS, Exporter, run
from exporter.pictures.save import PictureSaver
from exporter.ring_frames import CameraFrames
from exporter.session_log_collector import SessionLogs
from exporter.settings import ExportSettings
from shmcam.control.client import ControlClient
from shmcam.control.messages import Deleted
from shmcam.library import Catalogue
from shmcam.runtime.startup import Process, startup

log = logging.getLogger("exporter")

OOM_SCORE_ADJ = 500
"""The kernel kills the exporter first: a stack can be repeated, a recording cannot."""


@contextmanager
def open_exporter(process: Process) -> Iterator[Exporter]:
    """Opens the objects that the loop works with."""
    settings, stop = process.settings, process.stop
    own = settings.table(ExportSettings)
    with ExitStack() as stack:
        control = stack.enter_context(
            ControlClient(
                "exporter",
                socket_path=settings.socket_path,
                stop=stop,
                commands=COMMANDS,
                subscribe=("setting_changed", "recording_started", "recording_stopped"),
            )
        )
        # Saving gives way to capture, recorder and viewers. Threads started from here inherit it; that of the control
        # client, which answers the quick commands, does not.
        os.nice(own.nice)
        cameras = {name: stack.enter_context(CameraFrames(name, settings, stop)) for name in settings.cameras}
        # One connection per thread: none waits for the library work of another.
        catalogue, picture_catalogue = (stack.enter_context(Catalogue.of(settings)) for _ in range(2))
        catalogues = (catalogue, picture_catalogue)
        for each in catalogues:
            each.on_deleted = lambda **fields: control.announce(Deleted(**fields))
        picture_catalogue.missed = catalogue.missed  # one flag: a thread that reconciles does it for all
        picture_catalogue.awaited_room = catalogue.awaited_room
        ring_jobs = JobQueue("saver", own.queue, stop)
        file_jobs = JobQueue("file_jobs", own.queue, stop)

        picture_saver = PictureSaver(lambda: exporter.settings, picture_catalogue, control.announce)
        session_logs = SessionLogs(settings.paths.logs, stop)
        pictures = PictureCommands(lambda: exporter.settings, cameras, picture_saver, session_logs.find_folder)
        exporter = Exporter(
            settings,
            control,
            pictures,
            catalogue,
            ring_jobs,
            file_jobs,
            DiskMonitor(control.announce, catalogue.missed),
            catalogues=catalogues,
            session_logs=session_logs,
        )
        stack.enter_context(ring_jobs.thread)
        stack.enter_context(file_jobs.thread)
        stack.enter_context(session_logs.thread)
        for name in settings.cameras:
            exporter.followers[name] = open_follower(name, exporter, process, stack)
            stack.enter_context(exporter.followers[name].thread)
            if (long := exporter.followers[name].long_exposure) is not None:
                pictures.long_exposures[name] = long
        yield exporter


def open_follower(name: str, exporter: Exporter, process: Process, stack: ExitStack) -> CameraFollower:
    """Opens the continuous work of one camera, with a ring reader and a library connection of its own."""
    camera = stack.enter_context(CameraFrames(name, process.settings, process.stop))
    catalogue = stack.enter_context(Catalogue.of(process.settings))
    catalogue.missed, catalogue.awaited_room = exporter.catalogue.missed, exporter.catalogue.awaited_room
    saver = PictureSaver(lambda: exporter.settings, catalogue, exporter.control.announce)
    return CameraFollower(camera, lambda: exporter.settings, process.stop, saver, catalogue)


def main() -> int:
    """Runs until a signal; with a bad configuration it prints one line and exits with 78."""
    with startup("exporter", oom_score_adj=OOM_SCORE_ADJ) as process:
        own = process.settings.table(ExportSettings)
        with open_exporter(process) as exporter:
            cameras, folder = ",".join(process.settings.cameras), process.settings.paths.captures
            log.info("ready cameras=%s folder=%s formats=%s", cameras, folder, ",".join(own.formats))
            run(exporter, process.stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
