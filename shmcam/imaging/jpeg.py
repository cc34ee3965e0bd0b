"""Encodes JPEG straight from YUV planes: no detour through BGR (1.5 times as fast).

JFIF means full-range BT.601. Planes that are already that go in unchanged; others are corrected first, because
uncorrected video-range planes look washed out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shm_ring.color import LUMA_WEIGHTS, luma, yuv_to_bgr
from shm_ring.formats import Geometry, planes

Plane = NDArray[np.uint8]


def to_jpeg(
    payload: Plane, geometry: Geometry, quality: int = 85, *, gray: bool = False, width: int | None = None
) -> bytes:
    """Encodes one frame as `JpegEncoder.encode` does, where there is no next one."""
    return JpegEncoder().encode(payload, geometry, quality, gray=gray, width=width)


class JpegEncoder:
    """Encodes frame after frame in buffers that it keeps, as large as the largest frame; one thread uses it.

    New ones for each picture cost as much as the conversion: the kernel clears every page of them.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Plane] = {}

    def encode(
        self, payload: Plane, geometry: Geometry, quality: int = 85, *, gray: bool = False, width: int | None = None
    ) -> bytes:
        """Encodes one frame, with square pixels: browsers know no others in a JPEG.

        `quality` is 1..100. `width` scales down to that many pixels, height in proportion (never up). `gray` leaves
        the colour out.

        Raises: ValueError for a payload that is too short.
        """
        size = jpeg_size_of(geometry, width)
        views = planes(payload, geometry)
        if geometry.pixel_format in ("bgr24", "rgb24") and not gray:
            picture = self._resize("packed", views[0], *size)
            order = "BGR" if geometry.pixel_format == "bgr24" else "RGB"
            return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, order, "420"))
        bright = self._resize("luma", views[0] if views[0].ndim == 2 else luma(payload, geometry), *size)
        if gray or geometry.pixel_format == "gray":
            bright = self._stretch(bright, geometry)
            return bytes(simplejpeg.encode_jpeg_yuv_planes(bright, None, None, quality))
        half = (size[0] + 1) // 2, (size[1] + 1) // 2
        blue, red = views[1:] if geometry.pixel_format == "yuv420p" else self._split(views[1])
        blue, red = self._resize("blue", blue, *half), self._resize("red", red, *half)
        bright, blue, red = self._convert(bright, blue, red, geometry)
        return bytes(simplejpeg.encode_jpeg_yuv_planes(self._extend_to_even(bright), blue, red, quality))

    def _buffer(self, name: str, *shape: int) -> Plane:
        """Returns the kept buffer of a name, contiguous and of this shape."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.uint8)
        return memory[:size].reshape(shape)

    def _split(self, chroma: Plane) -> tuple[Plane, Plane]:
        """Separates the interleaved chroma of nv12."""
        blue, red = (self._buffer(f"split {name}", *chroma.shape[:2]) for name in ("blue", "red"))
        np.copyto(blue, chroma[..., 0])
        np.copyto(red, chroma[..., 1])
        return blue, red

    def _resize(self, name: str, plane: Plane, width: int, height: int) -> Plane:
        if plane.shape[:2] == (height, width):
            return plane
        import cv2

        cv2.setNumThreads(1)  # a plane is too little work to share: waking the others took as long
        how = cv2.INTER_LINEAR if width > plane.shape[1] else cv2.INTER_AREA
        target = self._buffer(f"resized {name}", height, width, *plane.shape[2:])
        return np.asarray(cv2.resize(plane, (width, height), dst=target, interpolation=how), np.uint8)

    def _extend_to_even(self, bright: Plane) -> Plane:
        """Puts a copy of the last row and column behind luma of odd size: libjpeg-turbo reads as much as chroma has."""
        height, width = bright.shape
        if height % 2 == width % 2 == 0:
            return bright
        target = self._buffer("even", height + height % 2, width + width % 2)
        target[:height, :width] = bright
        target[height:, :width] = bright[-1]
        target[:, width:] = target[:, width - 1 : width]
        return target[:height, :width]

    def _stretch(self, bright: Plane, geometry: Geometry) -> Plane:
        """Stretches luma of tv range to 0..255."""
        if geometry.color_range == "pc":
            return bright
        gain, *_, offset = yuv_to_jfif(geometry.color_space, geometry.color_range)[0]
        return self._add(bright, bright, (gain, 0.0, offset), self._buffer("luma", *bright.shape))

    def _convert(self, bright: Plane, blue: Plane, red: Plane, geometry: Geometry) -> tuple[Plane, Plane, Plane]:
        """Converts planes of another matrix or range to those of JFIF, range and matrix in one pass."""
        if (geometry.color_space, geometry.color_range) == ("smpte170m", "pc"):
            return bright, blue, red
        to_y, to_u, to_v = yuv_to_jfif(geometry.color_space, geometry.color_range)
        new_blue, new_red = (
            self._add(blue, red, weights[1:], self._buffer(name, *blue.shape))
            for name, weights in (("blue", to_u), ("red", to_v))
        )
        if geometry.color_space == "smpte170m":
            return self._stretch(bright, geometry), new_blue, new_red
        return self._shift(bright, blue, red, to_y), new_blue, new_red

    def _shift(self, bright: Plane, blue: Plane, red: Plane, to_y: Sequence[float]) -> Plane:
        """Returns luma of another matrix, to which its chroma adds.

        A chroma value adds the same to its 2x2 pixels, as in FFmpeg's conversion to RGB: each is written twice side
        by side, and used for two rows. A smooth enlargement alone would cost more than all the rest.
        """
        import cv2

        zero = 128 - 128 * (to_y[1] + to_y[2])  # what chroma adds to luma is kept around 128: it may be negative
        shift = self._add(blue, red, (to_y[1], to_y[2], zero), self._buffer("shift", *blue.shape))
        pairs = self._buffer("pairs", *blue.shape, 2)
        cv2.merge((shift, shift), dst=pairs)
        rows = pairs.reshape(blue.shape[0], -1)[:, : bright.shape[1]]
        target = self._buffer("luma", *bright.shape)
        for first in range(min(2, bright.shape[0])):
            part = bright[first::2]
            self._add(part, rows[: len(part)], (to_y[0], 1.0, to_y[3] - zero), target[first::2])
        return target

    def _add(self, first: Plane, second: Plane, weights: Sequence[float], target: Plane) -> Plane:
        """Writes first * weights[0] + second * weights[1] + weights[2] into `target`, and returns it."""
        import cv2

        gain, other_gain, offset = weights
        cv2.addWeighted(first, gain, second, other_gain, offset, dst=target)
        return target


def jpeg_size_of(geometry: Geometry, width: int | None = None) -> tuple[int, int]:
    """Returns width and height of a JPEG of such a frame, of at most `width` pixels."""
    shown = geometry.shown_width
    wide = max(1, min(width or shown, shown))
    return wide, max(1, round(geometry.height * wide / shown))


@cache
def yuv_to_jfif(color_space: str, color_range: str) -> tuple[tuple[float, ...], ...]:
    """Returns the 3x4 matrix that turns (Y, U, V, 1) of a frame into full-range BT.601 (Y, U, V).

    Grey is grey in both: the first column is zero but for luma.
    """
    red, green, blue = LUMA_WEIGHTS["smpte170m"]
    bgr = yuv_to_bgr(color_space, color_range).astype(np.float64)
    to_y = np.array([blue, green, red]) @ bgr
    to_u, to_v = (bgr[0] - to_y) / (2 * (1 - blue)), (bgr[2] - to_y) / (2 * (1 - red))
    to_u[3] += 128
    to_v[3] += 128
    return tuple(tuple(float(value) for value in row) for row in (to_y, to_u, to_v))
