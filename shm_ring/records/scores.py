"""The analyzer's record of each frame in the ring `/<prefix>.<camera>.scores`, and its reader.

    0    frame_id, captured_ns                                  which frame
    16   dark_score … exposure_s                                brightness, 32-bit floats
    60   p10 p50 p90 p99, saturated, black, sharpness           the picture in numbers
    88   motion_score, motion_box                               x, y, width, height as fractions of the frame
    108  night, source, settled, moving, forced                 one byte each
    114  plugins_bytes, plugins                                 JSON object: what the user's functions returned

The record is declared here, beside the ring, so that streamer, exporter and recorder can read it without importing
the analyzer. A frame the analyzer skipped has no record: `nearest` finds the one before it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from shm_ring.errors import FrameOverwritten, RingMismatch, RingNotReady
from shm_ring.live_ring import LiveRing, StopSignal
from shm_ring.reader import RingReader

STREAM = "scores"
PLUGINS_BYTES = 908
"""Rounds the record to 1 KiB; a few dozen numbers with names."""

SOURCES = ("raw", "learned", "ev", "lux")
"""The ways in which a frame's exposure is known, by the number in `source`."""

SCORE = np.dtype(
    [
        ("frame_id", "u8"),
        ("captured_ns", "i8"),  # sensor clock
        ("dark_score", "f4"),  # plain mean luma 0-255
        ("scene_brightness", "f4"),  # mean luma 0-255 at the video-mode reference exposure: what the thresholds mean
        ("scene_low", "f4"),  # it is at least so bright
        ("scene_high", "f4"),  # and at most so bright
        ("scene_ev", "f4"),  # stops, unclipped
        ("dark_threshold", "f4"),  # in force for this frame
        ("bright_threshold", "f4"),
        ("exposure_s", "f4"),  # exposure time x gains in seconds; nan = unknown
        ("locked_s", "f4"),  # seconds until the next switch is allowed
        ("night_since_s", "f4"),  # seconds since the mode changed; -1 = not since the analyzer started
        ("lux", "f4"),  # nan = unknown
        ("p10", "f4"),  # luma percentiles 0-255
        ("p50", "f4"),
        ("p90", "f4"),
        ("p99", "f4"),
        ("saturated", "f4"),  # fraction of pixels at full scale
        ("black", "f4"),  # fraction of pixels at no light
        ("sharpness", "f4"),  # 0 flat, about 4 at most
        ("motion_score", "f4"),  # moving fraction of the watched area
        ("motion_box", "f4", (4,)),  # x, y, width, height, fractions of the frame; zeros = none
        ("night", "u1"),
        ("source", "u1"),  # index in SOURCES
        ("settled", "u1"),  # 0: the camera's controls were moving, the frame did not count
        ("moving", "u1"),  # a motion event is on
        ("forced", "u1"),  # night was set by hand
        ("version", "u1"),
        ("plugins_bytes", "u2"),
        ("plugins", "u1", (PLUGINS_BYTES,)),
    ],
    align=True,
)
VERSION = 1


@dataclass(frozen=True, slots=True)
class Score:
    """One record, as Python values. Fields as in SCORE."""

    frame_id: int
    captured_ns: int
    dark_score: float
    scene_brightness: float
    scene_low: float
    scene_high: float
    scene_ev: float
    dark_threshold: float
    bright_threshold: float
    exposure_s: float
    locked_s: float
    night_since_s: float
    lux: float
    p10: float
    p50: float
    p90: float
    p99: float
    saturated: float
    black: float
    sharpness: float
    motion_score: float
    motion_box: tuple[float, float, float, float]
    night: bool
    source: str
    settled: bool
    moving: bool
    forced: bool
    plugins: dict[str, dict[str, float | int | str | bool | None]]
    """The last result of each plug-in, by its name."""


def parse(payload: np.typing.NDArray[np.uint8]) -> Score:
    """Reads one record. Raises: RingMismatch where these are not ours."""
    if payload.size != SCORE.itemsize:
        raise RingMismatch(f"scores record of {payload.size} bytes; expected {SCORE.itemsize}")
    row = payload.view(SCORE)[0]
    if row["version"] != VERSION:
        raise RingMismatch(f"scores record of version {row['version']}; expected {VERSION}")
    values = {name: row[name].item() for name in Score.__slots__ if name not in _CONVERTED}
    return Score(
        **values,
        motion_box=tuple(row["motion_box"].tolist()),
        **{name: bool(row[name]) for name in ("night", "settled", "moving", "forced")},
        source=SOURCES[min(int(row["source"]), len(SOURCES) - 1)],
        plugins=_plugins(row["plugins"][: int(row["plugins_bytes"])].tobytes()),
    )


_CONVERTED = frozenset(("motion_box", "night", "settled", "moving", "forced", "source", "plugins"))


def _plugins(text: bytes) -> dict[str, dict[str, float | int | str | bool | None]]:
    try:
        value = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class Scores:
    """The scores ring of one camera, for other processes; a context manager.

    Errors: while there is no analyzer, or none yet, every question is answered with None.
    """

    def __init__(self, ring_name: str, stop: StopSignal | None = None) -> None:
        """`ring_name`: settings.ring_name(camera, "scores")."""
        self._ring = LiveRing(ring_name, stop)

    def latest(self) -> Score | None:
        """The newest record."""
        reader = self._reader()
        sequence = None if reader is None else reader.latest()
        return None if reader is None or sequence is None else self._read(reader, sequence)

    def nearest(self, frame_id: int) -> Score | None:
        """The record of this frame, or of the last frame before it that was scored."""
        reader = self._reader()
        if reader is None:
            return None
        every = range(reader.oldest, reader.head)
        at = bisect_right(every, frame_id, key=lambda sequence: self._frame_id(reader, sequence))
        return self._read(reader, every[at - 1]) if at else None

    def release_if_retired(self) -> None:
        """Gives an ended ring's memory back; from any thread."""
        self._ring.release_if_retired()

    def close(self) -> None:
        """Lets go of the ring."""
        self._ring.close()

    def __enter__(self) -> Scores:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reader(self) -> RingReader | None:
        try:
            return self._ring.reader()
        except RingNotReady:
            return None

    @staticmethod
    def _frame_id(reader: RingReader, sequence: int) -> int:
        try:
            return reader.borrow(sequence).frame_id
        except FrameOverwritten:
            return -1

    @staticmethod
    def _read(reader: RingReader, sequence: int) -> Score | None:
        try:
            return parse(reader.copy(sequence).payload)
        except FrameOverwritten:
            return None
