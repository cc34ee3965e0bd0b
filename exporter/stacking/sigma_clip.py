"""The sigma-clipped mean in one pass: what passes through the picture vanishes, almost nothing of the gain is lost.

The usual way reads all frames twice. This one keeps, besides sum and sum of squares, the few brightest and darkest
values of every pixel: only those can be outliers. At the end they are judged by mean and spread of all the others, and
those that fit are put back. So memory does not grow with the number of frames, and up to `BRIGHTEST` bright visits of
one pixel (a satellite, a car, a meteor) are removed completely, however bright.

Sources: the idea of keeping extremes apart is RMS' "mean and std without the top 4" (RMS/CompressionCy.pyx); judging
them by the rest is Rosner's generalised extreme Studentized deviate test (Technometrics 25, 1983) without its tables.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from shmcam.imaging.accumulate import (
    SCALE_TO_16_BITS,
    TILE_BYTES,
    MeanStack,
    Payload,
    Samples16,
    require_frames,
    round_to_16_bits,
)

BRIGHTEST = 4
"""Values kept per pixel: a satellite is in one pixel for at most a few frames."""
DARKEST = 2
"""Birds and insects; rarer than lights at night."""
MIN_INNER = 4
"""Values that must remain to judge the others by; smaller stacks keep fewer extremes."""
KEPT_SIGMAS = 3.0
"""Sigmas; the customary clip (IRAF, Siril): costs 0.3 % of good Gaussian values."""
DRAWN = 400_000
"""Random numbers drawn once per number of frames: the spread is then known to 0.3 %."""
POOLED = 31
"""Neighbouring samples of a row whose spread is averaged; wider would mix sky and foreground."""
LEAST_SIGMA = 1.0
"""8-bit steps; below it rounding of the frames themselves looks like an outlier."""

Values = NDArray[np.float32]


class SigmaStack:
    """A mean without outliers. 14 bytes of memory per byte of a payload, whatever the number of frames."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of a payload."""
        self._mean = MeanStack(size)
        self._squares = np.zeros(size, np.float32)
        self._high = [np.zeros(size, np.uint8) for _ in range(BRIGHTEST)]
        self._low = [np.full(size, 255, np.uint8) for _ in range(DARKEST)]
        self._scratch = [np.empty(TILE_BYTES, np.uint8) for _ in range(2)]

    @property
    def count(self) -> int:
        """Frames added so far."""
        return self._mean.count

    def add(self, payload: Payload) -> None:
        """Add one frame."""
        self._mean.add(payload)
        cv2.accumulateSquare(payload.reshape(1, -1), self._squares.reshape(1, -1))
        for start in range(0, payload.size, TILE_BYTES):
            tile = slice(start, min(start + TILE_BYTES, payload.size))
            self._insert(payload[tile], [kept[tile] for kept in self._high], np.maximum, np.minimum)
            self._insert(payload[tile], [kept[tile] for kept in self._low], np.minimum, np.maximum)

    def to_16_bits(self) -> Samples16:
        """The clipped mean so far, 16 bits."""
        require_frames(self.count)
        high, low = self._extremes()
        result = np.empty(self._squares.size, np.uint16)
        for start in range(0, result.size, TILE_BYTES):
            tile = slice(start, start + TILE_BYTES)
            kept = [(one[tile], True) for one in self._high[:high]] + [(one[tile], False) for one in self._low[:low]]
            result[tile] = self._clipped(self._mean.total[tile], self._squares[tile], kept)
        return result

    def _insert(self, values: Payload, kept: list[Payload], better: np.ufunc, worse: np.ufunc) -> None:
        """Sort `values` into the kept extremes; what falls out at the end is forgotten."""
        passed = values
        for index, best in enumerate(kept):
            displaced = self._scratch[index % 2][: values.size]
            worse(best, passed, out=displaced)
            better(best, passed, out=best)
            passed = displaced

    def _extremes(self) -> tuple[int, int]:
        """How many bright and dark values of each pixel are on trial."""
        spare = max(0, self.count - MIN_INNER)
        high = min(BRIGHTEST, -(-2 * spare // 3))
        return high, min(DARKEST, spare - high)

    def _clipped(self, total: Values, squares: Values, kept: list[tuple[Payload, bool]]) -> Samples16:
        trial = [(value.astype(np.float32), bright) for value, bright in kept]
        inner = np.float32(self.count - len(trial))
        total, squares = total.copy(), squares.copy()
        for value, _ in trial:
            total -= value
            squares -= value * value
        mean = total / inner
        spread = np.maximum(squares / inner - mean * mean, 0)
        widen, offset, first_reach = _inner_moments(
            self.count, sum(bright for _, bright in trial), sum(not b for _, b in trial)
        )
        # Few inner values tell little of their spread, but neighbouring pixels have the same noise: ask them too.
        sigma = np.sqrt(cv2.blur(spread.reshape(1, -1), (POOLED, 1)).reshape(-1)) * np.float32(widen)
        mean -= sigma * np.float32(offset)
        sigma = np.maximum(sigma, np.float32(LEAST_SIGMA))
        # First around the mean of the inner values, which is uncertain; then around the mean of all that fits.
        for sigmas in (first_reach, KEPT_SIGMAS):
            reach = sigma * np.float32(sigmas)
            kept_total, number = total.copy(), np.full(total.size, inner, np.float32)
            for value, bright in trial:
                fits = (value - mean <= reach) if bright else (mean - value <= reach)
                kept_total += np.where(fits, value, np.float32(0))
                number += fits
            mean = kept_total / number
        return round_to_16_bits(mean * np.float32(SCALE_TO_16_BITS))


@cache
def _inner_moments(count: int, high: int, low: int) -> tuple[float, float, float]:
    """By how much the spread of the inner values is too small, and where their mean lies, for Gaussian noise.

    Returns: (true sigma / inner sigma, (inner mean - true mean) / true sigma, sigmas from the corrected inner mean that
    the brightest good value stays within). Order statistics are correlated, and there is no closed form for these; so
    they are drawn, always with the same numbers.
    """
    if high + low == 0:
        return 1.0, 0.0, KEPT_SIGMAS
    drawn = np.random.default_rng(0).standard_normal((max(100, DRAWN // count), count))
    drawn.sort(axis=1)
    inner = drawn[:, low : count - high]
    offset = float(inner.mean())
    farthest = drawn[:, -1] - (inner.mean(axis=1) - offset)
    reach = max(KEPT_SIGMAS, float(np.quantile(farthest, 0.999)))
    return float(1 / np.sqrt(inner.var(axis=1).mean())), offset, reach
