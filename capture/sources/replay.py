"""Frames that `shmcam dump-ring` wrote, once more: same pixels, same numbers, same timestamps, hence same decisions.

Bit for bit with `--format npy`; png and jpg come back as the picture they hold. A second pass of a looping replay goes
on counting frames and time where the first one ended.
"""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
from msgspec import Struct

from capture.sources.base import CameraError, CameraRequest, EndOfStream, OpenedSource, Payload, ShotMeta
from shm_ring.formats import Geometry, geometry, planes
from shmcam.runtime.atomic_files import open_regular, read_state
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop

TABLE = "frames.csv"
TABLE_BYTES_MAX = 1 << 28
"""A row takes about 200 bytes: more than a million frames."""
LARGEST_TIME, LARGEST_WORD = 1 << 62, (1 << 32) - 1
"""The ring's fields hold no more (shm_ring/layout.py); times leave room for the passes of a loop."""
LARGEST_ID = 1 << 53
"""Ids go on from the largest that a ring ever had, and JavaScript can tell no larger ones apart."""
HEADER_BYTES_MAX = 1 << 16
"""Of an npy file; and what a small png or jpg may have beside its pixels."""
LARGEST_STRIDE = 1 << 18

Row = dict[str, str]


class RecordedFrame(Struct, frozen=True):
    """One frame of a dump: the file of its bytes, and its metadata."""

    file: Path
    shot: ShotMeta


class ReplaySource:
    """Source "replay"; see capture.sources.base.FrameSource."""

    def __init__(self, folder: Path, *, loop: bool = False, realtime: bool = True) -> None:
        self._folder, self._loop, self._realtime = folder, loop, realtime
        self._frames: list[RecordedFrame] = []
        self._next = self._pass = 0
        self._start_ns = 0
        self._stop: Stop | None = None

    @property
    def description(self) -> str:
        """The folder's name."""
        return f"replay {self._folder.name}"

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Reads the table. Raises: CameraError where the folder is no dump, or holds no whole frame."""
        self._stop, self._next, self._pass, self._start_ns = stop, 0, 0, 0
        try:
            rows = read_table(self._folder / TABLE)
            self._frames = [RecordedFrame(self._folder / Path(row["file"]).name, shot_of(row)) for row in rows]
            shapes = {geometry_of(row) for row in rows}
            for shape in shapes:
                planes(np.zeros(shape.payload_bytes, np.uint8), shape)  # every plane lies within the bytes of a frame
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise CameraError(f"{self.description}: {TABLE}: {error}") from error
        if len(shapes) != 1:
            raise CameraError(f"{self.description}: {len(shapes)} kinds of frames; one dump holds one")
        (self._geometry,) = shapes
        refused = dict.fromkeys(request.controls, "a replay has no controls")
        return OpenedSource(self._geometry, refused=refused)

    def wait(self, timeout_s: float) -> bool:
        """At its own pace, sleep until as much time has passed as between the first frame and this one."""
        if self._next == len(self._frames):
            if not self._loop:
                raise EndOfStream(f"{self.description} has ended after {len(self._frames)} frames")
            self._next, self._pass = 0, self._pass + 1
        if not self._realtime:
            return True
        self._start_ns = self._start_ns or now_ns()
        since_first_ns = self._shot().captured_ns - self._frames[0].shot.captured_ns
        due_s = (self._start_ns + since_first_ns - now_ns()) / 1e9
        if due_s <= 0:
            return True
        return self._stop is not None and not self._stop.wait(min(due_s, timeout_s)) and due_s <= timeout_s

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Fills in the recorded bytes; the metadata are the recorded ones, too."""
        shot, file = self._shot(), self._frames[self._next].file
        self._next += 1
        pixels = read_pixels(file, self._geometry)
        if pixels.size != self._geometry.payload_bytes:
            expected = self._geometry.payload_bytes
            raise CameraError(f"{self.description}: {file.name} has {pixels.size} bytes, not {expected}")
        payload[: pixels.size] = pixels
        return shot

    def apply(self, request: CameraRequest) -> bool:
        """Changes nothing: recorded frames stay as they are."""
        return True

    def close(self) -> None:
        """Forgets the table."""
        self._frames = []

    def _shot(self) -> ShotMeta:
        shot = self._frames[self._next].shot
        if not self._pass:
            return shot
        first, last = self._frames[0].shot, self._frames[-1].shot
        gap_ns = last.frame_duration_us * 1000 or (last.captured_ns - first.captured_ns) // max(
            1, len(self._frames) - 1
        )
        later_ns = self._pass * (last.captured_ns - first.captured_ns + gap_ns)
        shot = shot._replace(
            captured_ns=shot.captured_ns + later_ns,
            captured_utc_ns=shot.captured_utc_ns + later_ns,
            frame_id=shot.frame_id + self._pass * (last.frame_id - first.frame_id + 1),
        )
        if not (0 <= shot.frame_id <= LARGEST_ID and max(shot.captured_ns, shot.captured_utc_ns) <= LARGEST_TIME):
            raise CameraError(f"{self.description}: ids or times of pass {self._pass + 1} are out of range")
        return shot


def read_table(path: Path) -> list[Row]:
    """Returns the rows of the frames that are whole. Raises: OSError, ValueError, csv.Error."""
    with TextIOWrapper(open_regular(path, TABLE_BYTES_MAX), encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("file") and not row.get("problem")]


def shot_of(row: Row) -> ShotMeta:
    """Returns the metadata of a frame from its row of the table. Raises: KeyError, ValueError, TypeError."""
    return ShotMeta(
        captured_ns=_read_integer(row, "captured_ns", LARGEST_TIME),
        exposure_us=_read_integer(row, "exposure_us", LARGEST_WORD),
        analogue_gain=_read_gain(row, "analogue_gain"),
        digital_gain=_read_gain(row, "digital_gain"),
        lux=float(row["lux"]),
        colour_temperature_k=_read_integer(row, "colour_temperature_k", LARGEST_WORD),
        frame_duration_us=_read_integer(row, "frame_duration_us", LARGEST_WORD),
        lost_before=_read_integer(row, "dropped_before", LARGEST_WORD),
        captured_utc_ns=_read_integer(row, "captured_utc_ns", LARGEST_TIME),
        frame_id=_read_integer(row, "frame_id", LARGEST_ID),
        flags=_read_integer(row, "flags", LARGEST_WORD),
    )


def _read_integer(row: Row, name: str, largest: int) -> int:
    value = int(row[name])
    if not 0 <= value <= largest:
        raise ValueError(f"{name} = {value}: must be 0..{largest}")
    return value


def _read_gain(row: Row, name: str) -> float:
    value = float(row[name])
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} = {value}: must be finite and not negative")
    return value


def geometry_of(row: Row) -> Geometry:
    """Returns the layout of the frame's bytes. Raises: KeyError, ValueError."""
    size = int(row["width"]), int(row["height"])
    if not row["file"].endswith(".npy"):
        return geometry("bgr24", *size)
    strides, offsets = (tuple(map(int, row[name].split())) for name in ("strides", "offsets"))
    wide, high = map(int, row.get("sample_aspect", "1 1").split())  # dumps of earlier versions have none
    if any(stride > LARGEST_STRIDE for stride in strides):
        raise ValueError(f"strides {strides}: at most {LARGEST_STRIDE}")
    checked = geometry(
        row["pixel_format"],
        *size,
        strides=strides,
        sample_aspect=(wide, high),
        color_space=row["color_space"],
        color_range=row["color_range"],
    )
    if len(offsets) != len(strides) or any(not 0 <= at <= checked.payload_bytes for at in offsets):
        raise ValueError(f"offsets {offsets}: must be {len(strides)} of 0..{checked.payload_bytes}")
    return replace(checked, offsets=offsets)


def read_pixels(file: Path, expected: Geometry) -> Payload:
    """Returns the bytes of one frame; a file of another size is not decoded. Raises: CameraError."""
    try:
        data = read_state(file, 2 * expected.payload_bytes + HEADER_BYTES_MAX)  # noise makes a png larger than it shows
        if file.suffix == ".npy":
            return np.asarray(np.load(BytesIO(data), allow_pickle=False), np.uint8).reshape(-1)
        import cv2

        from shmcam.imaging.image_header import count_pixels

        if (pixels := count_pixels(data)) != expected.width * expected.height:
            raise CameraError(f"{file.name} has {pixels} pixels, not {expected.width * expected.height}")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except CameraError:
        raise
    except Exception as error:  # numpy and OpenCV raise whatever a damaged header makes them
        raise CameraError(f"{file.name}: {error}") from error
    if picture is None:
        raise CameraError(f"{file.name}: not a picture")
    return np.asarray(picture, np.uint8).reshape(-1)
