"""Accumulates many frames into one: mean, max, min, trimmed mean, running mean. Pure, one pass, bounded memory.

A stack works on payloads as they lie in the ring: every byte position is a pixel of some plane, and all are treated
alike, so nothing is converted and strides do not matter. Sums are exact integers, kept in float32
because `cv2.accumulate` (AVX2, NEON) then adds a 1080p frame in 0.19 ms where numpy's mixed uint16 += uint8 takes
0.26 and a bare copy 0.14 (all measured in one run on the development machine).

Results are 16-bit unless asked otherwise: rounding a mean of many frames to 8 bits loses what the stack has gained
(-8 dB for 64 frames of 1 DN noise).
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Payload = NDArray[np.uint8]
Samples16 = NDArray[np.uint16]

SCALE_TO_16_BITS = 257
"""16-bit value of one 8-bit step: 255 becomes 65535, so that white stays white in any viewer."""

MAX_FRAMES = 65_793
"""Frames of 255 whose sum float32 still holds exactly (2**24 / 255)."""

TILE_BYTES = 1 << 17
"""Bytes worked on at a time where several passes share scratch memory: 128 KB stay in a core's second-level cache."""


class Stack(Protocol):
    """The interface of every way of stacking."""

    @property
    def count(self) -> int:
        """The number of frames added so far."""

    def add(self, payload: Payload) -> None:
        """Adds one frame; all frames of a stack have the same size. `payload` is not kept."""

    def to_16_bits(self) -> Samples16:
        """Returns the result so far, `SCALE_TO_16_BITS` per 8-bit step. Raises: ValueError without frames."""


class MeanStack:
    """The mean: noise falls by the root of the number of frames."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of a payload."""
        self.count = 0
        self.total = np.zeros(size, np.float32)
        """The sum so far, exact."""

    def add(self, payload: Payload) -> None:
        """Adds one frame. Raises: ValueError beyond MAX_FRAMES, where sums would no longer be exact."""
        if self.count == MAX_FRAMES:
            raise ValueError(f"a mean of more than {MAX_FRAMES} frames is not exact; begin a new stack")
        # As one row: OpenCV 4 would make n rows of a 1-D array, and be ten times slower.
        cv2.accumulate(payload.reshape(1, -1), self.total.reshape(1, -1))
        self.count += 1

    def to_16_bits(self) -> Samples16:
        """Returns the mean so far, rounded to 1/257 of an 8-bit step."""
        return round_to_16_bits(self.total * np.float32(SCALE_TO_16_BITS / require_frames(self.count)))


class ExtremeStack:
    """The brightest (startrails) or darkest value of every pixel."""

    def __init__(self, size: int, *, brightest: bool = True) -> None:
        """`size`: bytes of a payload."""
        self.count = 0
        self._extreme_of = np.maximum if brightest else np.minimum
        self.value: Payload = np.full(size, 0 if brightest else 255, np.uint8)
        """The result so far, 8 bits."""

    def add(self, payload: Payload) -> None:
        """Adds one frame."""
        self._extreme_of(self.value, payload, out=self.value)
        self.count += 1

    def to_16_bits(self) -> Samples16:
        """Returns the result so far; an extreme has no more than 8 bits, they are only scaled."""
        require_frames(self.count)
        return self.value * np.uint16(SCALE_TO_16_BITS)


class TrimmedStack:
    """The mean without the brightest and the darkest value of each pixel: cheap, and one satellite leaves no trace.

    It loses 0.07 dB against the mean at 16 frames, 0.68 at 4. Fewer than 3 frames: the mean.
    """

    def __init__(self, size: int) -> None:
        """`size`: bytes of a payload."""
        self._mean = MeanStack(size)
        self._high = ExtremeStack(size)
        self._low = ExtremeStack(size, brightest=False)

    @property
    def count(self) -> int:
        """The number of frames added so far."""
        return self._mean.count

    def add(self, payload: Payload) -> None:
        """Adds one frame."""
        for stack in (self._mean, self._high, self._low):
            stack.add(payload)

    def to_16_bits(self) -> Samples16:
        """Returns the trimmed mean so far."""
        if self.count < 3:
            return self._mean.to_16_bits()
        total = self._mean.total - self._high.value - self._low.value
        return round_to_16_bits(total * np.float32(SCALE_TO_16_BITS / (self.count - 2)))


class RunningMean:
    """A mean over about the last `length` frames that moves with time: a virtual long exposure, a cleaner live view.

    Newer frames weigh more (weight 2 / (length + 1)): noise falls as in a mean of `length` frames, and no old frame is
    stored. The first `length` frames give their plain mean, so that it never begins dark.
    """

    def __init__(self, length: int) -> None:
        """`length`: frames."""
        self.length = max(1, length)
        self.count = 0
        self._value = np.zeros(0, np.float32)

    def add(self, payload: Payload) -> None:
        """Adds one frame; a frame of another size begins a new mean."""
        if payload.size != self._value.size:
            self.count, self._value = 0, np.zeros(payload.size, np.float32)
        self.count += 1
        weight = max(1 / self.count, 2 / (self.length + 1))
        cv2.accumulateWeighted(payload.reshape(1, -1), self._value.reshape(1, -1), weight)

    def to_8_bits(self) -> Payload:
        """Returns the result so far, rounded to 8 bits."""
        require_frames(self.count)
        return cv2.convertScaleAbs(self._value).reshape(-1).astype(np.uint8, copy=False)

    def to_16_bits(self) -> Samples16:
        """Returns the result so far, 16 bits."""
        require_frames(self.count)
        return round_to_16_bits(self._value * np.float32(SCALE_TO_16_BITS))


def require_frames(count: int) -> int:
    """Returns `count`. Raises: ValueError where it is 0."""
    if count < 1:
        raise ValueError("an empty stack has no result; add a frame first")
    return count


def round_to_16_bits(values: NDArray[np.float32]) -> Samples16:
    """Rounds and limits to 16 bits, in place of the given scratch array."""
    values += np.float32(0.5)
    np.clip(values, 0, 65_535, out=values)
    return values.astype(np.uint16)


def to_8_bits(samples: Samples16) -> Payload:
    """Rounds 16-bit samples to 8 bits."""
    return ((samples.astype(np.uint32) + SCALE_TO_16_BITS // 2) // SCALE_TO_16_BITS).astype(np.uint8)
