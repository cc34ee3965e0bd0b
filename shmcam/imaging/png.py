"""Writes RGB pictures as PNG with nothing but zlib, since the analyzer loads no imaging library. Source: RFC 2083."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shmcam.imaging.tiff import PNG_SIGNATURE

_RGB_8_BITS = (8, 2, 0, 0, 0)
_FILTER_UP = 2
"""Each row minus the one above: best of the five for keograms, whose rows resemble each other."""


def to_png(picture: NDArray[np.uint8], texts: Mapping[str, str] | None = None) -> bytes:
    """Encodes (height, width, 3) uint8; `texts` are Latin-1 notes kept in the file."""
    height, width, _ = picture.shape
    above = np.zeros_like(picture)
    above[1:] = picture[:-1]
    rows = (picture - above).reshape(height, width * 3)
    filtered = np.concatenate([np.full((height, 1), _FILTER_UP, np.uint8), rows], axis=1)
    notes = [
        encode_chunk(b"tEXt", key.encode("latin-1", "replace") + b"\0" + text.encode("latin-1", "replace"))
        for key, text in (texts or {}).items()
    ]
    header = struct.pack(">II5B", width, height, *_RGB_8_BITS)
    body = zlib.compress(filtered.tobytes(), 6)
    return b"".join(
        [PNG_SIGNATURE, encode_chunk(b"IHDR", header), *notes, encode_chunk(b"IDAT", body), encode_chunk(b"IEND", b"")]
    )


def encode_chunk(kind: bytes, data: bytes) -> bytes:
    """Returns one chunk: its length, type, data and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
