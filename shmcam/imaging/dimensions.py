"""How many pixels a saved picture has, by its header alone: asked before anything is decoded."""

from __future__ import annotations

import struct

import simplejpeg

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
TIFF = {b"II*\0": "<", b"MM\0*": ">"}
"""First four bytes, and the byte order they stand for (TIFF 6.0, section 2)."""
WIDTH, HEIGHT = 256, 257
"""TIFF's tags."""
LAYOUT = {3: "H", 4: "I"}
"""TIFF's types of whole numbers: SHORT and LONG."""


def pixels(data: bytes) -> int | None:
    """Width times height of a JPEG, PNG or TIFF; None where the header is no such."""
    try:
        if data.startswith(JPEG):
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            return int(height) * int(width)
        if data.startswith(PNG):
            width, height = struct.unpack_from(">II", data, 16)
            return int(width * height)
        order = TIFF.get(data[:4])
        return None if order is None else _of_tiff(data, order)
    except (ValueError, KeyError, struct.error):  # cut short, or no header of this kind after all
        return None


def _of_tiff(data: bytes, order: str) -> int:
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    found: dict[int, int] = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in {WIDTH, HEIGHT}:
            (found[tag],) = struct.unpack_from(order + LAYOUT[kind], data, entry + 8)
    return found[WIDTH] * found[HEIGHT]
