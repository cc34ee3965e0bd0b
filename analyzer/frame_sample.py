"""Samples a frame while it is borrowed: luma on a grid, some full rows, one column; never a whole conversion.

A few kilobytes are taken, then the frame is free again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analyzer.night.brightness import Bytes, cut_detail_rows, measure_sharpness, sample_grid
from analyzer.night.exposure_estimate import ReportedExposure, reported_exposure_of
from shm_ring import Flags, Frame, FrameMeta
from shm_ring.color import LUMA_WEIGHTS

RGB_CHANNELS = {"bgr24": (2, 1, 0), "rgb24": (0, 1, 2)}
"""The channels of red, green and blue."""

_LUMA_256 = np.array([77, 150, 29], np.uint16)
"""BT.601 weights of red, green and blue in 256ths (as shm_ring.color.luma)."""


def sample_luma(planes: tuple[Bytes, ...], pixel_format: str) -> Bytes:
    """Returns a frame's sparse grid (`brightness.sample_grid`) of luma, computed on the grid alone for RGB frames."""
    first = planes[0]
    if pixel_format not in RGB_CHANNELS:
        return sample_grid(first)
    channels = [sample_grid(first[..., channel]).astype(np.uint16) for channel in RGB_CHANNELS[pixel_format]]
    weighted = sum(
        (channel * weight for channel, weight in zip(channels, _LUMA_256, strict=True)), np.zeros_like(channels[0])
    )
    return (weighted >> 8).astype(np.uint8)


def detail_plane_of(planes: tuple[Bytes, ...], pixel_format: str) -> Bytes:
    """Returns the plane in which fine detail is measured: luma, or green of an RGB frame."""
    return planes[0][..., 1] if pixel_format in RGB_CHANNELS else planes[0]


def cut_column(
    planes: tuple[Bytes, ...],
    pixel_format: str,
    position: float,
    *,
    limited: bool,
    weights: tuple[float, float, float],
) -> Bytes:
    """Returns one pixel column as RGB, (height, 3) uint8. `position`: 0 = left edge, 1 = right edge.

    `weights`: shares of red, green and blue in luma.
    """
    height, width = planes[0].shape[:2]
    x = min(width - 1, int(position * width))
    if pixel_format in RGB_CHANNELS:
        return np.ascontiguousarray(planes[0][:, x][:, list(RGB_CHANNELS[pixel_format])])
    luma = planes[0][:, x].astype(np.float32)
    if pixel_format == "gray":
        return np.repeat(_to_bytes(luma)[:, None], 3, axis=1)
    if pixel_format == "nv12":
        blue, red = planes[1][:, x // 2, 0], planes[1][:, x // 2, 1]
    else:
        blue, red = planes[1][:, x // 2], planes[2][:, x // 2]
    chroma = [np.repeat(plane.astype(np.float32) - 128.0, 2)[:height] for plane in (blue, red)]
    return yuv_to_rgb(luma, chroma[0], chroma[1], limited=limited, weights=weights)


def yuv_to_rgb(
    luma: NDArray[np.float32],
    blue: NDArray[np.float32],
    red: NDArray[np.float32],
    *,
    limited: bool,
    weights: tuple[float, float, float],
) -> Bytes:
    """Converts a run of pixels; `blue` and `red` are centred on 0. Source: ITU-R BT.601, BT.709, BT.2020."""
    if limited:
        luma, blue, red = (luma - 16) * (255 / 219), blue * (255 / 224), red * (255 / 224)
    red_share, green_share, blue_share = weights
    r = luma + 2 * (1 - red_share) * red
    b = luma + 2 * (1 - blue_share) * blue
    g = (luma - red_share * r - blue_share * b) / green_share
    return _to_bytes(np.stack([r, g, b], axis=1))


def _to_bytes(values: NDArray[np.float32]) -> Bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class FrameSample:
    """The part of a frame that the analyzer works with."""

    meta: FrameMeta
    width: int
    height: int
    pixels: Bytes
    """Luma on a sparse grid."""
    limited: bool
    """Luma is 16..235."""
    detail_rows: Bytes
    """Some rows of full resolution."""
    column: Bytes | None
    """(height, 3) RGB for the keogram, where one was due."""

    @cached_property
    def exposure(self) -> ReportedExposure:
        """The exposure as the frame's metadata tell it."""
        meta = self.meta
        return reported_exposure_of(meta.exposure_us, meta.analogue_gain, meta.digital_gain, meta.lux)

    @property
    def sharpness(self) -> float:
        """The contrast of fine detail, see `measure_sharpness`."""
        return measure_sharpness(self.detail_rows)

    def has_flag(self, flag: Flags) -> bool:
        """Tells whether capture set this flag."""
        return bool(self.meta.flags & int(flag))  # of two flags, enum would make a third


def sample_frame(frame: Frame, column_position: float | None) -> FrameSample:
    """Takes a sample. `column_position`: where to cut the keogram's column, 0..1; None: not now.

    The result counts only once the borrow has ended without FrameOverwritten.
    """
    shape = frame.picture
    planes = frame.planes
    limited = shape.color_range == "tv"
    column = None
    if column_position is not None:
        weights = LUMA_WEIGHTS[shape.color_space]
        column = cut_column(planes, shape.pixel_format, column_position, limited=limited, weights=weights)
    return FrameSample(
        meta=frame.meta,
        width=shape.width,
        height=shape.height,
        pixels=sample_luma(planes, shape.pixel_format),
        limited=limited,
        detail_rows=cut_detail_rows(detail_plane_of(planes, shape.pixel_format)),
        column=column,
    )
