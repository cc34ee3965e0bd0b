"""capture: owns one camera and is the only writer of its frames."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from capture.desired_request import EVENTS, DesiredRequest
from capture.detect_cameras_command import DetectCommand
from capture.frame_ids import FrameIds
from capture.loop import CaptureLoop
from capture.rings import Rings
from capture.settings import CameraSettings
from capture.sources.select import Choice, Chooser
from capture.status import CaptureStatus
from shmcam.config.memory_plan import plan_memory
from shmcam.config.optional_program import list_enabled
from shmcam.config.settings import LoggingSettings
from shmcam.control.client import ControlClient
from shmcam.runtime.startup import startup

ChooserMaker = Callable[[int, Path], Callable[[CameraSettings], Choice]]


def main(argv: Sequence[str] | None = None, chooser: ChooserMaker = Chooser) -> int:
    """Runs until asked to stop. `chooser` makes sources; tests put theirs here."""
    with startup("capture", argv=argv) as process:
        # libcamera reads it once, when it is imported. What the environment has already counts for this start.
        os.environ.setdefault("LIBCAMERA_LOG_LEVELS", f"*:{process.settings.table(LoggingSettings).libcamera}")
        cv2.setNumThreads(1)  # a frame is too little work to share, and the cores belong to the encoder
        settings, camera, stop = process.settings, process.camera, process.stop
        desired, library = DesiredRequest(settings, camera), settings.paths.library
        plan = plan_memory(settings, len(list_enabled(settings)))
        frame_ids = FrameIds(library.with_name(f"{library.stem}.{camera}.frame_id"))
        with (
            ControlClient(
                "capture",
                camera,
                socket_path=settings.socket_path,
                stop=stop,
                commands=("detect",),
                subscribe=EVENTS,
            ) as control,
            Rings(desired.ring.prefix, camera, settings.paths.run, frame_ids, plan) as rings,
        ):
            choose = chooser(settings.cameras.index(camera), settings.folder)
            status = CaptureStatus(control, camera)
            gc.freeze()  # what was imported stays: a full collection over it would delay a frame by 10 ms
            code = CaptureLoop(desired, rings, control, status, stop, choose, DetectCommand().answer).run()
    return code


if __name__ == "__main__":
    sys.exit(main())
