"""Checks areas of the picture given by their corners, as [motion] and [privacy] have them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Corner = tuple[float, float]

SLICE = 0.38
"""Where between two corners' heights the width is measured: edges seldom cross at such a fraction."""
LEAST_SIDE = 1e-6
"""Fraction of the picture's width or height; less is rounding."""


def explain_corners(corners: Sequence[Corner], least: int) -> str:
    """Returns what is wrong with the corners of an area, in words; empty: nothing.

    Two corners are opposite ones of a rectangle; more are a polygon, which may cross itself (even-odd rule).
    """
    if len(corners) < least or any(not 0 <= value <= 1 for corner in corners for value in corner):
        return f"needs {'two' if least == 2 else 'three'} or more corners [x, y] within 0..1"
    if len(corners) == 2:
        (left, top), (right, bottom) = corners
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return "" if _has_area(corners) else "covers no area"


def _has_area(corners: Sequence[Corner]) -> bool:
    edges = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    for low, high in pairwise(sorted({y for _, y in corners})):
        if high - low <= LEAST_SIDE:
            continue
        y = low + SLICE * (high - low)
        crossings = sorted(
            x0 + (x1 - x0) * (y - y0) / (y1 - y0) for (x0, y0), (x1, y1) in edges if (y0 > y) != (y1 > y)
        )
        if any(end - begin > LEAST_SIDE for begin, end in zip(crossings[::2], crossings[1::2], strict=True)):
            return True
    return False
