"""Blackens the polygons of [privacy] in a frame, in place, before anybody can read it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.formats import Geometry, planes

Corner = tuple[float, float]


def burn(payload: NDArray[np.uint8], geometry: Geometry, polygons: Sequence[Sequence[Corner]]) -> None:
    """Fill `polygons` (corners 0..1 of width and height) with black in every plane.

    Edges belong to the polygon, and chroma is widened by one sample, so that no colour of a masked pixel is left.
    """
    black = 16 if geometry.color_range == "tv" else 0
    for index, plane in enumerate(planes(payload, geometry)):
        chroma = index > 0
        corners = [_pixels(polygon, plane.shape) for polygon in polygons]
        value = (128, 128, 128) if chroma else (black, black, black)
        cv2.fillPoly(plane, corners, value)
        if chroma:
            cv2.polylines(plane, corners, isClosed=True, color=value, thickness=3)


def _pixels(polygon: Sequence[Corner], shape: tuple[int, ...]) -> NDArray[np.int32]:
    size = np.array([shape[1] - 1, shape[0] - 1])
    return np.asarray(np.rint(np.asarray(polygon, np.float64) * size), np.int32)
