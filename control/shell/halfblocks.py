"""A picture in a terminal: two pixels in each character cell, upper half block in 24-bit colour. No I/O, no numpy."""

from __future__ import annotations

from collections.abc import Sequence

UPPER_HALF = "▀"
RESET = "\x1b[0m"

Pixel = tuple[int, int, int]
"""Red, green, blue, 0-255."""


def draw(pixels: Sequence[Sequence[Pixel]]) -> list[str]:
    """Return one string a text line from rows of pixels; an odd last row gets black below it."""
    lines = []
    for top in range(0, len(pixels), 2):
        below = pixels[top + 1] if top + 1 < len(pixels) else [(0, 0, 0)] * len(pixels[top])
        cells, last = [], ""
        for upper, lower in zip(pixels[top], below, strict=True):
            colour = f"\x1b[38;2;{upper[0]};{upper[1]};{upper[2]};48;2;{lower[0]};{lower[1]};{lower[2]}m"
            cells.append((colour if colour != last else "") + UPPER_HALF)
            last = colour
        lines.append("".join(cells) + RESET)
    return lines


def fitted(width: int, height: int, columns: int, lines: int) -> tuple[int, int]:
    """Return (columns, pixel rows) for a picture within so many cells, keeping its shape; at least 2 x 2."""
    scale = min(columns / width, 2 * lines / height)
    return max(2, int(width * scale)), max(2, int(height * scale) // 2 * 2)
