"""`?stack=8`: a running mean of the newest frames for one viewer, so that a night scene is seen with less noise."""

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
class Running:
    """The mean of one length, and what its frames have in common."""

    mean: RunningMean
    geometry: Geometry
    exposure: float
    """Stops; another exposure begins a new mean, so that a switch of mode never blends day into night."""


class Stacks:
    """The means that somebody watches; used by the feed's thread alone."""

    def __init__(self) -> None:
        self._by_length: dict[int, Running] = {}

    def add(self, reader: RingReader, frame: Frame, lengths: Iterable[int]) -> None:
        """Add the newest frame to the mean of each wanted length; the others are forgotten.

        A new mean begins with what the ring still holds, so that its first picture is calm already. Raises:
        FrameOverwritten, before anything is added: a sum cannot be taken back.
        """
        wanted = set(lengths)
        self._by_length = {length: one for length, one in self._by_length.items() if length in wanted}
        if not wanted:
            return
        owned = frame.copy()
        for length in wanted:
            running = self._by_length.get(length)
            if running is None or not _belongs(running, owned):
                running = self._by_length[length] = _begun(reader, owned, length)
            running.mean.add(owned.payload)

    def has(self, length: int) -> bool:
        """Whether there is a picture of this length: a viewer may have come since `add` was called."""
        return length == 1 or length in self._by_length

    def payload(self, frame: Frame, length: int) -> Payload:
        """The mean of a length, 1-D uint8 of the frame's geometry; the frame's own payload for a length of 1."""
        return frame.payload if length == 1 else self._by_length[length].mean.to_8_bits()


def _begun(reader: RingReader, newest: Frame, length: int) -> Running:
    """A mean of the frames before the newest, oldest first."""
    from shmcam.imaging.accumulate import RunningMean  # with OpenCV: 16 MB that only those pay who stack

    running = Running(RunningMean(length), newest.picture, _stops(newest))
    for sequence in range(max(reader.oldest, newest.sequence - length + 1), newest.sequence):
        try:
            older = reader.copy(sequence)
        except FrameOverwritten:
            continue
        if _belongs(running, older):
            running.mean.add(older.payload)
    return running


def _belongs(running: Running, frame: Frame) -> bool:
    return running.geometry == frame.geometry and abs(running.exposure - _stops(frame)) < 1.0


def _stops(frame: Frame) -> float:
    """Exposure times gain as a power of two; 0 where it is unknown."""
    product = frame.meta.exposure_us * frame.meta.analogue_gain
    return math.log2(product) if product > 0 else 0.0
