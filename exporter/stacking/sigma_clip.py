"""Computes the sigma-clipped mean in one pass: moving things vanish, and almost nothing of the gain is lost.

The usual way reads all frames twice. This one stores, besides sum and sum of squares, the few brightest and darkest
values of every pixel: only those can be outliers. At the end they are tested against mean and spread of all others, and
those that fit are added again. So memory does not grow with the number of frames, and up to `BRIGHTEST` bright values
of one pixel (a satellite, a car, a meteor) are rejected completely, however bright.

Sources: the idea of setting extremes apart is RMS' "mean and std without the top 4" (RMS/CompressionCy.pyx); testing
them against the rest is the generalised extreme Studentized deviate test without its tables (B. Rosner, Technometrics
25, 1983).
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
"""Bright values stored per pixel: a satellite is in one pixel for at most a few frames."""
DARKEST = 2
"""Dark values stored per pixel, for birds and insects; they are rarer than lights at night."""
MIN_INNER = 4
"""Values that must remain to test the extremes against; smaller stacks test fewer extremes."""
CLIP_SIGMAS = 3.0
"""The customary clip (IRAF, Siril): it costs 0.3 % of good Gaussian values."""
RANDOM_NUMBERS = 400_000
"""Random numbers drawn once per number of frames: the spread is then known to 0.3 %."""
POOLED_SAMPLES = 31
"""Neighbouring samples of a row whose spread is averaged; wider would mix sky and foreground."""
MIN_SIGMA = 1.0
"""8-bit steps; with less, rounding of the frames themselves looks like an outlier."""

Values = NDArray[np.float32]


class SigmaStack:
    """A mean without outliers. It needs 14 bytes of memory per byte of a payload, for any number of frames."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of a payload."""
        self._mean = MeanStack(size)
        self._squares = np.zeros(size, np.float32)
        self._high = [np.zeros(size, np.uint8) for _ in range(BRIGHTEST)]
        self._low = [np.full(size, 255, np.uint8) for _ in range(DARKEST)]
        self._scratch = [np.empty(TILE_BYTES, np.uint8) for _ in range(2)]

    @property
    def count(self) -> int:
        """The number of frames added so far."""
        return self._mean.count

    def add(self, payload: Payload) -> None:
        """Adds one frame."""
        self._mean.add(payload)
        cv2.accumulateSquare(payload.reshape(1, -1), self._squares.reshape(1, -1))
        for start in range(0, payload.size, TILE_BYTES):
            tile = slice(start, min(start + TILE_BYTES, payload.size))
            self._insert(payload[tile], [values[tile] for values in self._high], np.maximum, np.minimum)
            self._insert(payload[tile], [values[tile] for values in self._low], np.minimum, np.maximum)

    def to_16_bits(self) -> Samples16:
        """Returns the clipped mean so far."""
        require_frames(self.count)
        high, low = self._count_extremes()
        result = np.empty(self._squares.size, np.uint16)
        for start in range(0, result.size, TILE_BYTES):
            tile = slice(start, start + TILE_BYTES)
            extremes = [(values[tile], True) for values in self._high[:high]]
            extremes += [(values[tile], False) for values in self._low[:low]]
            result[tile] = self._clip(self._mean.total[tile], self._squares[tile], extremes)
        return result

    def _insert(self, values: Payload, extremes: list[Payload], better: np.ufunc, worse: np.ufunc) -> None:
        """Sorts `values` into the extremes; what falls out at the end is dropped."""
        candidate = values
        for index, best in enumerate(extremes):
            displaced = self._scratch[index % 2][: values.size]
            worse(best, candidate, out=displaced)
            better(best, candidate, out=best)
            candidate = displaced

    def _count_extremes(self) -> tuple[int, int]:
        """Returns the numbers of bright and dark values of each pixel to be tested."""
        spare = max(0, self.count - MIN_INNER)
        high = min(BRIGHTEST, -(-2 * spare // 3))
        return high, min(DARKEST, spare - high)

    def _clip(self, total: Values, squares: Values, extremes: list[tuple[Payload, bool]]) -> Samples16:
        """Tests each extreme (value, whether it is a bright one) and returns the mean of all that fit."""
        tested = [(value.astype(np.float32), bright) for value, bright in extremes]
        inner = np.float32(self.count - len(tested))
        total, squares = total.copy(), squares.copy()
        for value, _ in tested:
            total -= value
            squares -= value * value
        mean = total / inner
        spread = np.maximum(squares / inner - mean * mean, 0)
        widen, offset, first_reach = _estimate_inner_moments(
            self.count, sum(bright for _, bright in tested), sum(not b for _, b in tested)
        )
        # Few inner values tell little of their spread, but neighbouring pixels have the same noise: pool them.
        sigma = np.sqrt(cv2.blur(spread.reshape(1, -1), (POOLED_SAMPLES, 1)).reshape(-1)) * np.float32(widen)
        mean -= sigma * np.float32(offset)
        sigma = np.maximum(sigma, np.float32(MIN_SIGMA))
        # First around the mean of the inner values, which is uncertain; then around the mean of all that fits.
        for sigmas in (first_reach, CLIP_SIGMAS):
            reach = sigma * np.float32(sigmas)
            fitting_total, number = total.copy(), np.full(total.size, inner, np.float32)
            for value, bright in tested:
                fits = (value - mean <= reach) if bright else (mean - value <= reach)
                fitting_total += np.where(fits, value, np.float32(0))
                number += fits
            mean = fitting_total / number
        return round_to_16_bits(mean * np.float32(SCALE_TO_16_BITS))


@cache
def _estimate_inner_moments(count: int, high: int, low: int) -> tuple[float, float, float]:
    """Estimates how much too small the spread of the inner values is, and where their mean lies, for Gaussian noise.

    Returns: (true sigma / inner sigma, (inner mean - true mean) / true sigma, sigmas from the corrected inner mean that
    the brightest good value stays within). Order statistics are correlated, and there is no closed form for these; so
    they are drawn, always with the same numbers.
    """
    if high + low == 0:
        return 1.0, 0.0, CLIP_SIGMAS
    drawn = np.random.default_rng(0).standard_normal((max(100, RANDOM_NUMBERS // count), count))
    drawn.sort(axis=1)
    inner = drawn[:, low : count - high]
    offset = float(inner.mean())
    farthest = drawn[:, -1] - (inner.mean(axis=1) - offset)
    reach = max(CLIP_SIGMAS, float(np.quantile(farthest, 0.999)))
    return float(1 / np.sqrt(inner.var(axis=1).mean())), offset, reach
