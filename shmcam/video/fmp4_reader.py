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

SUSPECT = 4
"""Fragments at the end that are looked into: a power cut tears what came after the last sync, never more than these."""

_SAMPLE_FIELDS = (0x100, 0x200, 0x400, 0x800)
"""trun flags for 32 bits each of every sample: duration, size, flags, composition offset."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One fragment whose bytes are all there."""

    end: int
    """Offset of its last byte plus one."""
    data: int
    """Offset of its first sample."""
    start_us: int
    """Decoding time of its first frame (in the track's time scale, ours is 1 µs)."""
    durations_us: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Extent:
    """What is whole in a file."""

    bytes: int = 0
    """End of the last sound fragment; 0: there is none."""
    frames: int = 0
    last_pts_us: int = 0
    """Time of the last frame."""
    finished: bool = False
    """A plain mp4: its index is there."""


def extent(path: Path, suspect: int = SUSPECT) -> Extent:
    """Measure what is whole; the last `suspect` fragments are looked into. Raises: OSError."""
    with path.open("rb") as file:
        fragments, finished = _scan(file, os.fstat(file.fileno()).st_size)
        known = max(0, len(fragments) - suspect)
        for number in range(known, len(fragments)):
            if not sound(file, fragments[number]):
                del fragments[number:]  # sectors reach a disk in any order: one behind may be whole, and is given up
                break
    if not fragments:
        return Extent(finished=finished)
    last = fragments[-1]
    frames = sum(len(fragment.sizes) for fragment in fragments)
    return Extent(last.end, frames, last.start_us + sum(last.durations_us[:-1]))


def _scan(file: BinaryIO, total: int) -> tuple[list[Fragment], bool]:
    """Every fragment whose bytes are all there; and whether the file is a finished one instead."""
    found: list[Fragment] = []
    moof, kinds = None, []
    for kind, start, size in boxes(file, 0, total):
        if start + size > total:
            break
        kinds.append(kind)
        if kind == b"moof" and size <= MAX_MOOF_BYTES:
            file.seek(start)
            moof = _moof(file.read(size))
        elif kind == b"mdat" and moof is not None:
            found.append(Fragment(start + size, start + 8, *moof))
            moof = None
    return found, b"moof" not in kinds and kinds[-1:] == [b"moov"] and b"mdat" in kinds


def sound(file: BinaryIO, fragment: Fragment) -> bool:
    """Whether its samples are made of H.264 units, each with its length in front, and none ends in zeros.

    A unit never ends in a zero byte (ITU-T H.264, 7.4.1), so sectors that the disk never wrote show.
    """
    if fragment.data + sum(fragment.sizes) > fragment.end or not fragment.sizes:
        return False
    file.seek(fragment.data)
    return all(_sound_sample(file.read(size)) for size in fragment.sizes)


def _sound_sample(data: bytes) -> bool:
    at = 0
    while at + 5 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end <= at + 4 or end > len(data) or data[at + 4] & 0x80 or data[end - 1] == 0:
            return False
        at = end
    return at == len(data) > 0


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


def _moof(data: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """Decoding time of the first sample, duration and size of each; None for what is damaged."""
    try:
        traf = _child(data, b"traf")
        tfhd, tfdt, trun = (_child(traf, kind) for kind in (b"tfhd", b"tfdt", b"trun"))
        first = struct.unpack_from(">Q" if tfdt[8] == 1 else ">I", tfdt, 12)[0]
        duration, size = _defaults(tfhd)
        return first, _column(trun, 0x100, duration), _column(trun, 0x200, size)
    except (struct.error, LookupError, ValueError):
        return None


def _defaults(tfhd: bytes) -> tuple[int, int]:
    """Duration and size of samples that do not say their own."""
    flags, at, found = int.from_bytes(tfhd[9:12], "big"), 16, {}
    for flag, width in ((0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)):
        if flags & flag:
            found[flag] = int.from_bytes(tfhd[at : at + width], "big")
            at += width
    return found.get(0x8, 0), found.get(0x10, 0)


def _column(trun: bytes, wanted: int, default: int) -> tuple[int, ...]:
    """One property of every sample."""
    flags = int.from_bytes(trun[9:12], "big")
    count = struct.unpack_from(">I", trun, 12)[0]
    at = 16 + (4 if flags & 1 else 0) + (4 if flags & 4 else 0)
    present = [field for field in _SAMPLE_FIELDS if flags & field]
    if at + count * 4 * len(present) > len(trun):
        raise ValueError("trun is longer than its box")
    if wanted not in present:
        return tuple([default] * count)
    at += 4 * present.index(wanted)
    step = 4 * len(present)
    return tuple(int.from_bytes(trun[at + n * step : at + n * step + 4], "big") for n in range(count))


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
