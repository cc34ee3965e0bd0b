"""Turns 16-bit stacks into pictures: plane views, BGR, and an 8-bit version that shows dark details."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from shm_ring import formats
from shm_ring.color import yuv_to_bgr
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import SCALE_TO_16_BITS, Payload, Samples16

MAX_STRETCH = 8.0
"""Factor; it makes a night stack visible, and does not amplify a black one to pure noise."""
MAX_COLOUR_STRETCH = 2.0
"""Factor for chroma: colour noise grows with it, and is noticed first."""
BLACK_PERCENTILE, WHITE_PERCENTILE = 0.5, 99.9
MAX_BLACK = 32 * SCALE_TO_16_BITS
"""The highest black level; a brighter picture shows fog."""
SAMPLE_STEP = 7
"""Every 7th pixel decides the curve; a prime, so that it does not beat with patterns."""


def planes_of(array: NDArray[Any], geometry: Geometry) -> tuple[NDArray[Any], ...]:
    """Returns the planes as `shm_ring.formats.planes` does, for samples of any type."""
    return cast("tuple[NDArray[Any], ...]", formats.planes(cast("Payload", array), geometry))


def to_bgr(samples: Samples16, geometry: Geometry) -> Samples16:
    """Returns a (height, width, 3) uint16 picture in OpenCV's channel order; grey stays (height, width)."""
    planes = planes_of(samples, geometry)
    if geometry.pixel_format == "gray":
        return np.ascontiguousarray(planes[0])
    if geometry.pixel_format in ("bgr24", "rgb24"):
        return np.ascontiguousarray(planes[0] if geometry.pixel_format == "bgr24" else planes[0][..., ::-1])
    chroma = planes[1:] if geometry.pixel_format == "yuv420p" else (planes[1][..., 0], planes[1][..., 1])
    full = [
        cv2.resize(
            np.ascontiguousarray(plane), (plane.shape[1] * 2, plane.shape[0] * 2), interpolation=cv2.INTER_LINEAR
        )
        for plane in chroma
    ]
    merged = cv2.merge([planes[0], *(plane[: geometry.height, : geometry.width] for plane in full)])
    matrix = yuv_to_bgr(geometry.color_space, geometry.color_range).copy()
    matrix[:, 3] *= SCALE_TO_16_BITS
    return np.asarray(cv2.transform(merged, matrix), np.uint16)


def stretch_to_8_bits(samples: Samples16, geometry: Geometry) -> Payload:
    """Returns an 8-bit payload of the same geometry, stretched so that a dark stack shows its content.

    Black and white come from the picture's own percentiles; a picture that uses its range stays as it is.
    """
    planes = planes_of(samples, geometry)
    is_yuv = geometry.pixel_format in ("yuv420p", "nv12")
    floor = 16 * SCALE_TO_16_BITS if is_yuv and geometry.color_range == "tv" else 0
    luma = planes[0].reshape(-1)[::SAMPLE_STEP]
    black, white = np.percentile(luma, (BLACK_PERCENTILE, WHITE_PERCENTILE))
    black = min(max(float(black), floor), floor + MAX_BLACK)
    stretch = min(MAX_STRETCH, max(1.0, (65_535 - floor) / max(1.0, float(white) - black)))
    if stretch < 1.05:  # nothing to gain: keep the values of the 16-bit file
        black, stretch = float(floor), 1.0
    levels = np.arange(65_536, dtype=np.float32)
    curve = _round_to_8_bits((levels - np.float32(black)) * np.float32(stretch) + np.float32(floor))
    colour = np.float32(min(MAX_COLOUR_STRETCH, stretch))
    middle = np.float32(128 * SCALE_TO_16_BITS)
    colour_curve = _round_to_8_bits((levels - middle) * colour + middle)
    result = np.zeros(samples.size, np.uint8)
    for index, (source, target) in enumerate(zip(planes, planes_of(result, geometry), strict=True)):
        target[...] = (colour_curve if is_yuv and index else curve)[source]
    return result


def _round_to_8_bits(values: NDArray[np.float32]) -> Payload:
    return np.clip(values / SCALE_TO_16_BITS + 0.5, 0, 255).astype(np.uint8)
