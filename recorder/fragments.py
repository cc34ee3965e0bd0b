"""Reads the fragments of a growing or cut-off mp4: where the last complete one ends, and how many frames there are.

ISO/IEC 14496-12: a file is a row of boxes: 32-bit size (1: a 64-bit size follows), 4 letters, body. A fragment is
a `moof` (what is in it) followed by an `mdat` (the bytes). Only headers are read, so an hour takes a few ms.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_MOOF_BYTES = 1_000_000
"""Ours have a few hundred bytes."""

_SAMPLE_FIELDS = ((0x100, 4), (0x200, 4), (0x400, 4), (0x800, 4))
"""trun flags for: duration, size, flags, composition offset of each sample."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What is whole in a fragmented file."""

    bytes: int
    """End of the last complete fragment; 0: there is none."""
    frames: int
    last_start_us: int
    """Decoding time at which the last complete fragment begins (in the track's time scale, ours is 1 µs)."""
    last_frames: int
    """Frames in it."""
    last_durations_us: tuple[int, ...]
    """Their durations, so far as they are written down."""

    @property
    def last_pts_us(self) -> int:
        """Time of the last frame."""
        return self.last_start_us + sum(self.last_durations_us[: self.last_frames - 1])


EMPTY = Extent(0, 0, 0, 0, ())


def extent(path: Path) -> Extent:
    """Measure what is whole. Raises: OSError. A file without fragments has extent EMPTY."""
    found, moof = EMPTY, None
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        for kind, start, size in boxes(file, 0, total):
            if start + size > total:
                break
            if kind == b"moof" and size <= MAX_MOOF_BYTES:
                file.seek(start)
                moof = _moof(file.read(size))
            elif kind == b"mdat" and moof is not None:
                first_us, durations = moof
                found = Extent(start + size, found.frames + len(durations), first_us, len(durations), durations)
                moof = None
    return found


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and size of each box between two offsets; stops at what is none."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            size = struct.unpack_from(">Q", head, 8)[0]
        if size < 8 or not kind.isalnum():
            return
        yield kind, start, size
        start += size


def _moof(data: bytes) -> tuple[int, tuple[int, ...]] | None:
    """Decoding time of the first sample and the duration of each; None for what is damaged."""
    try:
        traf = _child(data, b"traf")
        tfhd, tfdt, trun = (_child(traf, kind) for kind in (b"tfhd", b"tfdt", b"trun"))
        first = struct.unpack_from(">Q" if tfdt[8] == 1 else ">I", tfdt, 12)[0]
        return first, _durations(trun, _default_duration(tfhd))
    except (struct.error, LookupError, ValueError):
        return None


def _default_duration(tfhd: bytes) -> int:
    flags = int.from_bytes(tfhd[9:12], "big")
    at = 16 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0)
    return int(struct.unpack_from(">I", tfhd, at)[0]) if flags & 8 else 0


def _durations(trun: bytes, default: int) -> tuple[int, ...]:
    flags = int.from_bytes(trun[9:12], "big")
    count = struct.unpack_from(">I", trun, 12)[0]
    at = 16 + (4 if flags & 1 else 0) + (4 if flags & 4 else 0)
    step = sum(size for flag, size in _SAMPLE_FIELDS if flags & flag)
    if count * step > len(trun):
        raise ValueError("trun is longer than its box")
    if not flags & 0x100:
        return tuple([default] * count)
    return tuple(int.from_bytes(trun[at + index * step : at + index * step + 4], "big") for index in range(count))


def _child(data: bytes, kind: bytes) -> bytes:
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size < 8:
            break
        if name == kind:
            return data[at : at + size]
        at += size
    raise LookupError(kind)
