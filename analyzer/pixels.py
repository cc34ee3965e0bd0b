"""What the analyzer takes from a frame while it is borrowed: a few kilobytes, then the frame is free again.

Views of a frame that the analyzer reads: luma on a grid, some full rows, one column. Never a whole conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyzer.night.brightness import Bytes, grid, sharpness
from analyzer.night.exposure_estimate import Gathered, gathered
from shm_ring import Flags, Frame, FrameMeta

GREEN_FIRST = {"bgr24": (2, 1, 0), "rgb24": (0, 1, 2)}
"""Where red, green and blue are."""

_LUMA_256 = np.array([77, 150, 29], np.uint16)
"""BT.601 weights of red, green and blue in 256ths (as shm_ring.color.luma)."""


def luma_grid(planes: tuple[Bytes, ...], pixel_format: str) -> Bytes:
    """The sparse luma grid of a frame (`analyzer.night.brightness.grid`), computed on the grid alone for RGB frames."""
    first = planes[0]
    if pixel_format not in GREEN_FIRST:
        return grid(first)
    channels = [grid(first[..., channel]).astype(np.uint16) for channel in GREEN_FIRST[pixel_format]]
    weighted = sum((one * weight for one, weight in zip(channels, _LUMA_256, strict=True)), np.zeros_like(channels[0]))
    return (weighted >> 8).astype(np.uint8)


def detail_plane(planes: tuple[Bytes, ...], pixel_format: str) -> Bytes:
    """The plane fine detail is looked for in: luma, or green of an RGB frame."""
    return planes[0][..., 1] if pixel_format in GREEN_FIRST else planes[0]


def column_rgb(planes: tuple[Bytes, ...], pixel_format: str, position: float, *, limited: bool, bt709: bool) -> Bytes:
    """One pixel column as RGB, (height, 3) uint8. `position`: 0 = left edge, 1 = right edge."""
    height, width = planes[0].shape[:2]
    x = min(width - 1, int(position * width))
    if pixel_format in GREEN_FIRST:
        return np.ascontiguousarray(planes[0][:, x][:, list(GREEN_FIRST[pixel_format])])
    luma = planes[0][:, x].astype(np.float32)
    if pixel_format == "gray":
        return np.repeat(_clipped(luma)[:, None], 3, axis=1)
    if pixel_format == "nv12":
        blue, red = planes[1][:, x // 2, 0], planes[1][:, x // 2, 1]
    else:
        blue, red = planes[1][:, x // 2], planes[2][:, x // 2]
    chroma = [np.repeat(plane.astype(np.float32) - 128.0, 2)[:height] for plane in (blue, red)]
    return yuv_to_rgb(luma, chroma[0], chroma[1], limited=limited, bt709=bt709)


def yuv_to_rgb(
    luma: NDArray[np.float32], blue: NDArray[np.float32], red: NDArray[np.float32], *, limited: bool, bt709: bool
) -> Bytes:
    """Convert a run of pixels; `blue` and `red` are centred on 0. Source: ITU-R BT.601, BT.709."""
    if limited:
        luma, blue, red = (luma - 16) * (255 / 219), blue * (255 / 224), red * (255 / 224)
    red_share, blue_share = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    r = luma + 2 * (1 - red_share) * red
    b = luma + 2 * (1 - blue_share) * blue
    g = (luma - red_share * r - blue_share * b) / (1 - red_share - blue_share)
    return _clipped(np.stack([r, g, b], axis=1))


def _clipped(values: NDArray[np.float32]) -> Bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class FrameSample:
    """A frame, looked at."""

    meta: FrameMeta
    width: int
    height: int
    pixels: Bytes
    """Luma on a sparse grid."""
    limited: bool
    """Luma is 16..235."""
    sharpness: float
    column: Bytes | None
    """(height, 3) RGB for the keogram, where one was due."""

    @property
    def own(self) -> Gathered:
        """The frame's own word on its exposure."""
        meta = self.meta
        return gathered(meta.exposure_us, meta.analogue_gain, meta.digital_gain, meta.lux)

    def has(self, flag: Flags) -> bool:
        """Whether capture set this flag."""
        return bool(self.meta.flags & flag)


def look_at(frame: Frame, column_at: float | None) -> FrameSample:
    """Take what is needed. `column_at`: where to cut the keogram's column, 0..1; None: not now.

    The result counts only once the borrow has ended without FrameOverwritten.
    """
    shape = frame.picture
    planes = frame.planes
    limited = shape.color_range == "tv"
    column = None
    if column_at is not None:
        bt709 = shape.color_space == "bt709"
        column = column_rgb(planes, shape.pixel_format, column_at, limited=limited, bt709=bt709)
    return FrameSample(
        meta=frame.meta,
        width=shape.width,
        height=shape.height,
        pixels=luma_grid(planes, shape.pixel_format),
        limited=limited,
        sharpness=sharpness(detail_plane(planes, shape.pixel_format)),
        column=column,
    )
