"""Estimates how far one frame is shifted against another, and shifts it back: for stacks by hand or in the wind.

Coarse by phase correlation at a quarter of the size, fine by ECC at half: 0.05-0.06 px at up to 20 DN of noise.
Only shifts: a camera on a wall or a tripod does not rotate.
"""

from __future__ import annotations

import cv2
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from shm_ring.formats import Geometry, planes
from shmcam.imaging.accumulate import Payload

Luma = NDArray[np.uint8]

MIN_CORRELATION = 0.6
"""ECC's coefficient; noise of 20 DN on a real scene still gives about 0.8, another scene about 0."""
MAX_SHIFT = 0.2
"""A share of the frame's width or height; with a larger shift the frames have too little in common."""
ECC_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-5)
MIN_SIDE = 64
"""Pixels; below it there is nothing to correlate."""


class Shift(Struct, frozen=True):
    """The shift of the scene of one frame against that of the reference."""

    dx: float
    """Pixels to the right."""
    dy: float
    """Pixels down."""
    correlation: float
    """ECC's coefficient, -1..1."""


class Aligner:
    """Estimates the shift of frames against a reference frame."""

    def __init__(self, reference: Luma) -> None:
        """`reference`: (height, width) uint8."""
        self.height, self.width = reference.shape
        self._half = _shrink(reference, 2)
        self._quarter = _shrink(reference, 4).astype(np.float32)
        self._window = cv2.createHanningWindow(self._quarter.shape[::-1], cv2.CV_32F)

    def estimate_shift(self, luma: Luma) -> Shift | None:
        """Returns the shift of this frame; None where the two do not show the same scene, or too little to tell."""
        if min(luma.shape) < MIN_SIDE or luma.shape != (self.height, self.width):
            return None
        quarter = _shrink(luma, 4).astype(np.float32)
        (dx, dy), _ = cv2.phaseCorrelate(self._quarter, quarter, self._window)
        half = _shrink(luma, 2)
        # Phase correlation may lock onto a repeating pattern; a camera that hardly moved is the next best guess.
        shifts = (self._refine(half, start) for start in ((2 * dx, 2 * dy), (0.0, 0.0)))
        return next((shift for shift in shifts if shift is not None and self._is_plausible(shift)), None)

    def _refine(self, half: Luma, start: tuple[float, float]) -> Shift | None:
        warp = np.array([[1, 0, start[0]], [0, 1, start[1]]], np.float32)
        try:
            correlation, best = cv2.findTransformECC(self._half, half, warp, cv2.MOTION_TRANSLATION, ECC_STEPS)
        except cv2.error:  # it does not converge: another scene, or none at all
            return None
        final = np.asarray(best)
        return Shift(2 * float(final[0, 2]), 2 * float(final[1, 2]), float(correlation))

    def _is_plausible(self, shift: Shift) -> bool:
        is_near = abs(shift.dx) <= MAX_SHIFT * self.width and abs(shift.dy) <= MAX_SHIFT * self.height
        return is_near and shift.correlation >= MIN_CORRELATION


def shift_back(payload: Payload, geometry: Geometry, shift: Shift) -> Payload:
    """Returns a copy of the payload with its scene where the reference has it; edges repeat, strides stay."""
    result = payload.copy()
    for source, target in zip(planes(payload, geometry), planes(result, geometry), strict=True):
        scale_x, scale_y = source.shape[1] / geometry.width, source.shape[0] / geometry.height
        warp = np.array([[1, 0, shift.dx * scale_x], [0, 1, shift.dy * scale_y]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (source.shape[1], source.shape[0])
        target[...] = cv2.warpAffine(source, warp, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return result


def _shrink(luma: Luma, times: int) -> Luma:
    height, width = luma.shape[0] // times * times, luma.shape[1] // times * times
    size = (max(1, width // times), max(1, height // times))
    return np.asarray(cv2.resize(luma[:height, :width], size, interpolation=cv2.INTER_AREA), np.uint8)
