"""The directories of TIFF 6.0 and EXIF 2.32: writes them big-endian, and reads them from JPEG, PNG and TIFF. Pure.

    II or MM, 42, where the first directory lies | the first directory | the EXIF directory

    directory: number of entries | tag, type, count, value or where it lies (12 bytes each) | 0 | values above 4 bytes

The reader takes whatever bytes it gets: a damaged entry is left out, and all values together are no larger than the
file, so that entries which name the same bytes again and again cost no memory.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum


class Tag(IntEnum):
    """The tags that we write or read; numbers from TIFF 6.0 and EXIF 2.32."""

    IMAGE_WIDTH = 0x0100
    IMAGE_LENGTH = 0x0101
    BITS_PER_SAMPLE = 0x0102
    COMPRESSION = 0x0103
    PHOTOMETRIC_INTERPRETATION = 0x0106
    MAKE = 0x010F
    MODEL = 0x0110
    STRIP_OFFSETS = 0x0111
    SAMPLES_PER_PIXEL = 0x0115
    ROWS_PER_STRIP = 0x0116
    STRIP_BYTE_COUNTS = 0x0117
    PLANAR_CONFIGURATION = 0x011C
    SOFTWARE = 0x0131
    DATE_TIME = 0x0132
    EXPOSURE_TIME = 0x829A
    EXIF = 0x8769
    """The offset of the EXIF directory."""
    ISO_SPEED_RATINGS = 0x8827
    EXIF_VERSION = 0x9000
    DATE_TIME_ORIGINAL = 0x9003
    OFFSET_TIME_ORIGINAL = 0x9011
    USER_COMMENT = 0x9286
    SUB_SEC_TIME_ORIGINAL = 0x9291
    IMAGE_UNIQUE_ID = 0xA420


Value = tuple[int, int, bytes]
"""Type, count and bytes (big-endian) of a tag's value."""
Tags = Mapping[int, Value]

HEADER = b"MM\0*\0\0\0\x08"
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
"""First four bytes of the structure, and the byte order they stand for."""
EXIF_MARK = b"Exif\0\0"
"""Begins a JPEG's APP1 segment that holds EXIF."""
JPEG_SIGNATURE, PNG_SIGNATURE = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_APP1 = 0xE1
_SCAN_OR_END = {0xDA, 0xD9}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}

SHORT, LONG = 3, 4
_NUMBERS = {1: "B", 2: "B", SHORT: "H", LONG: "L", 5: "2L", 6: "B", 7: "B", 8: "H", 9: "L", 10: "2L", 11: "L", 12: "Q"}
"""Type of a value → how one of it lies in the file; what has a sign or a fraction is only put into our byte order."""
_ENTRY = struct.Struct(">HHL")
_OFFSET = struct.Struct(">L")


def as_ascii(value: str) -> Value:
    """Returns an ASCII value, ended by a zero."""
    data = value.encode("ascii", "replace") + b"\0"
    return 2, len(data), data


def as_short(*values: int) -> Value:
    """Returns a value of 16-bit numbers."""
    return SHORT, len(values), struct.pack(f">{len(values)}H", *values)


def as_long(*values: int) -> Value:
    """Returns a value of 32-bit numbers."""
    return LONG, len(values), struct.pack(f">{len(values)}L", *values)


def as_rational(numerator: int, denominator: int) -> Value:
    """Returns a fraction of two 32-bit numbers."""
    return 5, 1, struct.pack(">2L", numerator, denominator)


def as_undefined(data: bytes) -> Value:
    """Returns bytes without meaning to the format."""
    return 7, len(data), data


def number_of(value: Value) -> int:
    """Returns the first of some 16- or 32-bit numbers. Raises: ValueError where the value holds none."""
    kind, count, data = value
    if kind not in (SHORT, LONG) or not count:
        raise ValueError(f"{count} values of TIFF type {kind}: must be a SHORT or a LONG")
    return int.from_bytes(data[: 2 if kind == SHORT else 4])


def encode_header(first: Tags, exif: Tags) -> bytes:
    """Returns everything in front of the samples: both directories and their values."""
    draft = _encode_directory({**first, Tag.EXIF: as_long(0)}, len(HEADER))
    exif_offset = len(HEADER) + len(draft)
    first = {**first, Tag.EXIF: as_long(exif_offset)}
    return HEADER + _encode_directory(first, len(HEADER)) + _encode_directory(exif, exif_offset)


def decode_tags(data: bytes, pointer: Tag | None = None) -> dict[int, Value]:
    """Returns the tags of the first directory, or of the directory to which its tag `pointer` points.

    `data` begins as a TIFF file does; it may be cut short.

    Raises: ValueError where it is no TIFF, ends before the directory, or lists more values than it can hold.
    """
    order = BYTE_ORDERS.get(data[:4])
    if order is None or len(data) < len(HEADER):
        raise ValueError(f"TIFF begins with {data[:8]!r}: must be II*\\0 or MM\\0* and an offset")
    tags = _decode_directory(data, order, *struct.unpack_from(order + "L", data, 4))
    if pointer is None:
        return tags
    return _decode_directory(data, order, number_of(tags[pointer])) if pointer in tags else {}


def find_exif(data: bytes) -> bytes:
    """Returns the TIFF structure of a JPEG, PNG or TIFF file, given the file's beginning; empty where there is none."""
    if data.startswith(JPEG_SIGNATURE):
        return _find_in_jpeg(data)
    if data.startswith(PNG_SIGNATURE):
        return _find_in_png(data)
    return data if data[:4] in BYTE_ORDERS else b""


def _encode_directory(tags: Tags, offset: int) -> bytes:
    """Returns a directory that lies `offset` bytes from the beginning; its tags ascend, as the standard asks."""
    entries, values = [struct.pack(">H", len(tags))], bytearray()
    values_offset = offset + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        kind, count, data = tags[tag]
        if len(data) > _OFFSET.size:
            entries.append(_ENTRY.pack(tag, kind, count) + _OFFSET.pack(values_offset + len(values)))
            values += data + bytes(len(data) % 2)  # the next one begins at an even place
        else:
            entries.append(_ENTRY.pack(tag, kind, count) + data.ljust(_OFFSET.size, b"\0"))
    return b"".join([*entries, bytes(4), values])


def _decode_directory(data: bytes, order: str, offset: int) -> dict[int, Value]:
    if offset + 2 > len(data):
        raise ValueError(f"TIFF directory at byte {offset}: must lie within the {len(data)} bytes of the file")
    (entries,) = struct.unpack_from(order + "H", data, offset)
    tags: dict[int, Value] = {}
    values_bytes = 0
    for entry in range(offset + 2, min(offset + 2 + 12 * entries, len(data) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHL", data, entry)
        number = _NUMBERS.get(kind)
        if number is None:
            continue
        size = struct.calcsize(f"={number}") * count
        (place,) = (entry + 8,) if size <= _OFFSET.size else struct.unpack_from(order + "L", data, entry + 8)
        if place + size > len(data):
            continue
        values_bytes += size
        if values_bytes > len(data):
            raise ValueError(f"TIFF directory at byte {offset}: its values need more than the file's {len(data)} bytes")
        tags[tag] = kind, count, _to_big_endian(data[place : place + size], order, number)
    return tags


def _to_big_endian(value: bytes, order: str, number: str) -> bytes:
    if order == ">" or number == "B":
        return value
    numbers = f"{len(value) // struct.calcsize(f'={number[-1]}')}{number[-1]}"
    return struct.pack(f">{numbers}", *struct.unpack(f"<{numbers}", value))


def _find_in_jpeg(data: bytes) -> bytes:
    """Searches the segments up to the first scan. Source: ISO/IEC 10918-1, B.1.1."""
    at = len(JPEG_SIGNATURE)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SCAN_OR_END:
            break
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4])
        if marker == _APP1 and data.startswith(EXIF_MARK, at + 4):
            return data[at + 4 + len(EXIF_MARK) : at + 2 + length]
        at += 2 + max(2, length)
    return b""


def _find_in_png(data: bytes) -> bytes:
    """Searches the chunks up to the first one of pixels. Source: PNG 3rd edition, 5.3 and 11.3.4.5."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            return data[at + 8 : at + 8 + length]
        if kind == b"IDAT":
            break
        at += length + 12
    return b""
