"""Draws a frame number that machines read back from the pixels, through JPEG and H.264 and after scaling.

Forty black or white square cells in a row in the top left corner: 1 0 1 0, then 32 bits of frame number, then 4 bits
of camera number, most significant bit first. A cell is max(8, width/64 rounded down to 8) pixels wide; the simulated
cameras of `tests/picamera2` draw the same, so one reader serves both. Frames under 320 pixels wide get smaller cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

CELLS = 40
START_BITS = (1, 0, 1, 0)
BLACK, WHITE = 16, 235
"""The limits of tv range, so that the code looks the same in both ranges."""

MIN_CONTRAST = 60
"""Luma between a white and a black cell; what has less is a picture and no code."""

DRAWN_WIDTHS = (1280, 1920, 640, 1456, 1536, 1024, 800, 480, 320, 2304, 2560, 3840, 4056, 4608)
"""Widths to try when a picture was scaled after the code had been drawn."""


def cell_pixels_of(width: int) -> int:
    """Returns the side of one cell in a frame of this width; 0 where the frame is too narrow for a code."""
    return min(max(8, (width // 64) & ~7), width // CELLS)


def draw(luma: NDArray[np.uint8], number: int, camera: int = 0) -> None:
    """Draws `number` (its low 32 bits) and `camera` (low 4 bits) into a luma plane, or an interleaved RGB picture.

    A frame narrower than 40 pixels gets none.
    """
    cell = min(cell_pixels_of(luma.shape[1]), luma.shape[0])
    if not cell:
        return
    bits = (0b1010 << 36) | ((number & 0xFFFFFFFF) << 4) | (camera & 0xF)
    ones = np.unpackbits(np.frombuffer(bits.to_bytes(5, "big"), np.uint8))
    row = np.repeat(np.where(ones, np.uint8(WHITE), np.uint8(BLACK)), cell)
    if luma.ndim == 3:
        row = row[:, np.newaxis]
    luma[:cell, : CELLS * cell] = row


def read(luma: Plane) -> int | None:
    """Returns the frame number in this luma plane (height, width); None where there is no readable code."""
    code = _read_bits(luma)
    return None if code is None else (code >> 4) & 0xFFFFFFFF


def read_camera(luma: Plane) -> int | None:
    """Returns the camera number beside the frame number; None where there is no readable code."""
    code = _read_bits(luma)
    return None if code is None else code & 0xF


def _read_bits(luma: Plane) -> int | None:
    """Returns the 40 bits as one number; tries the cell size of this width first, then those of scaled frames."""
    width = luma.shape[1]
    sizes = [float(cell_pixels_of(width)), *(cell_pixels_of(drawn) * width / drawn for drawn in DRAWN_WIDTHS)]
    for cell in dict.fromkeys(sizes):
        if cell >= 2 and CELLS * cell <= width and (code := _read_bits_of_cell(luma, cell)) is not None:
            return code
    return None


def _read_bits_of_cell(luma: Plane, cell: float) -> int | None:
    """Returns the 40 bits if every cell of this size is clearly black or clearly white, and the first four fit."""
    margin = cell / 4  # the middle half of a cell: blur and ringing of JPEG and H.264 stay outside
    top, bottom = int(margin), max(int(margin) + 1, int(cell - margin))
    if bottom > luma.shape[0]:
        return None
    band = luma[top:bottom].mean(axis=0)
    levels = np.array(
        [
            band[int(i * cell + margin) : max(int(i * cell + margin) + 1, int((i + 1) * cell - margin))].mean()
            for i in range(CELLS)
        ]
    )
    white, black = levels[[0, 2]].mean(), levels[[1, 3]].mean()
    if white - black < MIN_CONTRAST:
        return None
    share = (levels - black) / (white - black)
    if bool(np.any((share > 0.3) & (share < 0.7))):
        return None
    ones = share > 0.5
    if tuple(ones[: len(START_BITS)].astype(int)) != START_BITS:
        return None
    return int.from_bytes(np.packbits(ones).tobytes(), "big")
