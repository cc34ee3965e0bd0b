"""The packets ring `/<prefix>.<camera>.h264`: encoded frames for live video, in slots of a fixed size.

One encoded frame (an *access unit*) is cut into as many slots as it needs; each slot holds

    PACKET_HEADER, 40 bytes │ bytes [offset, offset + n) of the unit, n = used_bytes - 40

- The unit is H.264 in Annex B form (start codes). A key frame begins with its parameter sets (SPS, PPS), so a reader
  may begin at any key frame and needs nothing else; there is no separate extradata. `parameter_sets()` finds them.
- `pts_us` is the sensor's clock in microseconds: it never steps back within a `stream`. Another `stream` number
  means that the encoder was opened anew: size or parameter sets may differ, and it begins with a key frame. A recorder
  that is started again counts from 1 again, so after that only the parameter sets tell.
- Metadata (frame id, captured_ns, exposure …) is the frame's own; Flags.KEY is set in every slot of a key frame.
- There are no B-frames: decoding order is presentation order.

A reader that was lapped, or misses a part, is taken on to the next key frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shm_ring.errors import FrameOverwritten
from shm_ring.formats import SQUARE
from shm_ring.layout import PAGE_BYTES, TRAILER_BYTES
from shm_ring.live_ring import LiveRing
from shm_ring.metadata import Flags, FrameMeta
from shm_ring.reader import RingReader
from shm_ring.writer import RingWriter

STREAM = "h264"
MAGIC = 0x34363248  # "H264" in little-endian bytes
LEAST_SLOT_BYTES, MOST_SLOT_BYTES = 8 * 1024, 64 * 1024
"""The size of slots; 64 KiB hold most units of 1080p at 10 Mbit/s whole (41 KB on average)."""
PIXELS_PER_BYTE = 32
"""1024x768 gets slots of 24 KiB, 1080p and more 64 KiB; a key frame takes a few slots in any case."""

PACKET_HEADER = np.dtype(
    [
        ("magic", "u4"),
        ("stream", "u4"),  # counts openings of the encoder
        ("unit_bytes", "u4"),  # size of the whole unit
        ("offset", "u4"),  # of this part in it
        ("pts_us", "u8"),
        ("duration_us", "u4"),  # expected time to the next frame
        ("width", "u4"),
        ("height", "u4"),
        ("sample_aspect", "u2", (2,)),  # width and height of one pixel; 0 = square (earlier writers)
    ],
    align=True,
)
HEADER_BYTES = PACKET_HEADER.itemsize

_SPS, _PPS, _NAL_TYPE = 7, 8, 0x1F
_START_CODE = b"\0\0\1"


@dataclass(frozen=True, slots=True)
class Unit:
    """One encoded frame, put together again."""

    data: bytes
    """Annex B."""
    meta: FrameMeta
    pts_us: int
    """Sensor clock, microseconds."""
    duration_us: int
    """Expected time to the next frame; 0 = unknown."""
    width: int
    height: int
    stream: int
    """Counts openings of the encoder, each recorder from 1 on; at another number everything may differ."""
    sample_aspect: tuple[int, int] = SQUARE
    """Width and height of one pixel."""

    @property
    def key(self) -> bool:
        """True where decoding can begin."""
        return bool(self.meta.flags & Flags.KEY)


def slots_for(seconds: float, fps: float) -> int:
    """Slots for so many seconds: two a frame, which covers 20 Mbit/s at 30 fps."""
    return max(16, int(np.ceil(2 * seconds * fps)))


def slot_bytes_for(width: int, height: int) -> int:
    """Payload of a slot for pictures of this size: whole pages together with the slot's trailer."""
    wanted = min(MOST_SLOT_BYTES, max(LEAST_SLOT_BYTES, width * height // PIXELS_PER_BYTE))
    return -(-wanted // PAGE_BYTES) * PAGE_BYTES - TRAILER_BYTES


def publish(ring: RingWriter, unit: Unit) -> None:
    """Writes one unit into as many slots as it takes."""
    room = ring.payload_bytes - HEADER_BYTES
    header = np.zeros((), PACKET_HEADER)
    header["magic"], header["stream"], header["unit_bytes"] = MAGIC, unit.stream, len(unit.data)
    header["pts_us"], header["duration_us"] = unit.pts_us, unit.duration_us
    header["width"], header["height"] = unit.width, unit.height
    header["sample_aspect"] = unit.sample_aspect
    data = np.frombuffer(unit.data, np.uint8)
    for offset in range(0, len(data), room):
        part = data[offset : offset + room]
        header["offset"] = offset
        with ring.slot() as slot:
            slot.payload[:HEADER_BYTES] = np.frombuffer(header.tobytes(), np.uint8)
            slot.payload[HEADER_BYTES : HEADER_BYTES + part.size] = part
            slot.used_bytes = HEADER_BYTES + part.size
            slot.meta = unit.meta


class _Assembly:
    """Puts parts together; forgets everything up to the next key frame when one is missing."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0
        self._next_sequence = -1
        self._stream = -1
        self._joined = False

    def lose(self) -> None:
        """Something is missing."""
        self._parts, self._bytes, self._joined = [], 0, False

    def take(self, reader: RingReader, sequence: int) -> Unit | None:
        """Takes one slot. Returns: the unit it completes."""
        try:
            with reader.borrow(sequence) as frame:
                payload, meta = frame.payload.tobytes(), frame.meta
        except FrameOverwritten:
            self.lose()
            return None
        return self._add(sequence, payload, meta)

    def _add(self, sequence: int, payload: bytes, meta: FrameMeta) -> Unit | None:
        head = np.frombuffer(payload, PACKET_HEADER, 1)[0]
        offset, key = int(head["offset"]), bool(meta.flags & Flags.KEY)
        if sequence != self._next_sequence or int(head["stream"]) != self._stream:
            self.lose()
        self._next_sequence, self._stream = sequence + 1, int(head["stream"])
        if offset == 0:
            self._parts, self._bytes = [], 0
            self._joined = self._joined or key
        if not self._joined or offset != self._bytes or int(head["magic"]) != MAGIC:
            self.lose()
            return None
        self._parts.append(payload[HEADER_BYTES:])
        self._bytes += len(payload) - HEADER_BYTES
        if self._bytes < int(head["unit_bytes"]):
            return None
        data = b"".join(self._parts)
        pts_us, duration_us = int(head["pts_us"]), int(head["duration_us"])
        wide, high = (int(side) or 1 for side in head["sample_aspect"])
        size = (int(head["width"]), int(head["height"]))
        return Unit(data, meta, pts_us, duration_us, *size, self._stream, sample_aspect=(wide, high))


def follow(ring: LiveRing, *, start: str | int = "new", idle_s: float = 0.5) -> Iterator[Unit | None]:
    """Yields each unit in order, beginning at a key frame; None once per `idle_s` without one.

    `start` as in LiveRing.sequences; `latest_key` gives a sequence that begins at once. Ends when stop is requested.
    """
    assembly = _Assembly()
    for item in ring.sequences(start=start, idle_s=idle_s):
        if item is None:
            yield None
            continue
        unit = assembly.take(*item)
        if unit is not None:
            yield unit


def latest_key(ring: LiveRing) -> int | None:
    """Returns the sequence at which the newest complete key frame begins; None where there is none.

    Raises: RingNotReady.
    """
    reader = ring.reader()
    for sequence in reversed(range(reader.oldest, reader.head)):
        try:
            with reader.borrow(sequence) as frame:
                head = np.frombuffer(frame.payload[:HEADER_BYTES].tobytes(), PACKET_HEADER, 1)[0]
                begins = bool(frame.meta.flags & Flags.KEY) and int(head["offset"]) == 0
        except FrameOverwritten:
            return None
        if begins:
            return sequence
    return None


def split_nal_units(data: bytes) -> Iterator[bytes]:
    """Split at start codes (3 or 4 bytes); a unit never ends in a zero byte (7.4.1.1 of the standard)."""
    at = data.find(_START_CODE)
    while at >= 0:
        begin = at + len(_START_CODE)
        at = data.find(_START_CODE, begin)
        unit = data[begin : at if at >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit


def parameter_sets(unit: bytes) -> bytes:
    """The SPS and PPS in front of a key frame, with start codes; empty where there are none."""
    sets = b""
    for nal_unit in split_nal_units(unit):
        if nal_unit[0] & _NAL_TYPE in (_SPS, _PPS):
            sets += b"\0" + _START_CODE + nal_unit
        elif sets:
            break
    return sets
