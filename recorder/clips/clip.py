"""The data of one clip: what it is ordered for, how it is written, where it lies, and its totals in the end.

Names are made by `shmcam.library.file_names`, never taken from outside. The user's limits are kept in the sensor's unit
of time.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from msgspec import Struct

from recorder.settings import RecorderSettings
from shm_ring import FrameMeta
from shm_ring.formats import SQUARE
from shmcam.library.entry import ORDINARY_TRIGGERS
from shmcam.library.file_names import TIMING, name_clip, name_session
from shmcam.library.sidecar import INSTALLATION
from shmcam.runtime.atomic_files import PART

Kind = Literal["session", "rolling", "event"]

SUFFIXES = {"mp4": ".mp4", "h264": ".h264", "mkv": ".mkv"}


class ClipPaths(Struct, frozen=True):
    """The files of one clip: their names while they grow, and once they are closed."""

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


def folder_of(recordings: Path, camera: str, order: ClipOrder, prefix: str) -> Path:
    """Returns the folder of a recording: `session_20260822_210405`, a label behind it; `prefix`: its first part.

    One command's recordings of all cameras share a folder.
    """
    if order.kind == "rolling":
        return recordings / "rolling" / camera
    return recordings / name_session(prefix, order.folder_label or "", order.utc_ns)


def find_free_paths(
    folder: Path, camera: str, track: Track, *, first_utc_ns: int, label: str, container: str
) -> ClipPaths:
    """Returns `cam0_1280x720_30.0fps_20260822_210405_trial7.mp4`, or `…_2.mp4` where that exists in any form."""
    stem = name_clip(camera, label, first_utc_ns, width=track.width, height=track.height, fps=track.fps)
    number = 1
    while True:
        number_text = "" if number == 1 else f"_{number}"
        paths = ClipPaths(folder / f"{stem}{number_text}{SUFFIXES[container]}")
        if not any(path.exists() for path in (paths.clip, paths.growing, paths.timing, paths.growing_timing)):
            return paths
        number += 1


NS = 1_000_000_000
FOREVER = 1 << 62
NEXT_FILE = "next file"
TABLE_FRAMES = 1 << 18
"""An mp4 that will be a plain one has 72 bytes for each of its frames in memory until it is closed, in a table that
doubles (FFmpeg's movenc.c): at most 19 MB. 2.4 hours at 30 frames per second."""


@dataclass(frozen=True, slots=True)
class ClipOrder:
    """An order for one clip. A frame whose order has another `number` than the one before begins another file."""

    number: int
    kind: Kind
    trigger: str
    """manual, auto, rolling, motion, night, command."""
    start_ns: int
    """The first instant to record."""
    utc_ns: int
    """Wall clock when the recording was ordered: names its folder. This may be the n-th file of the recording."""
    label: str = ""
    protect: bool = False
    because: str = NEXT_FILE
    """The reason why this file begins, and the one before it ends."""
    folder_label: str | None = field(default=None, compare=False)
    """The label that it was ordered with: those of later events name files, but all files stay in one folder."""

    def __post_init__(self) -> None:
        if self.folder_label is None:
            object.__setattr__(self, "folder_label", self.label)

    def with_mark(self, trigger: str, label: str, protect: bool) -> ClipOrder:
        """Returns the order of the same clip after an event fell into it: retention takes it last, or never.

        The kind of the clip stays.
        """
        return replace(
            self,
            trigger=trigger if self.trigger in ORDINARY_TRIGGERS else self.trigger,
            label=self.label or label,
            protect=self.protect or protect,
        )


class ClipLimits(Struct, frozen=True):
    """The user's numbers, in ns."""

    pre_ns: int
    post_ns: int
    event_ns: int
    """Longest event, post-roll included."""
    rolling_ns: int
    session_ns: int
    """Longest single file of a session."""
    frames: int = sys.maxsize
    """Most frames in one file."""

    @classmethod
    def of(cls, settings: RecorderSettings) -> ClipLimits:
        """Returns the limits of these settings."""
        has_table = settings.container == "mp4" and settings.on_close != "fragmented"
        return cls(
            int(settings.pre_roll_s * NS),
            int(settings.post_roll_s * NS),
            int(settings.max_event_s * NS),
            int(settings.recording_duration_minutes * 60 * NS),
            int(settings.max_file_minutes * 60 * NS),
            TABLE_FRAMES if has_table else sys.maxsize,
        )


class ClipFormat(Struct, frozen=True):
    """The format that a clip is written in."""

    container: str
    fragment_s: float
    csv: bool
    plain: bool
    """True if an mp4 becomes a plain one when it is closed."""
    session_prefix: str = "session"
    """The first part of the name of a session's folder."""

    @classmethod
    def of(cls, settings: RecorderSettings) -> ClipFormat:
        """Returns the format of these settings."""
        is_plain = settings.on_close != "fragmented"
        return cls(settings.container, settings.fragment_s, settings.csv, is_plain, settings.session_prefix)


class Track(Struct, frozen=True):
    """The properties of one video stream; frames of another track need another file."""

    width: int
    height: int
    fps: float
    """Nominal."""
    parameter_sets: bytes
    mode: int = 0
    """Counts changes of size, format and camera mode."""
    sample_aspect: tuple[int, int] = SQUARE
    """Width and height of one pixel."""


class ClipTotals(Struct, frozen=True):
    """The totals of a clip."""

    frames: int
    first_frame: int
    last_frame: int
    first_ns: int
    last_ns: int
    hardware_drops: int
    lost: int
    bytes: int

    @property
    def drops(self) -> int:
        """Frames missing between first and last: those the camera dropped and those the recorder lost."""
        return self.hardware_drops + self.lost

    @property
    def duration_s(self) -> float:
        """From first to last frame, by the sensor's clock."""
        return (self.last_ns - self.first_ns) / 1e9


def describe(
    camera: str, order: ClipOrder, first: FrameMeta, installation: str, clock_error_us: int | None
) -> dict[str, object]:
    """Returns what a video says about itself, so that it can be adopted from its bytes alone, and by us only.

    `clock_error_us`: the largest error of captured_utc_ns; None: no NTP client has set the clock.
    """
    return {
        INSTALLATION: installation,
        "camera": camera,
        "kind": order.kind,
        "trigger": order.trigger,
        "label": order.label,
        "protect": order.protect,
        "first_frame": first.frame_id,
        "captured_ns": first.captured_ns,
        "captured_utc_ns": first.captured_utc_ns,
        "clock_error_us": clock_error_us,
    }
