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
from exporter.frames import CameraFrames
from exporter.job_queue import JobQueue
from exporter.loop import COMMANDS, Exporter, run
from exporter.pictures.save import PictureSaver
from exporter.settings import ExportSettings
from shmcam.control.client import ControlClient
from shmcam.library import Catalogue
from shmcam.runtime.startup import Process, startup

log = logging.getLogger("exporter")

OOM_SCORE_ADJ = 500
"""The kernel takes the exporter first: a stack can be repeated, a recording cannot."""


@contextmanager
def parts_of(process: Process) -> Iterator[Exporter]:
    """Open everything the loop works with."""
    settings, stop = process.settings, process.stop
    own = settings.table(ExportSettings)
    with ExitStack() as opened:
        control = opened.enter_context(
            ControlClient(
                "exporter",
                socket_path=settings.socket_path,
                stop=stop,
                commands=COMMANDS,
                subscribe=("setting_changed",),
            )
        )
        cameras = {name: opened.enter_context(CameraFrames(name, settings, stop)) for name in settings.cameras}
        # One connection per thread: none waits for what another one does with the library.
        catalogue, writing = (opened.enter_context(Catalogue.of(settings)) for _ in range(2))
        writing.missed = catalogue.missed  # one flag for all: whoever reconciles does it for every thread
        saver = JobQueue("saver", own.queue, stop)
        errands = JobQueue("errands", own.queue, stop)

        picture_saver = PictureSaver(lambda: parts.settings, writing, control.announce)
        pictures = PictureCommands(lambda: parts.settings, cameras, picture_saver)
        parts = Exporter(
            settings, control, pictures, catalogue, saver, errands, DiskMonitor(control.announce, catalogue.missed)
        )
        opened.enter_context(saver.thread)
        opened.enter_context(errands.thread)
        for name in settings.cameras:
            parts.followers[name] = follower(name, parts, process, opened)
            opened.enter_context(parts.followers[name].thread)
            if (long := parts.followers[name].long) is not None:
                pictures.long_exposures[name] = long
        yield parts


def follower(name: str, parts: Exporter, process: Process, opened: ExitStack) -> CameraFollower:
    """What goes on all day for one camera, with a reader and a connection of its own."""
    camera = opened.enter_context(CameraFrames(name, process.settings, process.stop))
    catalogue = opened.enter_context(Catalogue.of(process.settings))
    catalogue.missed = parts.catalogue.missed
    saver = PictureSaver(lambda: parts.settings, catalogue, parts.control.announce)
    return CameraFollower(camera, lambda: parts.settings, process.stop, saver, catalogue)


def main() -> int:
    """Run until asked to stop; bad configuration: one line, exit 78."""
    with startup("exporter", oom_score_adj=OOM_SCORE_ADJ) as process:
        own = process.settings.table(ExportSettings)
        os.nice(own.nice)  # saving gives way to capture, recorder and viewers; threads started from here inherit it
        with parts_of(process) as parts:
            cameras, folder = ",".join(process.settings.cameras), process.settings.paths.captures
            log.info("ready cameras=%s folder=%s formats=%s", cameras, folder, ",".join(own.formats))
            run(parts, process.stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
