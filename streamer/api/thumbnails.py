"""Thumbnails of saved files, made on request and kept in a bounded cache in memory; nothing is written to disk."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shmcam.imaging.image_header import count_pixels
from shmcam.runtime.atomic_files import open_regular, read_state

WIDTH = 320
"""Pixels; two columns on a phone with two pixels per point."""

QUALITY = 75
CACHE_BYTES_MAX = 16 * 1024 * 1024
"""About a thousand thumbnails."""

FILE_BYTES_MAX = 64 * 1024 * 1024
PIXELS_MAX = 50_000_000
"""Larger pictures are not decoded (three bytes per pixel, on boards with 512 MB); of a video only one frame is."""


class ThumbnailCache:
    """Thumbnails by file, least recently used first."""

    def __init__(self) -> None:
        self._jpegs: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, int]) -> bytes | None:
        """Returns a thumbnail, or None if it is not in the cache."""
        if key in self._jpegs:
            self._jpegs.move_to_end(key)
        return self._jpegs.get(key)

    def put(self, key: tuple[str, int], jpeg: bytes) -> None:
        """Adds a thumbnail and drops the least recently used ones beyond the limit."""
        if (old := self._jpegs.pop(key, None)) is not None:
            self._bytes -= len(old)
        self._jpegs[key] = jpeg
        self._bytes += len(jpeg)
        while self._bytes > CACHE_BYTES_MAX:
            self._bytes -= len(self._jpegs.popitem(last=False)[1])


_cache = ThumbnailCache()


async def get_thumbnail(path: Path, media_type: str, size: int, lock: asyncio.Lock) -> bytes | None:
    """Returns a JPEG at most WIDTH pixels wide, from the cache if possible; None: no picture to decode."""
    key = (str(path), size)
    if (jpeg := _cache.get(key)) is None:
        async with lock:
            jpeg = _cache.get(key) or await asyncio.to_thread(make_thumbnail, path, media_type, size)
        if jpeg is not None:
            _cache.put(key, jpeg)
    return jpeg


def make_thumbnail(path: Path, media_type: str, size: int) -> bytes | None:
    """Decodes and scales one file. Returns: a JPEG; None: no picture to decode, or too large."""
    if media_type.startswith("video/"):
        picture = _decode_first_frame(path)
    elif media_type.startswith("image/") and size <= FILE_BYTES_MAX:
        picture = _decode_picture(path)
    else:
        picture = None
    return None if picture is None else bytes(simplejpeg.encode_jpeg(_scale(picture), QUALITY, "BGR", "420"))


def _decode_picture(path: Path) -> NDArray[np.uint8] | None:
    import cv2  # heavy, and only needed here

    try:
        data = read_state(path, FILE_BYTES_MAX)
    except OSError:  # deleted meanwhile, or its disk is away
        return None
    if not 0 < (count_pixels(data) or 0) <= PIXELS_MAX:
        return None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _decode_first_frame(path: Path) -> NDArray[np.uint8] | None:
    import av

    try:
        with open_regular(path) as file, av.open(file, "r") as container:
            aspect = container.streams.video[0].sample_aspect_ratio or 1
            for frame in container.decode(video=0):
                square = frame.reformat(width=max(1, round(frame.width * aspect)))
                return np.asarray(square.to_ndarray(format="bgr24"), np.uint8)
    except (av.FFmpegError, OSError, IndexError):  # IndexError: a file without video
        return None
    return None


def _scale(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    height, width = picture.shape[:2]
    if width <= WIDTH:
        return np.ascontiguousarray(picture)
    size = (WIDTH, max(1, round(height * WIDTH / width)))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
