"""Estimates how much light a frame's exposure gathered, from the best source there is.

Rules of this file: sources in order of trust are *lux* (libcamera's own, from linear statistics), *ev* (the frame's
exposure time and gains), *learned* (exposure unknown: the step in brightness at our own switch of the exposure) and
*raw* (nothing known: the plain mean). The result names its source, because decisions depend on it.
"""

from __future__ import annotations

import math
from collections import deque
from enum import IntEnum
from statistics import median

import numpy as np
from msgspec import Struct

from analyzer.night.brightness import Bytes
from analyzer.night.transfer_curve import Response


class ExposureSource(IntEnum):
    """The source of a frame's exposure; the scores ring holds the number."""

    RAW = 0
    LEARNED = 1
    EV = 2
    LUX = 3


DWELL_FACTOR = {ExposureSource.RAW: 10.0, ExposureSource.LEARNED: 1.0, ExposureSource.EV: 1.0, ExposureSource.LUX: 1.0}
"""Factor on the dwell: a plain mean may have been changed by the camera itself, so it must persist (imaging.md 1.2)."""


LUX_LEARN_FRAMES, LUX_MEDIAN_FRAMES = 30, 301
"""The constant is a running median, updated once a second of video."""
LUX_MAX_STOPS_OFF = 2.0
"""A lux further from the frame's own exposure than this belongs to another frame or another sensor."""

WELL_EXPOSED = (0.02, 0.5)
"""Relative light between which 8-bit luma is neither quantised nor clipped to speak of."""

MIN_USABLE = 0.05
"""Fraction of pixels a learned ratio must rest on."""
MAX_STEP = 4096.0
"""12 stops: from the shortest to the longest exposure of any known sensor at one change."""

LEARN_TRIES = 3
"""Exposures to try until a frame after the switch can be compared with the one before it."""


class ReportedExposure(Struct, frozen=True):
    """A frame's exposure as its metadata tell it."""

    product_s: float
    """Exposure time times gains in seconds; NaN where any of them is unknown."""
    lux: float
    """NaN where unknown."""


class ExposureEstimate(Struct, frozen=True):
    """An exposure product, and how it is known."""

    product_s: float
    source: ExposureSource


def reported_exposure_of(exposure_us: int, analogue_gain: float, digital_gain: float, lux: float) -> ReportedExposure:
    """Reads a frame's metadata; zero, negative and NaN mean unknown, whichever field they are in."""
    digital = digital_gain if math.isfinite(digital_gain) and digital_gain > 0 else 1.0
    complete = exposure_us > 0 and math.isfinite(analogue_gain) and analogue_gain > 0
    product_s = exposure_us * 1e-6 * analogue_gain * digital if complete else math.nan
    return ReportedExposure(product_s, lux if math.isfinite(lux) and lux > 0 else math.nan)


class LuxScale:
    """The relative light per (lux x second) of libcamera's lux, learned from well exposed day frames.

    Source: libcamera src/ipa/rpi/controller/rpi/lux.cpp; its calibration for imx219 gives 0.0070.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=LUX_MEDIAN_FRAMES)
        self._count = 0
        self._constant: float | None = None

    def learn(self, light: float, product_s: float, lux: float) -> None:
        """Takes one well exposed frame with all three known."""
        self._samples.append(light / (product_s * lux))
        self._count += 1
        if self._count % LUX_LEARN_FRAMES == 0:
            self._constant = median(self._samples)  # numpy's imports numpy.ma, 5 MB

    def product_s(self, light: float, reported: ReportedExposure) -> float | None:
        """Returns the exposure under which `lux` gives this `light`; None where it is not to be trusted."""
        if self._constant is None or math.isnan(reported.lux):
            return None
        product_s = light / (self._constant * reported.lux)
        off = abs(math.log2(product_s / reported.product_s)) if reported.product_s > 0 else 0.0
        return product_s if off <= LUX_MAX_STOPS_OFF else None


def is_well_exposed(light: float, saturated: float) -> bool:
    """Tells whether a frame's mean can be trusted to a few hundredths of a stop."""
    return WELL_EXPOSED[0] <= light <= WELL_EXPOSED[1] and saturated < 0.02


def light_ratio_of(before: Bytes, after: Bytes, response: Response) -> float | None:
    """Returns how much more light `after` gathered than `before`, from pixels well exposed in both; None: too few.

    Both are grids of the same scene and shape, moments apart, around a change of exposure.
    """
    if before.shape != after.shape:
        return None
    low, high = response.black_to, response.white_from
    usable = (before > low) & (before < high) & (after > low) & (after < high)
    if np.count_nonzero(usable) < max(1.0, MIN_USABLE * usable.size):
        return None
    ratio = float(response.linear[after[usable]].sum() / response.linear[before[usable]].sum())
    return min(max(ratio, 1 / MAX_STEP), MAX_STEP)


class ExposureScale:
    """The exposure product of each frame, also where the camera does not tell it."""

    def __init__(self) -> None:
        self._lux = LuxScale()
        self._learned_s: float | None = None
        self._before: tuple[Bytes, float] | None = None
        self._tries = 0

    @property
    def is_learning(self) -> bool:
        """True while an unknown exposure has changed and the step is not measured yet."""
        return self._before is not None

    def estimate(
        self, reported: ReportedExposure, light: float, saturated: float, reference_s: float, *, day: bool
    ) -> ExposureEstimate:
        """Returns the exposure of a settled frame; `day`: it was taken in video mode."""
        if math.isnan(reported.product_s):
            if self._learned_s is None:
                return ExposureEstimate(reference_s, ExposureSource.RAW)
            # In video mode an unknown auto exposure is taken to be at its limit, as it is at dusk when it matters.
            return ExposureEstimate(reference_s if day else self._learned_s, ExposureSource.LEARNED)
        if not is_well_exposed(light, saturated) or math.isnan(reported.lux):
            return ExposureEstimate(reported.product_s, ExposureSource.EV)
        if day:
            self._lux.learn(light, reported.product_s, reported.lux)
        by_lux_s = self._lux.product_s(light, reported)
        if by_lux_s is None:
            return ExposureEstimate(reported.product_s, ExposureSource.EV)
        return ExposureEstimate(by_lux_s, ExposureSource.LUX)

    def begin_learning(self, pixels: Bytes, product_s: float) -> None:
        """Keeps the last settled frame's grid to compare with: the exposure is about to change."""
        self._before, self._tries = (pixels, product_s), 0

    def forget(self) -> None:
        """Drops the kept grid: the exposure is known, or the camera is back in video mode."""
        self._before = None

    def learn(self, pixels: Bytes, saturated: float, response: Response) -> bool:
        """Measures the step from the frame before to this one. Returns: False if a shorter exposure is needed."""
        if self._before is None:
            return True
        ratio = light_ratio_of(self._before[0], pixels, response)
        self._tries += 1
        if ratio is None and saturated >= MIN_USABLE and self._tries <= LEARN_TRIES:
            return False
        # Too dark to compare, or white at every exposure: nothing is known, which is what `raw` means.
        self._learned_s = None if ratio is None else self._before[1] * ratio
        self._before = None
        return True
