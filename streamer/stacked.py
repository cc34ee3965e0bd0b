"""`?stack=8`: the newest frames averaged for one viewer, so that a night scene is seen with less noise at full rate.

The frames are still in the ring, so nothing is kept here: each picture reads its own window again, one frame at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shm_ring import Frame, FrameOverwritten, RingReader


def stacked(reader: RingReader, newest: Frame, count: int) -> NDArray[np.uint8]:
    """Return the mean of the `count` newest frames up to `newest`, rounded; the frame's own payload for a count of 1.

    Shapes and units: 1-D uint8, the geometry of `newest`. Frames of another geometry, another exposure or already gone
    are left out: a switch of mode must not blend day into night.
    """
    if count == 1:
        return newest.payload
    total = newest.payload.astype(np.uint16)  # exact for 257 frames of 8 bits (shared/imaging.md 0.6)
    used = 1
    for sequence in range(newest.sequence - 1, max(newest.sequence - count, reader.oldest - 1), -1):
        used += _added(reader, newest, sequence, total)
    total += used // 2
    return (total // used).astype(np.uint8)


def _added(reader: RingReader, newest: Frame, sequence: int, total: NDArray[np.uint16]) -> bool:
    """Add one older frame to the sum if it belongs there. It is copied first: a sum cannot be taken back."""
    try:
        frame = reader.copy(sequence)
    except FrameOverwritten:
        return False
    same = frame.geometry == newest.geometry and _exposure(frame) == _exposure(newest)
    if same:
        np.add(total, frame.payload, out=total)
    return same


def _exposure(frame: Frame) -> float:
    """What the sensor was told, in powers of two of exposure times gain, rounded; 0 where it is unknown."""
    product = frame.meta.exposure_us * frame.meta.analogue_gain
    return round(2 * np.log2(product)) if product > 0 else 0.0
