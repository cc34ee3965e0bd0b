"""Reads the fragments of a growing or cut-off mp4: where the last complete one ends, and how many frames there are.

ISO/IEC 14496-12: a file is a row of boxes: 32-bit size (1: a 64-bit size follows), 4 letters, body. A fragment is
a `moof` (which describes the samples) followed by an `mdat` (their bytes). Only headers are read, so an hour takes a
few ms.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from shmcam.runtime.atomic_files import open_regular

MAX_MOOF_BYTES = 1_000_000
"""Ours have a few hundred bytes."""

SUSPECT_FRAGMENTS = 4
"""Fragments at the end that are examined: a power cut tears what came after the last sync, never more than these."""

_SAMPLE_FIELDS = (0x100, 0x200, 0x400, 0x800)
"""trun flags for 32 bits each of every sample: duration, size, flags, composition offset."""


class Fragment(Struct, frozen=True):
    """One fragment whose bytes are all there."""

    end: int
    """Offset of its last byte plus one."""
    data: int
    """Offset of its first sample."""
    start_us: int
    """Decoding time of its first frame (in the track's time scale, ours is 1 µs)."""
    durations_us: tuple[int, ...]
    sizes: tuple[int, ...]


class Extent(Struct, frozen=True):
    """The part of a file that is whole."""

    bytes: int = 0
    """End of the last sound fragment; 0: there is none."""
    frames: int = 0
    last_pts_us: int = 0
    """Time of the last frame."""
    finished: bool = False
    """A plain mp4: its index is there, behind the frames or in front of them."""


def measure_extent(path: Path, suspect: int = SUSPECT_FRAGMENTS) -> Extent:
    """Measures what is whole; the data of the last `suspect` fragments is examined. Raises: OSError."""
    with open_regular(path) as file:
        fragments, finished = _scan(file, os.fstat(file.fileno()).st_size)
        for number in range(max(0, len(fragments) - suspect), len(fragments)):
            if not is_sound(file, fragments[number]):
                del fragments[number:]  # sectors reach a disk in any order: one behind may be whole, and is given up
                break
    if not fragments:
        return Extent(finished=finished)
    last = fragments[-1]
    frames = sum(len(fragment.sizes) for fragment in fragments)
    return Extent(last.end, frames, last.start_us + sum(last.durations_us[:-1]))


def _scan(file: BinaryIO, total: int) -> tuple[list[Fragment], bool]:
    """Finds every fragment whose bytes are all there. Returns: also whether the file is a finished one instead."""
    fragments: list[Fragment] = []
    moof, kinds, has_index = None, [], False
    for kind, start, size in read_boxes(file, 0, total):
        if start + size > total:
            break
        kinds.append(kind)
        if kind == b"moov":  # that of a growing file announces fragments, and lists no frame
            has_index = all(child != b"mvex" for child, _, _ in read_boxes(file, start + 8, start + size))
        elif kind == b"moof" and size <= MAX_MOOF_BYTES:
            file.seek(start)
            moof = _parse_moof(file.read(size))
        elif kind == b"mdat" and moof is not None:
            fragments.append(Fragment(start + size, start + 8, *moof))
            moof = None
    return fragments, has_index and b"moof" not in kinds and b"mdat" in kinds


def is_sound(file: BinaryIO, fragment: Fragment) -> bool:
    """Tells whether a fragment's samples are made of H.264 units, each with its length in front, none ending in zeros.

    A unit never ends in a zero byte (ITU-T H.264, 7.4.1), so sectors that the disk never wrote show.
    """
    if fragment.data + sum(fragment.sizes) > fragment.end or not fragment.sizes:
        return False
    file.seek(fragment.data)
    return all(_is_sound_sample(file.read(size)) for size in fragment.sizes)


def _is_sound_sample(data: bytes) -> bool:
    at = 0
    while at + 5 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end <= at + 4 or end > len(data) or data[at + 4] & 0x80 or data[end - 1] == 0:
            return False
        at = end
    return at == len(data) > 0


def read_boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, start and size of each box between two offsets; stops at bytes that are no box."""
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


def _parse_moof(data: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """Returns the decoding time of the first sample, and duration and size of each; None for a damaged moof."""
    try:
        traf = _find_child(data, b"traf")
        tfhd, tfdt, trun = (_find_child(traf, kind) for kind in (b"tfhd", b"tfdt", b"trun"))
        first = struct.unpack_from(">Q" if tfdt[8] == 1 else ">I", tfdt, 12)[0]
        duration, size = _parse_defaults(tfhd)
        return first, _parse_column(trun, 0x100, duration), _parse_column(trun, 0x200, size)
    except (struct.error, LookupError, ValueError):
        return None


def _parse_defaults(tfhd: bytes) -> tuple[int, int]:
    """Returns duration and size of samples that do not have their own."""
    flags, at, values = int.from_bytes(tfhd[9:12], "big"), 16, {}
    for flag, width in ((0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)):
        if flags & flag:
            values[flag] = int.from_bytes(tfhd[at : at + width], "big")
            at += width
    return values.get(0x8, 0), values.get(0x10, 0)


def _parse_column(trun: bytes, field: int, default: int) -> tuple[int, ...]:
    """Returns one property of every sample."""
    flags = int.from_bytes(trun[9:12], "big")
    count = struct.unpack_from(">I", trun, 12)[0]
    at = 16 + (4 if flags & 1 else 0) + (4 if flags & 4 else 0)
    fields = [flag for flag in _SAMPLE_FIELDS if flags & flag]
    if at + count * 4 * len(fields) > len(trun):
        raise ValueError("trun is longer than its box")
    if field not in fields:
        return tuple([default] * count)
    at += 4 * fields.index(field)
    step = 4 * len(fields)
    return tuple(int.from_bytes(trun[at + n * step : at + n * step + 4], "big") for n in range(count))


def _find_child(data: bytes, kind: bytes) -> bytes:
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size < 8:
            break
        if name == kind:
            return data[at : at + size]
        at += size
    raise LookupError(kind)
