"""Measures the light of a frame from its luma: mean, percentiles, saturation, and the brightness of the scene itself.

Everything is computed from a histogram of a sparse grid of pixels, so a 1080p frame costs a small part of one pass
over its luma plane. Functions take histograms of any number of frames at once (`(n, 256)`), which is how the
simulation in `tests/analyzer` and `bench/night/days.py` can replay whole days.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from analyzer.night.transfer_curve import Floats, Response

Bytes = NDArray[np.uint8]

GRID_ROWS = 135
"""The grid's rows: every 8th at 1080p, 32,400 pixels in all; their mean is good to 0.1 luma for any real scene."""

LAMP_FACTOR = 16.0
"""A pixel counts at most as 16 times (4 stops) the median: a lamp or the moon in view is not daylight, while sky
over a dark foreground still counts almost in full. Chosen on the simulated days of docs/night.md."""

PERCENTILES = (0.10, 0.50, 0.90, 0.99)


def sample_grid(luma: Bytes) -> Bytes:
    """Returns every n-th pixel of every n-th row, about `GRID_ROWS` rows, as a copy. `luma`: (height, width) uint8."""
    step = max(1, min(luma.shape) // GRID_ROWS)
    return luma[step // 2 :: step, step // 2 :: step].copy()  # always: a view would change with the ring


def histogram_of(pixels: Bytes) -> Floats:
    """Returns the share of each luma value, (1, 256); sums to 1."""
    return (np.bincount(pixels.ravel(), minlength=256) / max(1, pixels.size))[None, :]


class Measurement(Struct, frozen=True):
    """The numbers of frames, before anything is known about their exposure. Arrays of n frames."""

    histogram: Floats
    """(n, 256), each row sums to 1."""
    dark_score: Floats
    """(n,) mean luma 0-255: row C1, the number the first service used."""
    percentiles: NDArray[np.int64]
    """(n, 4) luma of PERCENTILES."""
    saturated: Floats
    """(n,) fraction of pixels at full scale."""
    black: Floats
    """(n,) fraction of pixels at no light."""
    light: Floats
    """(n,) mean relative light, 1 = full scale, lamps limited (LAMP_FACTOR)."""
    median_light: Floats
    """(n,) relative light of the median pixel, at least that of the first value above black."""


def measure(shares: Floats, response: Response) -> Measurement:
    """Measures n frames by their histograms `(n, 256)`."""
    cumulative = shares.cumsum(axis=1)
    levels = np.minimum(np.count_nonzero(cumulative[:, None, :] < _SHARES, axis=2), 255)
    median = response.linear[np.maximum(levels[:, 1], response.black_to + 1)]
    light = (shares * np.minimum(response.linear, LAMP_FACTOR * median[:, None])).sum(axis=1)
    return Measurement(
        histogram=shares,
        dark_score=shares @ _LUMA,
        percentiles=levels,
        saturated=shares[:, response.white_from :].sum(axis=1),
        black=shares[:, : response.black_to + 1].sum(axis=1),
        light=light,
        median_light=median,
    )


class Brightness(Struct, frozen=True):
    """The brightness of the scene: the mean luma it would give at the reference exposure. Arrays of n frames.

    A saturated pixel may have seen any more light and a black one any less, so the answer is a range; it is
    narrow unless the frame is badly exposed, and only what holds for the whole range counts as evidence.
    """

    value: Floats
    """(n,) best estimate, mean luma 0-255 on the video-mode scale."""
    low: Floats
    """(n,) the scene is at least so bright."""
    high: Floats
    """(n,) the scene is at most so bright."""


def estimate_brightness(measurement: Measurement, response: Response, ratio: Floats) -> Brightness:
    """Estimates the mean luma that `ratio` (n,) times the frame's own exposure would give.

    Each bin of the histogram is taken back to light, scaled, and sent through the curve again. With ratio 1 and no
    lamp this is the mean luma itself, so the user's thresholds keep their meaning.
    """
    scale = ratio[:, None]
    median_saturated = measurement.percentiles[:, 1] >= response.white_from
    cap = LAMP_FACTOR * measurement.median_light[:, None] * scale
    luma = response.luma(np.minimum(response.linear * scale, cap))
    value = (measurement.histogram * luma).sum(axis=1)
    dark = slice(0, response.black_to + 1)
    white = slice(response.white_from, 256)
    brightest = response.luma(np.where(median_saturated[:, None], 1.0, np.minimum(cap, 1.0)))
    # A dark pixel is known to half a luma value only; scaled up by a large ratio, that is much light.
    blackest = response.luma(np.minimum(response.black_high * scale, cap))
    darkest = response.luma(np.minimum(response.black_low * scale, cap))
    spread = (measurement.histogram[:, white] * (brightest - luma[:, white])).sum(axis=1)
    lifted = (measurement.histogram[:, dark] * (blackest - luma[:, dark])).sum(axis=1)
    sunk = (measurement.histogram[:, dark] * (luma[:, dark] - darkest)).sum(axis=1)
    return Brightness(value, value - sunk, value + np.maximum(spread, 0.0) + np.maximum(lifted, 0.0))


def scene_ev_of(light: float, exposure_s: float) -> float:
    """Returns the scene brightness in stops, log2 of relative light per second of exposure at gain 1; unclipped.

    `exposure_s`: exposure time times gains.
    Source: libcamera src/ipa/rpi/controller/rpi/lux.cpp, whose lux is proportional to 2 ** scene_ev.
    """
    return math.log2(max(light, _LEAST_LIGHT) / exposure_s)


def cut_detail_rows(luma: Bytes) -> Bytes:
    """Returns the 16 full-resolution rows in which fine detail is measured, as a copy. `luma`: (height, width)."""
    height = luma.shape[0]
    return luma[height // 32 :: max(1, height // 16)].copy()


def measure_sharpness(detail_rows: Bytes) -> float:
    """Measures the contrast of fine detail, independent of brightness and of coarse contrast: 0 (flat) to about 4.

    Brenner's gradient (pixels two apart) on some full-resolution rows, divided by their variance. It compares frames
    of one scene (focus, dew, condensation), not of different ones; noise raises it in the dark.
    """
    if detail_rows.shape[1] < 3:
        return 0.0
    rows = detail_rows.astype(np.float32)
    steps = rows[:, 2:] - rows[:, :-2]
    mean = float(np.add.reduce(rows, axis=None)) / rows.size
    variance = float(np.vdot(rows, rows)) / rows.size - mean**2
    return float(np.vdot(steps, steps)) / steps.size / (max(variance, 0.0) + 1.0)


_SHARES = np.array(PERCENTILES)[:, None] - 1e-9
_LUMA = np.arange(256, dtype=np.float64)
_LEAST_LIGHT = 1e-6
"""Far below one grey level of 8 bits; keeps log2 finite for an all-black frame."""
