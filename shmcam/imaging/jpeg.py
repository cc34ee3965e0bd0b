"""Encodes JPEG straight from YUV planes: no detour through BGR (1.5 times as fast).

JFIF means full-range BT.601. Planes that are already that go in unchanged; others are corrected first, because
uncorrected video-range planes look washed out.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shm_ring.color import LUMA_WEIGHTS, expansion_tables, luma
from shm_ring.formats import Geometry, planes

Plane = NDArray[np.uint8]


def to_jpeg(
    payload: Plane, geometry: Geometry, quality: int = 85, *, gray: bool = False, width: int | None = None
) -> bytes:
    """Encodes one frame, with square pixels: browsers know no others in a JPEG.

    `quality` is 1..100. `width` scales down to that many pixels, height in proportion (never up). `gray` leaves the
    colour out.

    Raises: ValueError for a payload that is too short.
    """
    size = jpeg_size_of(geometry, width)
    if geometry.pixel_format in ("bgr24", "rgb24") and not gray:
        picture = _resize(planes(payload, geometry)[0], *size)
        order = "BGR" if geometry.pixel_format == "bgr24" else "RGB"
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, order, "420"))
    bright = _resize(luma(payload, geometry), *size)
    if gray or geometry.pixel_format == "gray":
        return bytes(simplejpeg.encode_jpeg_yuv_planes(_to_full_range(bright, geometry, 0), None, None, quality))
    chroma = _copy_chroma(payload, geometry)
    half = (size[0] + 1) // 2, (size[1] + 1) // 2
    chroma = (_resize(chroma[0], *half), _resize(chroma[1], *half))
    full = (
        _to_full_range(bright, geometry, 0),
        _to_full_range(chroma[0], geometry, 1),
        _to_full_range(chroma[1], geometry, 1),
    )
    if geometry.color_space != "smpte170m":
        full = _to_bt601(*full, geometry.color_space)
    return bytes(simplejpeg.encode_jpeg_yuv_planes(*full, quality))


def _copy_chroma(payload: Plane, geometry: Geometry) -> tuple[Plane, Plane]:
    views = planes(payload, geometry)
    if geometry.pixel_format == "yuv420p":
        return views[1], views[2]
    return np.ascontiguousarray(views[1][..., 0]), np.ascontiguousarray(views[1][..., 1])


def jpeg_size_of(geometry: Geometry, width: int | None = None) -> tuple[int, int]:
    """Returns width and height of a JPEG of such a frame, of at most `width` pixels."""
    shown = geometry.shown_width
    wide = max(1, min(width or shown, shown))
    return wide, max(1, round(geometry.height * wide / shown))


def _resize(plane: Plane, width: int, height: int) -> Plane:
    if plane.shape[:2] == (height, width):
        return plane
    import cv2

    how = cv2.INTER_LINEAR if width > plane.shape[1] else cv2.INTER_AREA
    return np.asarray(cv2.resize(plane, (width, height), interpolation=how), np.uint8)


def _to_full_range(plane: Plane, geometry: Geometry, table: int) -> Plane:
    """Stretches luma (table 0) or chroma (table 1) of tv range to 0..255."""
    if geometry.color_range == "pc":
        return plane
    import cv2

    return np.asarray(cv2.LUT(plane, expansion_tables()[table]), np.uint8)


def _to_bt601(bright: Plane, blue: Plane, red: Plane, color_space: str) -> tuple[Plane, Plane, Plane]:
    """Converts full-range planes of another matrix to full-range BT.601 planes.

    The matrix has the form Y' = Y + a*U + b*V, (U', V') = 2x2 * (U, V), because grey is grey in both.
    """
    import cv2

    kr, kg, kb = LUMA_WEIGHTS[color_space]
    nr, ng, nb = LUMA_WEIGHTS["smpte170m"]
    # What R, G and B differ from luma by, per unit of U and of V, under that matrix.
    per_u = np.array([0.0, -2 * (1 - kb) * kb / kg, 2 * (1 - kb)])
    per_v = np.array([2 * (1 - kr), -2 * (1 - kr) * kr / kg, 0.0])
    weights = np.array([nr, ng, nb])
    y_u, y_v = float(weights @ per_u), float(weights @ per_v)
    shift = cv2.addWeighted(blue, y_u, red, y_v, -128 * (y_u + y_v), dtype=cv2.CV_16S)
    shift = cv2.resize(shift, (shift.shape[1] * 2, shift.shape[0] * 2), interpolation=cv2.INTER_LINEAR)
    new_bright = cv2.add(bright, shift[: bright.shape[0], : bright.shape[1]], dtype=cv2.CV_8U)
    u_scale, v_scale = 2 * (1 - nb), 2 * (1 - nr)
    uu, uv = (per_u[2] - y_u) / u_scale, (per_v[2] - y_v) / u_scale
    vu, vv = (per_u[0] - y_u) / v_scale, (per_v[0] - y_v) / v_scale
    new_blue = cv2.addWeighted(blue, uu, red, uv, 128 * (1 - uu - uv))
    new_red = cv2.addWeighted(blue, vu, red, vv, 128 * (1 - vu - vv))
    return np.asarray(new_bright, np.uint8), np.asarray(new_blue, np.uint8), np.asarray(new_red, np.uint8)
