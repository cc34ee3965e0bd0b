"""Luma and BGR of a frame, honouring its YUV matrix and range.

OpenCV is imported only where a conversion needs it: luma must stay cheap for processes that never load it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from shm_ring.formats import Geometry, planes

Plane = NDArray[np.uint8]

LUMA_WEIGHTS = {
    "smpte170m": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
    "bt2020nc": (0.2627, 0.6780, 0.0593),
}
"""Shares of red, green and blue in luma (ITU-R BT.601, BT.709 and BT.2020)."""


def luma(payload: Plane, geometry: Geometry) -> Plane:
    """Brightness of every pixel, (height, width) uint8: a view for YUV and grey, computed (BT.601) for RGB."""
    first = planes(payload, geometry)[0]
    if geometry.pixel_format not in ("bgr24", "rgb24"):
        return first
    red, blue = (2, 0) if geometry.pixel_format == "bgr24" else (0, 2)
    wide = first[..., 1].astype(np.uint16) * 150  # 77 + 150 + 29 = 256: BT.601 in 8 bits, fits uint16
    wide += first[..., red].astype(np.uint16) * 77
    wide += first[..., blue].astype(np.uint16) * 29
    return (wide >> 8).astype(np.uint8)


def to_bgr(payload: Plane, geometry: Geometry) -> Plane:
    """A new (height, width, 3) uint8 picture in OpenCV's channel order. Raises: ImportError without OpenCV."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"frame.bgr needs OpenCV, such as: pip install 'shmcam-ring[bgr]' ({error})") from error
    views = planes(payload, geometry)
    if geometry.pixel_format == "bgr24":
        return views[0].copy()
    if geometry.pixel_format == "rgb24":
        return np.ascontiguousarray(views[0][..., ::-1])
    if geometry.pixel_format == "gray":
        expanded = views[0] if geometry.color_range == "pc" else cv2.LUT(views[0], expansion_tables()[0])
        return np.asarray(cv2.cvtColor(expanded, cv2.COLOR_GRAY2BGR), np.uint8)
    size = (geometry.width, geometry.height)
    chroma = views[1:] if geometry.pixel_format == "yuv420p" else (views[1][..., 0], views[1][..., 1])
    doubled = [
        cv2.resize(plane, (plane.shape[1] * 2, plane.shape[0] * 2), interpolation=cv2.INTER_LINEAR)[
            : size[1], : size[0]
        ]
        for plane in chroma
    ]
    if (geometry.color_space, geometry.color_range) == ("smpte170m", "pc"):
        # OpenCV's YCrCb is exactly full-range BT.601, with Cr first; its fixed-point path is the fastest here.
        swapped = cv2.merge([views[0], doubled[1], doubled[0]])
        return np.asarray(cv2.cvtColor(swapped, cv2.COLOR_YCrCb2BGR, dst=swapped), np.uint8)
    together = cv2.merge([views[0], *doubled])
    return np.asarray(cv2.transform(together, yuv_to_bgr(geometry.color_space, geometry.color_range)), np.uint8)


@cache
def yuv_to_bgr(color_space: str, color_range: str) -> NDArray[np.float32]:
    """The 3x4 matrix that turns (Y, U, V, 1) in 0..255 into (B, G, R) in 0..255.

    Source: ITU-R BT.601-7, BT.709-6 and BT.2020-2, section 3; range by ISO/IEC 23091-2.
    """
    red, green, blue = LUMA_WEIGHTS[color_space]
    y_gain, c_gain, y_zero = (1.0, 1.0, 0.0) if color_range == "pc" else (255 / 219, 255 / 224, 16.0)
    u_blue, v_red = 2 * (1 - blue), 2 * (1 - red)
    rows = [
        (y_gain, u_blue * c_gain, 0.0),
        (y_gain, -u_blue * blue / green * c_gain, -v_red * red / green * c_gain),
        (y_gain, 0.0, v_red * c_gain),
    ]
    return np.array([(*row, -row[0] * y_zero - (row[1] + row[2]) * 128) for row in rows], np.float32)


@cache
def expansion_tables() -> tuple[Plane, Plane]:
    """Tables of 256 that stretch tv-range luma and chroma to full range."""
    values = np.arange(256, dtype=np.float64)
    luma_table = np.clip(np.rint((values - 16) * 255 / 219), 0, 255).astype(np.uint8)
    chroma_table = np.clip(np.rint((values - 128) * 255 / 224 + 128), 0, 255).astype(np.uint8)
    return luma_table, chroma_table
