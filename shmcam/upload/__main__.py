"""upload: copies saved files to where people keep things, with rclone."""

from __future__ import annotations

import logging
import os
import sys

from shmcam.control.client import ControlClient
from shmcam.library import Catalogue
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.startup import startup
from shmcam.upload.loop import run
from shmcam.upload.uploader import Uploader

log = logging.getLogger("upload")

OOM_SCORE_ADJ = 600
"""The kernel kills upload (and rclone below it) before all others: what it does can wait."""
NICE = 15
"""It gives way to capture, recorder and viewers; rclone inherits it."""


def main() -> int:
    """Runs until a signal; with a bad configuration it prints one line and exits with 78."""
    with startup("upload", oom_score_adj=OOM_SCORE_ADJ) as process:
        settings, stop = process.settings, process.stop
        os.nice(NICE)
        with (
            ControlClient("upload", socket_path=settings.socket_path, stop=stop) as control,
            Catalogue.of(settings) as catalogue,
        ):
            uploader = Uploader(settings, catalogue, control.announce, stop)
            with Worker("uploads", uploader.run, stop):
                log.info("ready remote=%s groups=%s", uploader.remote, ",".join(uploader.own.groups))
                run(uploader, control, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
