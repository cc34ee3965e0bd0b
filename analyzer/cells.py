"""Motion cells: 2x2 grid pixels each, and what can be asked of a plane of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyzer.areas import Cells
from analyzer.score import Bytes

Floats = NDArray[np.float32]

CLIPPED = 247.0
"""Luma above which a cell may have lost what it saw."""


def coarse(pixels: Bytes) -> Floats:
    """Means of 2x2 grid pixels, (rows // 2, columns // 2): half the noise, a quarter of the work."""
    rows, columns = pixels.shape
    if rows < 2 or columns < 2:
        return pixels.astype(np.float32)
    even = pixels[: rows // 2 * 2, : columns // 2 * 2].astype(np.uint16)
    pairs = even[0::2] + even[1::2]
    return (pairs[:, 0::2] + pairs[:, 1::2]).astype(np.float32) * np.float32(0.25)


def common_change(cells: Floats, background: Floats) -> np.float32:
    """The factor by which most of the frame changed: clouds, auto exposure of unknown size."""
    now, then = cells[1::4, 1::4], background[1::4, 1::4]
    usable = (then > 8.0) & (then < CLIPPED) & (now > 2.0) & (now < CLIPPED)
    if np.count_nonzero(usable) < 16:
        return np.float32(1.0)
    ratios = now[usable] / then[usable]
    return np.float32(np.partition(ratios, ratios.size // 2)[ratios.size // 2])


def in_company(moving: Cells) -> Cells:
    """Drop moving cells without a moving neighbour above, below, left or right."""
    if not moving.any():
        return moving
    near = np.zeros_like(moving)
    near[1:] |= moving[:-1]
    near[:-1] |= moving[1:]
    near[:, 1:] |= moving[:, :-1]
    near[:, :-1] |= moving[:, 1:]
    return moving & near


def bounds(moving: Cells) -> tuple[float, float, float, float]:
    """x, y, width, height around the moving cells, fractions of the frame; at least one cell must move."""
    rows, columns = np.flatnonzero(moving.any(axis=1)), np.flatnonzero(moving.any(axis=0))
    height, width = moving.shape
    left, top = columns[0] / width, rows[0] / height
    return float(left), float(top), float((columns[-1] + 1) / width - left), float((rows[-1] + 1) / height - top)
