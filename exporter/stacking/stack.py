"""Stacks frames into one 16-bit picture by a method of choice, aligned or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from msgspec import Struct

from exporter.stacking.align import Aligner, shift_back
from exporter.stacking.median import MAX_FRAMES as MEDIAN_FRAMES
from exporter.stacking.median import median_of
from exporter.stacking.sigma_clip import SigmaStack
from shm_ring import Frame, FrameMeta
from shm_ring.color import luma
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import ExtremeStack, MeanStack, Payload, Samples16, Stack, TrimmedStack

METHODS = ("mean", "median", "sigma", "trimmed", "max", "min")
SEPARATE = "separate"
"""No stack: each frame becomes a picture of its own."""


class MedianStack:
    """The exact median. It holds every frame, so the caller bounds their number."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of a payload."""
        self._size = size
        self._frames: list[Payload] = []

    @property
    def count(self) -> int:
        """The number of frames added so far."""
        return len(self._frames)

    def add(self, payload: Payload) -> None:
        """Adds one frame, whose payload must not change later. Raises: ValueError beyond what a network can sort."""
        if payload.size != self._size or self.count == MEDIAN_FRAMES:
            raise ValueError(f"median: at most {MEDIAN_FRAMES} frames of {self._size} bytes")
        self._frames.append(payload)

    def to_16_bits(self) -> Samples16:
        """Returns the median so far."""
        return median_of(self._frames)


STACKS: dict[str, Callable[[int], Stack]] = {
    "mean": MeanStack,
    "median": MedianStack,
    "sigma": SigmaStack,
    "trimmed": TrimmedStack,
    "max": ExtremeStack,
    "min": partial(ExtremeStack, brightest=False),
}


class StackResult(Struct, frozen=True):
    """One picture of many frames, and the frames it is made of."""

    samples: Samples16
    """16 bits, payload layout of the geometry."""
    geometry: Geometry
    """The layout of the samples."""
    metas: tuple[FrameMeta, ...]
    """Those of the stacked frames, oldest first."""
    left_out: int
    """The number of frames of another size, or that could not be aligned."""
    frames: int = 0
    """The number of frames where `metas` holds only the first and the last; 0: as many as `metas`."""
    span_ns: int = -1
    """From the first to the last frame where their clocks cannot tell (a reboot in between); -1: by their clocks."""

    @property
    def duration_s(self) -> float:
        """From the first to the last frame."""
        span_ns = self.metas[-1].captured_ns - self.metas[0].captured_ns if self.span_ns < 0 else self.span_ns
        return round(span_ns / 1e9, 6)

    @property
    def count(self) -> int:
        """The number of frames."""
        return self.frames or len(self.metas)


def stack_frames(frames: Iterable[Frame], method: str, *, align: bool = False) -> StackResult | None:
    """Stacks frames as they come, holding one at a time (median: all). Returns: None without frames.

    `align` shifts each frame onto the first one; frames that do not show the same scene are left out.
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
        payload = _fit_payload(frame, geometry, aligner if metas else None)
        if payload is None:
            left_out += 1
            continue
        stack.add(payload)
        metas.append(frame.meta)
    if stack is None or geometry is None:
        return None
    return StackResult(stack.to_16_bits(), geometry, tuple(metas), left_out)


def _fit_payload(frame: Frame, geometry: Geometry, aligner: Aligner | None) -> Payload | None:
    """Returns the frame's payload, shifted where there is an aligner; None where the frame does not fit the stack."""
    if frame.geometry != geometry:
        return None
    payload = np.asarray(frame.payload)
    if aligner is None:
        return payload
    shift = aligner.estimate_shift(luma(payload, geometry))
    return None if shift is None else shift_back(payload, geometry, shift)
