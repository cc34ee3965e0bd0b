"""The simulated sensor: light to 8-bit values, with exposure, gain, shot and read noise, and auto exposure.

Cheap enough for every frame: in the domain z = sqrt(electrons + read noise^2) shot and read noise have the same
spread everywhere (Anscombe 1948), so a frame is table(sum(table(scene), ready-made noise)), three passes over bytes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Table = NDArray[np.uint8]

FULL_WELL_E = 8000.0
READ_NOISE_E = 3.0
"""A small Pi sensor."""

REFERENCE_SIGNAL, REFERENCE_LUX, REFERENCE_US = 0.194, 998.0, 27_685.0
"""libcamera's imx219 calibration: 998 lux gives 19.4 % of full scale in 27.685 ms at gain 1 (vc4/data/imx219.json)."""

MAX_VIDEO_GAIN = 8.0
MIN_EXPOSURE_US = 20
TARGET_SIGNAL = 0.18
"""Mean linear signal auto exposure aims at: photography's middle grey."""
AE_SPEED = 0.25
"""Share of the error (in stops) corrected per frame; above 0.44 a loop with three frames' delay oscillates."""
AE_DEAD_BAND = 0.03
CONTROL_LAG = 3
"""Frames between asking and seeing (picamera2 issue 1278: buffers + 3 to 4; the buffers are not simulated)."""


class Exposure(Struct, frozen=True):
    """One setting of the sensor."""

    exposure_us: int
    gain: float

    @property
    def total(self) -> float:
        """Exposure times gain, in µs."""
        return self.exposure_us * self.gain


class PictureControls(Struct, frozen=True):
    """Picture controls applied after the sensor."""

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0


def signal_of(lux: float, exposure: Exposure) -> float:
    """Returns the mean linear signal of a scene, 1 = full scale; not clipped."""
    return REFERENCE_SIGNAL * lux / REFERENCE_LUX * exposure.total / REFERENCE_US


def relative_light(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light of each of the 256 reflectance levels, relative to the scene's mean."""
    linear = (np.arange(256) / 255.0) ** 2
    return np.asarray(linear / max(float(histogram @ linear), 1e-9), np.float64)


def electrons_at_full_scale(gain: float) -> float:
    """Electrons that give full scale at this gain."""
    return FULL_WELL_E / gain


def to_stable(light: NDArray[np.float64], gain: float) -> Table:
    """Linear signal (1 = full scale) to the domain of equal noise, 0..255."""
    full, floor = electrons_at_full_scale(gain), 0.375 + READ_NOISE_E**2
    return np.asarray(np.rint(255 * np.sqrt((np.clip(light, 0, 1) * full + floor) / (full + floor))), np.uint8)


def from_stable(gain: float, look: PictureControls) -> Table:
    """The table from the domain of equal noise to 8-bit sRGB values, black level taken off, controls applied."""
    full, floor = electrons_at_full_scale(gain), 0.375 + READ_NOISE_E**2
    light = np.clip(((np.arange(256) / 255.0) ** 2 * (full + floor) - floor) / full, 0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    shown = (coded - 0.5) * look.contrast + 0.5 + look.brightness
    return np.asarray(np.rint(np.clip(shown, 0, 1) * 255), np.uint8)


def noise_sigma(gain: float) -> float:
    """Spread of the noise in the domain of equal noise, in its 0..255 steps."""
    return 0.5 * 255 / float(np.sqrt(electrons_at_full_scale(gain) + 0.375 + READ_NOISE_E**2))


def next_auto_exposure(now: Exposure, measured: float, longest_us: int, stops: float = 0.0) -> Exposure:
    """Returns the next setting of auto exposure: exposure first, then gain.

    `measured` is the mean linear signal (clipped at 1) that `now` gave; `stops` the user's ExposureValue.
    """
    ratio = TARGET_SIGNAL * 2**stops / max(measured, 1e-7)
    if abs(ratio - 1) < AE_DEAD_BAND and now.exposure_us <= longest_us:
        return now
    total = now.total * float(np.clip(ratio, 1 / 64, 64)) ** AE_SPEED
    exposure_us = int(np.clip(total, MIN_EXPOSURE_US, longest_us))
    return Exposure(exposure_us, float(np.clip(total / exposure_us, 1, MAX_VIDEO_GAIN)))


@dataclass
class Sensor:
    """Exposure and gain over time: what is asked for acts CONTROL_LAG frames later."""

    now: Exposure = field(default_factory=lambda: Exposure(10_000, 1.0))
    fixed_us: int = 0
    """0 = automatic."""
    fixed_gain: float = 0.0
    longest_us: int = 33_333
    stops: float = 0.0
    automatic: bool = True
    _coming: deque[Exposure] = field(default_factory=deque, init=False)

    def next_frame(self, measured: float) -> Exposure:
        """Setting of the frame about to be exposed; `measured` is the mean signal of the frame before it."""
        # Judge by what is already asked for, not by what is seen: the frames under way are known.
        asked = self._coming[-1] if self._coming else self.now
        predicted = min(1.0, measured * asked.total / max(self.now.total, 1e-9))
        wanted = next_auto_exposure(asked, predicted, self.longest_us, self.stops) if self.automatic else asked
        wanted = self._apply_fixed(wanted)
        self._coming.append(wanted)
        if len(self._coming) > CONTROL_LAG:
            self.now = self._coming.popleft()
        return self.now

    def _apply_fixed(self, wanted: Exposure) -> Exposure:
        """Keeps the values that the user fixed; the others make up for them."""
        if self.fixed_us and self.fixed_gain:
            return Exposure(self.fixed_us, self.fixed_gain)
        if self.fixed_us:
            return Exposure(self.fixed_us, min(max(wanted.total / self.fixed_us, 1.0), MAX_VIDEO_GAIN))
        if self.fixed_gain:
            exposure_us = round(wanted.total / self.fixed_gain)
            return Exposure(min(max(exposure_us, MIN_EXPOSURE_US), self.longest_us), self.fixed_gain)
        return Exposure(min(wanted.exposure_us, self.longest_us), wanted.gain)
