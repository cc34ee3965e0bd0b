"""Makes the small frame of the lores ring from the full one, plane by plane, straight into its slot."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.formats import Geometry, geometry, planes


def small_geometry(full: Geometry, width: int, height: int) -> Geometry:
    """The geometry of the small stream: same format and colours, never larger than the full one."""
    return geometry(
        full.pixel_format,
        min(width, full.width),
        min(height, full.height),
        color_space=full.color_space,
        color_range=full.color_range,
    )


def downscale(source: NDArray[np.uint8], full: Geometry, target: NDArray[np.uint8], small: Geometry) -> None:
    """Average areas of each plane of `source` into `target`; no plane is copied on the way."""
    for large, little in zip(planes(source, full), planes(target, small), strict=True):
        size = (little.shape[1], little.shape[0])
        cv2.resize(large, size, dst=little, interpolation=cv2.INTER_AREA)
