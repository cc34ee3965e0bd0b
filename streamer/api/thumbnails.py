"""Small pictures of saved files, made when asked for and kept in a bounded memory; nothing is written to disk."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shmcam.imaging.dimensions import count_pixels

WIDTH = 320
"""Pixels; two columns on a phone of twice the density."""

QUALITY = 75
KEPT_BYTES_MAX = 16 * 1024 * 1024
"""About a thousand thumbnails."""

FILE_BYTES_MAX = 64 * 1024 * 1024
PIXELS_MAX = 50_000_000
"""Larger still pictures are not decoded (three bytes a pixel, on boards of 512 MB); of a film only one frame is."""


class Shelf:
    """Thumbnails by file, oldest use first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, int]) -> bytes | None:
        """What was put, if it is still here."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: tuple[str, int], jpeg: bytes) -> None:
        """Keep it; the longest unused go."""
        if (old := self._kept.pop(key, None)) is not None:
            self._bytes -= len(old)
        self._kept[key] = jpeg
        self._bytes += len(jpeg)
        while self._bytes > KEPT_BYTES_MAX:
            self._bytes -= len(self._kept.popitem(last=False)[1])


_shelf = Shelf()
_one_at_a_time = asyncio.Semaphore(1)
"""Decoding a 12-megapixel picture takes 36 MB and a core; recording comes first."""


async def thumbnail(path: Path, media: str, size: int) -> bytes | None:
    """Return a JPEG of at most WIDTH pixels; None where the file holds no picture we can decode."""
    key = (str(path), size)
    if (jpeg := _shelf.get(key)) is None:
        async with _one_at_a_time:
            jpeg = _shelf.get(key) or await asyncio.to_thread(made, path, media, size)
        if jpeg is not None:
            _shelf.put(key, jpeg)
    return jpeg


def made(path: Path, media: str, size: int) -> bytes | None:
    """Decode and scale one file."""
    if media.startswith("video/"):
        picture = _first_frame(path)
    elif media.startswith("image/") and size <= FILE_BYTES_MAX:
        picture = _still(path)
    else:
        picture = None
    return None if picture is None else bytes(simplejpeg.encode_jpeg(_small(picture), QUALITY, "BGR", "420"))


def _still(path: Path) -> NDArray[np.uint8] | None:
    import cv2  # heavy, and only needed here

    try:
        data = path.read_bytes()
    except OSError:  # deleted meanwhile, or its disk is away
        return None
    if not 0 < (count_pixels(data) or 0) <= PIXELS_MAX:
        return None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _first_frame(path: Path) -> NDArray[np.uint8] | None:
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    except (av.error.FFmpegError, IndexError):  # IndexError: a file without video
        return None
    return None


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    height, width = picture.shape[:2]
    if width <= WIDTH:
        return np.ascontiguousarray(picture)
    size = (WIDTH, max(1, round(height * WIDTH / width)))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
