"""Pixel formats, geometry and plane views: the places of a frame's planes in its bytes.

A payload is one run of bytes; a `Geometry` says what they are. Nothing is copied here: every plane is a view, read-only
when the payload is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

PixelFormat = Literal["yuv420p", "nv12", "bgr24", "rgb24", "gray"]
PIXEL_FORMATS: tuple[str, ...] = get_args(PixelFormat)
"""FFmpeg's names. libcamera's RGB888 is bgr24 in memory, its BGR888 is rgb24."""

COLOR_SPACES = ("smpte170m", "bt709", "bt2020nc")
"""FFmpeg's names of the YUV matrix: BT.601 (what JPEG uses), BT.709 (HD video) and BT.2020 (UHD video)."""

COLOR_RANGES = ("pc", "tv")
"""pc: luma 0..255. tv: luma 16..235, chroma 16..240."""

MAX_SIDE = 16384
"""Pixels; 16384 x 16384 still fits signed 32-bit byte offsets, and no camera on a Pi comes near."""

SQUARE = (1, 1)

MAX_ASPECT = 0xFFFF
"""H.264 stores the sides of a pixel in 16 bits each (Annex E)."""

Plane = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The meaning of one payload's bytes."""

    pixel_format: str
    """One of PIXEL_FORMATS."""
    width: int
    """Pixels, 1..MAX_SIDE; odd is fine."""
    height: int
    """Pixels, 1..MAX_SIDE; odd is fine."""
    strides: tuple[int, ...]
    """Bytes from one row to the next, per plane."""
    offsets: tuple[int, ...]
    """Bytes from the start of the payload to each plane's first pixel."""
    color_space: str = "smpte170m"
    """One of COLOR_SPACES."""
    color_range: str = "pc"
    """One of COLOR_RANGES."""
    sample_aspect: tuple[int, int] = SQUARE
    """Width and height of one pixel; a DVR's 352x288 of 12:11 is shown 384 wide."""

    @property
    def shown_width(self) -> int:
        """The width, in square pixels, at which the picture is shown in its height: a circle is round then."""
        wide, high = self.sample_aspect
        return max(1, min(MAX_SIDE, round(self.width * wide / high)))

    @property
    def payload_bytes(self) -> int:
        """Bytes from the start of the payload to the end of the last plane, padding of its rows included."""
        shapes = plane_shapes(self.pixel_format, self.width, self.height)
        return max(o + s * shape[0] for o, s, shape in zip(self.offsets, self.strides, shapes, strict=True))


def plane_shapes(pixel_format: str, width: int, height: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of the planes of a frame: rows first, then pixels, then bytes per pixel where that is not 1.

    Raises: ValueError for an unknown format or an absurd size.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"frame size {width}x{height}: each side must be 1..{MAX_SIDE} pixels")
    half = ((height + 1) // 2, (width + 1) // 2)
    match pixel_format:
        case "yuv420p":
            return (height, width), half, half
        case "nv12":
            return (height, width), (*half, 2)
        case "bgr24" | "rgb24":
            return ((height, width, 3),)
        case "gray":
            return ((height, width),)
    raise ValueError(f"pixel format {pixel_format!r}: must be one of {', '.join(PIXEL_FORMATS)}")


def geometry(
    pixel_format: str,
    width: int,
    height: int,
    *,
    strides: tuple[int, ...] | None = None,
    color_space: str = "smpte170m",
    color_range: str = "pc",
    sample_aspect: tuple[int, int] = SQUARE,
) -> Geometry:
    """Lays out the planes one after the other.

    Without `strides` the rows are tight, except that a YUV 4:2:0 luma row is rounded up to even, so that the chroma
    stride is exactly half of it: that is what FFmpeg's plain buffers need and what libcamera's single-buffer layout is.

    Raises: ValueError for an unknown name, an absurd size or pixel, or a stride shorter than its row.
    """
    shapes = plane_shapes(pixel_format, width, height)
    if color_space not in COLOR_SPACES or color_range not in COLOR_RANGES:
        raise ValueError(f"color {color_space!r}/{color_range!r}: must be of {COLOR_SPACES} and {COLOR_RANGES}")
    if not all(1 <= side <= MAX_ASPECT for side in sample_aspect):
        raise ValueError(f"sample_aspect {sample_aspect}: each side must be 1..{MAX_ASPECT}")
    rows = tuple(math.prod(shape[1:]) for shape in shapes)
    if strides is None:
        even = width + width % 2
        strides = {"yuv420p": (even, even // 2, even // 2), "nv12": (even, even)}.get(pixel_format, rows)
    if len(strides) != len(rows) or any(stride < row for stride, row in zip(strides, rows, strict=False)):
        raise ValueError(f"strides {strides}: {pixel_format} {width}x{height} needs at least {rows} bytes")
    offsets = [0]
    for stride, shape in zip(strides, shapes, strict=True):
        offsets.append(offsets[-1] + stride * shape[0])
    return Geometry(pixel_format, width, height, strides, tuple(offsets[:-1]), color_space, color_range, sample_aspect)


def sample_aspect_of(ratio: Fraction) -> tuple[int, int]:
    """Returns a pixel's width and height as a Geometry holds them; square for what cannot be (0, 100:1)."""
    if not 1 / 16 <= ratio <= 16:
        return SQUARE
    ratio = ratio.limit_denominator(MAX_ASPECT // 16)
    return ratio.numerator, ratio.denominator


def planes(payload: Plane, geometry: Geometry) -> tuple[Plane, ...]:
    """Views of the planes in `payload`, a 1-D uint8 array, writable when it is.

    Shapes and units: yuv420p: Y (h, w), U and V ((h+1)//2, (w+1)//2); nv12: Y (h, w), UV ((h+1)//2, (w+1)//2, 2);
    bgr24, rgb24: (h, w, 3); gray: (h, w).
    Raises: ValueError when the payload is too short for its geometry.
    """
    needed, parts = _layout(geometry)
    if payload.size < needed:
        raise ValueError(f"payload of {payload.size} bytes: {geometry} needs {needed}")
    views = []
    for start, end, rows, stride, row_bytes, shape in parts:
        plane = payload[start:end]
        if row_bytes < stride:
            plane = plane.reshape(rows, stride)[:, :row_bytes]
        views.append(plane.reshape(shape))  # splits the last axis: still a view
    return tuple(views)


@lru_cache(maxsize=64)
def _layout(geometry: Geometry) -> tuple[int, tuple[tuple[int, int, int, int, int, tuple[int, ...]], ...]]:
    """The slices that `planes` cuts, computed once per geometry: they are needed for every frame."""
    parts = []
    shapes = plane_shapes(geometry.pixel_format, geometry.width, geometry.height)
    for shape, stride, offset in zip(shapes, geometry.strides, geometry.offsets, strict=True):
        parts.append((offset, offset + stride * shape[0], shape[0], stride, math.prod(shape[1:]), shape))
    return geometry.payload_bytes, tuple(parts)
