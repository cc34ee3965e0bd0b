"""A capture process whose camera does what a file says: `python -m tests.capture.scripted --config …`.

The file `camera` beside config.toml holds one word, read before every call: ok, absent, error, short, odd, stall,
lose, grey (another format while it is open), hang (in wait), hang_close. What is under test is the real process
around it.
"""

import sys
import time
from pathlib import Path

import numpy as np

from capture import desired_request, loop
from capture.__main__ import main
from capture.sources.base import CameraError, GeometryChanged, OpenedSource, ShotMeta
from capture.sources.select import Choice
from capture.sources.video_file import Pacer
from shm_ring.formats import geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns


class ScriptedSource:
    description = "scripted camera"

    def __init__(self, script: Path) -> None:
        self._script, self._pacer, self._lost = script, Pacer(), 0

    @property
    def word(self) -> str:
        return self._script.read_text().strip()

    def open(self, request, stop) -> OpenedSource:
        if self.word == "absent":
            raise CameraError("no such device")
        if self.word == "slow_open":
            time.sleep(6)  # the fault
        self._stop, self._period_ns = stop, 1e9 / request.framerate
        self._geometry = geometry("yuv420p", request.width, request.height)
        return OpenedSource(self._geometry, framerate=request.framerate)

    def wait(self, timeout_s: float) -> bool:
        match self.word:
            case "absent":
                raise CameraError("no such device")
            case "error":
                raise CameraError("read failed: Input/output error")
            case "stall":
                self._stop.wait(timeout_s)
                return False
            case "hang":
                time.sleep(3600)  # the fault
            case "lose":
                self._lost, _ = 3, self._script.write_text("ok")
            case "grey" if self._geometry.pixel_format != "gray":
                self._geometry = geometry("gray", self._geometry.width // 2, self._geometry.height)
                raise GeometryChanged(self._geometry)
        if not self._pacer.due_ns:
            self._pacer.begin(now_ns())
        due_s = self._pacer.wait_ns(now_ns()) / 1e9
        return due_s <= 0 or (not self._stop.wait(min(due_s, timeout_s)) and due_s <= timeout_s)

    def write(self, payload, lores=None, frame_id=0) -> ShotMeta:
        if self.word in ("short", "odd"):
            self._script.write_text("ok")
            raise CameraError("short frame: 12 bytes of 115200")
        views = planes(payload, self._geometry)
        for plane in views:
            plane[:] = np.uint8(frame_id)
        frame_number_code.draw(views[0], frame_id)
        lost, self._lost = self._lost, 0
        captured_ns = self._pacer.advance(now_ns(), self._period_ns)
        return ShotMeta(captured_ns=captured_ns, frame_duration_us=round(self._period_ns / 1e3), lost_before=lost)

    def apply(self, request) -> bool:
        self._period_ns = 1e9 / request.framerate
        return True

    def close(self) -> None:
        if self._script.read_text().strip() == "hang_close":
            time.sleep(3600)  # the fault


def chooser(position: int, folder: Path):
    """Also lets the test say what /proc/meminfo says, where it has written one."""
    if (folder / "meminfo").exists():
        desired_request.MEMINFO = folder / "meminfo"
    return lambda camera: Choice(ScriptedSource(folder / "camera"), "synthetic", "scripted")


if __name__ == "__main__":
    loop.CHECK_MEMORY_NS = 200_000_000
    sys.exit(main(chooser=chooser))
