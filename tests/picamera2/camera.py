"""What the tests in the rig share: the switches of the simulated cameras, and one opened camera."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from capture.sources.base import CameraRequest, ShotMeta
from capture.sources.picamera2.source import PicameraSource
from shm_ring.color import luma, to_bgr
from shmcam.imaging import frame_number_code
from shmcam.runtime.stop import Stop

BARS = (
    np.array([[1, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]) * (255 - 24) + 24
)
"""The rig's eight vertical bars, left to right, as B, G, R."""


NEVER = Stop()
"""For tests that stop nothing."""


class Rig:
    """RIG_CTL's files and RIG_ variables; rigcam.cpp's header says what they do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch

    def put(self, name: str, value: object = "") -> None:
        """Throw a switch: `put("stall-0")`, `put("lux-0", 20)`."""
        new = self._folder / f".{name}"
        new.write_text(str(value))
        new.rename(self._folder / name)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        for path in self._folder.iterdir():
            if path.is_file():
                path.unlink()

    def set(self, **variables: object) -> None:
        """Set variables such as platform="pisp" for what is configured from now on."""
        for name, value in variables.items():
            self._monkeypatch.setenv(f"RIG_{name.upper()}", str(value))


class Camera:
    """A source that is open, and a slot's worth of memory for its frames."""

    def __init__(
        self, index: int = 0, *, buffers: int = 6, sync_mode: str = "off", stop: Stop = NEVER, **wishes: Any
    ) -> None:
        self.stop = stop
        self.source = PicameraSource(index, buffers=buffers, sync_mode=sync_mode)
        self.request = CameraRequest(**{"width": 640, "height": 480, "framerate": 30.0} | wishes)
        self.opened = self.source.open(self.request, self.stop)
        self.geometry = self.opened.geometry
        self.payload = np.zeros(self.geometry.payload_bytes, np.uint8)
        self.lores = np.zeros(self.opened.lores.payload_bytes, np.uint8) if self.opened.lores else None
        self.shot = ShotMeta()

    def frame(self, timeout_s: float = 5.0) -> int:
        """Take the next frame. Returns: the number drawn into it."""
        assert self.source.wait(timeout_s), f"no frame within {timeout_s} s"
        self.shot = self.source.write(self.payload, self.lores)
        number = frame_number_code.read(self.luma)
        assert number is not None, "no frame number in the picture"
        return number

    def frames(self, count: int) -> list[tuple[int, ShotMeta]]:
        return [(self.frame(), self.shot) for _ in range(count)]

    def until(self, condition: Any, most: int = 60) -> int:
        """Take frames until `condition(shot)`. Returns: how many it took."""
        for taken in range(1, most + 1):
            self.frame()
            if condition(self.shot):
                return taken
        raise AssertionError(f"not within {most} frames; the last one: {self.shot}")

    def apply(self, **wishes: Any) -> None:
        self.request = replace(self.request, **wishes)
        assert self.source.apply(self.request)

    @property
    def luma(self) -> Any:
        return luma(self.payload, self.geometry)

    @property
    def bgr(self) -> Any:
        return to_bgr(self.payload, self.geometry)

    @property
    def brightness(self) -> float:
        """Mean luma below the frame number."""
        return float(self.luma[self.geometry.height // 4 :].mean())

    def close(self) -> None:
        self.source.close()


def bar_colours(bgr: Any) -> Any:
    """The median colour in the middle of each of the eight bars, in the upper half below the frame number."""
    height, width = bgr.shape[:2]
    rows = bgr[height // 8 : height // 2]
    return np.array(
        [
            np.median(rows[:, round((i + 0.35) * width / 8) : round((i + 0.65) * width / 8)], axis=(0, 1))
            for i in range(8)
        ]
    )


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def rss_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
