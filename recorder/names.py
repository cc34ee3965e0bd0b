"""Where a recording lies and what it is called (features.md E3); names are made by us, never taken from outside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.clock import stamp
from service.files import PART

Kind = Literal["session", "rolling", "event"]

SUFFIXES = {"mp4": ".mp4", "h264": ".h264", "mkv": ".mkv"}
TIMING = "_frame_timing.csv"


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one clip: what they are called while they grow, and once they are closed."""

    clip: Path
    """Final name of the video."""

    @property
    def timing(self) -> Path:
        """Final name of the frame timing CSV."""
        return self.clip.with_name(self.clip.stem + TIMING)

    @property
    def growing(self) -> Path:
        """Name of the video while frames are added; a file of this name after a start is a leftover."""
        return self.clip.with_name(self.clip.name + PART)

    @property
    def growing_timing(self) -> Path:
        """Name of the CSV while lines are added."""
        return self.timing.with_name(self.timing.name + PART)


def folder(recordings: Path, kind: Kind, camera: str, started_utc_ns: int) -> Path:
    """The folder of a recording that began then; cameras started by one command share their session folder."""
    if kind == "rolling":
        return recordings / "rolling" / camera
    return recordings / f"session_{stamp(started_utc_ns)}"


def place(folder: Path, camera: str, *, size: tuple[int, int], fps: float, first_utc_ns: int, container: str) -> Place:
    """`cam0_1280x720_30fps_20260822_210405.mp4`, or `…_2.mp4` where that one exists in any form."""
    stem = f"{camera}_{size[0]}x{size[1]}_{rate(fps)}fps_{stamp(first_utc_ns)}"
    number = 1
    while True:
        number_text = "" if number == 1 else f"_{number}"
        candidate = Place(folder / f"{stem}{number_text}{SUFFIXES[container]}")
        ends = (candidate.clip, candidate.growing, candidate.timing, candidate.growing_timing)
        if not any(path.exists() for path in ends):
            return candidate
        number += 1


def is_of(name: str, camera: str) -> bool:
    """Whether a file is called as this camera's are; `front` is not the camera of `front_door_640x360_…`."""
    return re.match(rf"{re.escape(camera)}_\d+x\d+_", name) is not None


def rate(fps: float) -> str:
    """The rate as it stands in a name: `30`, `7.5`, `0.5`."""
    return f"{fps:.2f}".rstrip("0").rstrip(".")
