"""The directory of a TIFF 6.0 file, big-endian; EXIF is one, too. Pure.

    II or MM, 42, where the first directory lies | the first directory | the EXIF directory

    directory: number of entries | tag, type, count, value or where it lies (12 bytes each) | 0 | values above 4 bytes

Written here because piexif copies and looks up every tag first, which shows in the time a jpg takes to be saved.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

Value = tuple[int, int, bytes]
"""Type, count and bytes of a tag's value."""
Tags = Mapping[int, Value]

EXIF_POINTER = 0x8769
HEADER = b"MM\0*\0\0\0\x08"
_ENTRY = struct.Struct(">HHL")
_PLACE = struct.Struct(">L")


def text(value: str) -> Value:
    """ASCII, ended by a zero."""
    data = value.encode("ascii", "replace") + b"\0"
    return 2, len(data), data


def short(*values: int) -> Value:
    """16-bit numbers."""
    return 3, len(values), struct.pack(f">{len(values)}H", *values)


def long(*values: int) -> Value:
    """32-bit numbers."""
    return 4, len(values), struct.pack(f">{len(values)}L", *values)


def ratio(numerator: int, denominator: int) -> Value:
    """A fraction of two 32-bit numbers."""
    return 5, 1, struct.pack(">2L", numerator, denominator)


def raw(data: bytes) -> Value:
    """Bytes without meaning to the format."""
    return 7, len(data), data


def header(first: Tags, exif: Tags) -> bytes:
    """Everything in front of the samples: both directories and their values."""
    begun = _directory({**first, EXIF_POINTER: long(0)}, len(HEADER))
    behind = len(HEADER) + len(begun)
    return HEADER + _directory({**first, EXIF_POINTER: long(behind)}, len(HEADER)) + _directory(exif, behind)


def _directory(tags: Tags, at: int) -> bytes:
    """One directory that lies `at` bytes from the beginning; its tags in ascending order, as the standard asks."""
    entries, values = [struct.pack(">H", len(tags))], bytearray()
    behind = at + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        kind, count, data = tags[tag]
        if len(data) > _PLACE.size:
            entries.append(_ENTRY.pack(tag, kind, count) + _PLACE.pack(behind + len(values)))
            values += data + bytes(len(data) % 2)  # the next one begins at an even place
        else:
            entries.append(_ENTRY.pack(tag, kind, count) + data.ljust(_PLACE.size, b"\0"))
    return b"".join([*entries, bytes(4), values])
