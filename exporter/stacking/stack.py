"""Frames in, one 16-bit picture out: by which method, aligned or not, with the dark frame taken off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from exporter.stacking.align import Aligner, shifted_back
from exporter.stacking.median import MAX_FRAMES as MEDIAN_FRAMES
from exporter.stacking.median import median
from exporter.stacking.sigma_clip import SigmaStack
from shm_ring import Frame, FrameMeta
from shm_ring.color import luma
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import ExtremeStack, MeanStack, Payload, Samples16, Stack, TrimmedStack

METHODS = ("mean", "median", "sigma", "trimmed", "max", "min")
SEPARATE = "separate"
"""Not a stack: each frame its own picture."""


class MedianStack:
    """The exact median: keeps every frame, so the number of frames is bounded by whoever fills it."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of a payload."""
        self._size = size
        self._frames: list[Payload] = []

    @property
    def count(self) -> int:
        """Frames added so far."""
        return len(self._frames)

    def add(self, payload: Payload) -> None:
        """Add one frame, which must stay as it is. Raises: ValueError beyond what a network can sort."""
        if payload.size != self._size or self.count == MEDIAN_FRAMES:
            raise ValueError(f"median: at most {MEDIAN_FRAMES} frames of {self._size} bytes")
        self._frames.append(payload)

    def to_16_bits(self) -> Samples16:
        """The median so far."""
        return median(self._frames)


STACKS: dict[str, Callable[[int], Stack]] = {
    "mean": MeanStack,
    "median": MedianStack,
    "sigma": SigmaStack,
    "trimmed": TrimmedStack,
    "max": ExtremeStack,
    "min": partial(ExtremeStack, brightest=False),
}


@dataclass(frozen=True, slots=True)
class Stacked:
    """One picture of many frames."""

    samples: Samples16
    """16 bits, payload layout of the geometry."""
    geometry: Geometry
    """What the samples are."""
    metas: tuple[FrameMeta, ...]
    """Of the frames in it, oldest first."""
    left_out: int
    """Frames of another size, or that could not be aligned."""
    frames: int = 0
    """Frames in it, where `metas` holds only the first and the last; 0: as many as `metas`."""

    @property
    def count(self) -> int:
        """Frames in it."""
        return self.frames or len(self.metas)


def stacked(frames: Iterable[Frame], method: str, *, align: bool = False) -> Stacked | None:
    """Stack frames as they come, holding one at a time (median: all). None where there were none.

    Aligned means: onto the first frame; frames that do not show the same scene are left out.
    """
    stack: Stack | None = None
    aligner: Aligner | None = None
    geometry: Geometry | None = None
    metas: list[FrameMeta] = []
    left_out = 0
    for frame in frames:
        if stack is None or geometry is None:
            geometry = frame.picture
            stack = STACKS[method](frame.payload.size)
            aligner = Aligner(luma(frame.payload, geometry)) if align else None
        payload = _fitting(frame, geometry, aligner if metas else None)
        if payload is None:
            left_out += 1
            continue
        stack.add(payload)
        metas.append(frame.meta)
    if stack is None or geometry is None:
        return None
    return Stacked(stack.to_16_bits(), geometry, tuple(metas), left_out)


def _fitting(frame: Frame, geometry: Geometry, aligner: Aligner | None) -> Payload | None:
    """The frame's payload, shifted where that was asked for; None where it does not belong to the stack."""
    if frame.geometry != geometry:
        return None
    payload = np.asarray(frame.payload)
    if aligner is None:
        return payload
    shift = aligner.shift(luma(payload, geometry))
    return None if shift is None else shifted_back(payload, geometry, shift)
