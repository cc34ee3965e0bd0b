"""The variants with `?stack=8`: a running mean of the newest frames, which shows a night scene with less noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shm_ring import Frame, FrameOverwritten, RingReader
from shm_ring.formats import Geometry

if TYPE_CHECKING:
    from shmcam.imaging.accumulate import RunningMean

Payload = NDArray[np.uint8]


@dataclass(slots=True)
class StackMean:
    """The running mean of one length, with what its frames have in common."""

    mean: RunningMean
    geometry: Geometry
    exposure_stops: float
    """Another exposure starts a new mean, so that a change of mode never blends day into night."""


class LiveStacks:
    """The running means of all lengths that are watched; only the feed's thread uses them."""

    def __init__(self) -> None:
        self._by_length: dict[int, StackMean] = {}

    def add(self, reader: RingReader, frame: Frame, lengths: Iterable[int]) -> None:
        """Adds the newest frame to the mean of each wanted length and drops the other means.

        A new mean starts with the frames that the ring still holds, so that already its first picture has little
        noise. Raises: FrameOverwritten, before it adds anything, because a sum cannot be taken back.
        """
        wanted = set(lengths)
        self._by_length = {length: stack for length, stack in self._by_length.items() if length in wanted}
        if not wanted:
            return
        newest = frame.copy()
        for length in wanted:
            stack = self._by_length.get(length)
            if stack is None or not _fits(stack, newest):
                stack = self._by_length[length] = _start_mean(reader, newest, length)
            stack.mean.add(newest.payload)

    def has(self, length: int) -> bool:
        """Returns whether there is a mean of this length: a viewer may have joined since the last call of `add`."""
        return length == 1 or length in self._by_length

    def payload_of(self, frame: Frame, length: int) -> Payload:
        """Returns the mean of a length, 1-D uint8 of the frame's geometry; for length 1 the frame's own payload."""
        return frame.payload if length == 1 else self._by_length[length].mean.to_8_bits()


def _start_mean(reader: RingReader, newest: Frame, length: int) -> StackMean:
    """Returns a mean of the frames before the newest one, added from the oldest on."""
    from shmcam.imaging.accumulate import RunningMean  # imports OpenCV: 16 MB, only where a viewer stacks

    stack = StackMean(RunningMean(length), newest.picture_geometry, _exposure_stops_of(newest))
    for sequence in range(max(reader.oldest, newest.sequence - length + 1), newest.sequence):
        try:
            older = reader.copy(sequence)
        except FrameOverwritten:
            continue
        if _fits(stack, older):
            stack.mean.add(older.payload)
    return stack


def _fits(stack: StackMean, frame: Frame) -> bool:
    return stack.geometry == frame.geometry and abs(stack.exposure_stops - _exposure_stops_of(frame)) < 1.0


def _exposure_stops_of(frame: Frame) -> float:
    """Returns exposure times gain as a power of two; 0 if it is unknown."""
    product = frame.meta.exposure_us * frame.meta.analogue_gain
    return math.log2(product) if product > 0 else 0.0
