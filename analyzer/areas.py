"""Zones and masks as sets of motion cells, from corners in fractions of the frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analyzer.settings import Corner

Cells = NDArray[np.bool_]

EVERYWHERE = ""
"""Name of the one zone there is when none is configured."""


def area(corners: Sequence[Corner], shape: tuple[int, int]) -> Cells:
    """The cells whose centre lies inside: a rectangle from two opposite corners, else the polygon (even-odd rule)."""
    rows, columns = shape
    y = ((np.arange(rows) + 0.5) / rows)[:, None]
    x = ((np.arange(columns) + 0.5) / columns)[None, :]
    if len(corners) == 2:
        (x0, y0), (x1, y1) = corners
        return (x >= min(x0, x1)) & (x <= max(x0, x1)) & (y >= min(y0, y1)) & (y <= max(y0, y1))
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if y0 != y1:  # a level edge is never crossed by a level ray
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def watched(
    zones: Mapping[str, Sequence[Corner]], masks: Sequence[Sequence[Corner]], shape: tuple[int, int]
) -> dict[str, Cells]:
    """The cells of each zone less the masks; one zone EVERYWHERE where none is named."""
    allowed = np.ones(shape, bool)
    for corners in masks:
        allowed &= ~area(corners, shape)
    if not zones:
        return {EVERYWHERE: allowed}
    return {name: area(corners, shape) & allowed for name, corners in zones.items()}
