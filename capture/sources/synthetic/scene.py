"""The simulated world in front of the synthetic camera: how bright it is, what it looks like, what moves in it.

Random numbers are OpenCV's and Python's: numpy.random, which nothing else here needs, takes 3 MB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

SUN_ALTITUDE_DEG = (-90, -18, -12, -9, -6, -3, 0, 5, 10, 30, 90)
LOG10_LUX = (-3.2, -3.2, -2.1, -0.9, 0.53, 1.6, 2.6, 3.5, 4.0, 4.7, 5.0)
"""Illuminance by the sun's altitude, clear sky without moon."""

LATITUDE_DEG = 50.0
SIDEREAL_DAY_S = 86_164.0
DAY_LUX, DUSK_LUX, NIGHT_LUX = 1e4, 3.0, 1e-3
DRAWN_WIDTH, DRAWN_HEIGHT = 1920, 1080
"""Larger pictures are enlarged from this: a 12 megapixel scene takes seconds to draw."""

STARS = 160
STARS_BELOW_LUX = 1.0
"""Above it no star is brighter than the sky around it, so none is drawn."""


def sun_altitude_deg(hour: float) -> float:
    """The sun's altitude at an equinox at LATITUDE_DEG; hour 12 is noon."""
    return math.degrees(math.asin(math.cos(math.radians(LATITUDE_DEG)) * math.cos((hour - 12) * math.pi / 12)))


def illuminance_lux(scene: str, elapsed_s: float, day_length_s: float, start_hour: float) -> float:
    """Returns the light on the scene after `elapsed_s` seconds of frames, in lux."""
    match scene:
        case "day":
            return DAY_LUX
        case "dusk":
            return DUSK_LUX
        case "night":
            return NIGHT_LUX
        case "step":
            return DAY_LUX if (elapsed_s / day_length_s) % 1 < 0.5 else NIGHT_LUX
    hour = (start_hour + 24 * elapsed_s / day_length_s) % 24
    return float(10 ** np.interp(sun_altitude_deg(hour), SUN_ALTITUDE_DEG, LOG10_LUX))


@dataclass(frozen=True)
class Scene:
    """The picture at one size, made once; everything that is drawn per frame reads from it."""

    width: int
    height: int
    seed: int

    @cached_property
    def reflectance(self) -> Plane:
        """The reflectance of each pixel, (height, width), as the square root in 0..255 (finer steps in the dark)."""
        cv2.setRNGSeed(self.seed)
        height, width = min(self.height, DRAWN_HEIGHT), min(self.width, DRAWN_WIDTH)
        rows = np.linspace(0, 1, height, dtype=np.float32)[:, np.newaxis]
        sky = 170 + 40 * (0.6 - rows) + 25 * _draw_clouds(width, height)
        grass = np.empty((height, width), np.float32)
        cv2.randn(grass, 0, 1)  # type: ignore[call-overload]  # takes numbers, too
        picture = np.where(rows < 0.6, sky, 105 + 18 * _draw_clouds(width, height) + 4 * grass)
        rng = Random(self.seed)  # noqa: S311 - a picture
        for _ in range(14):
            _draw_house(picture, rng)
        drawn = np.clip(picture, 8, 250).astype(np.uint8)
        if drawn.shape == (self.height, self.width):
            return drawn
        return np.asarray(cv2.resize(drawn, (self.width, self.height), interpolation=cv2.INTER_LINEAR), np.uint8)

    @cached_property
    def chroma(self) -> tuple[Plane, Plane]:
        """U and V of each row in full light, ((height+1)//2, 1): a blue sky over a green ground."""
        rows = np.linspace(0, 1, (self.height + 1) // 2)[:, np.newaxis]
        blue = np.where(rows < 0.6, 150 - 8 * rows, 112).astype(np.uint8)
        red = np.where(rows < 0.6, 116 + 8 * rows, 124).astype(np.uint8)
        return blue, red

    @cached_property
    def histogram(self) -> NDArray[np.float64]:
        """Share of the pixels at each of the 256 reflectance levels."""
        return np.bincount(self.reflectance.ravel(), minlength=256) / self.reflectance.size

    def star_places(self, elapsed_s: float) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Rows, columns and brightness (in lux-equivalents) of the stars that are in the picture now."""
        angle = self._star_angles + 2 * math.pi * elapsed_s / SIDEREAL_DAY_S
        x = self.width * 0.5 + self._star_radii * np.cos(angle)
        y = self.height * 0.35 + self._star_radii * np.sin(angle)
        inside = (x >= 0) & (x < self.width - 1) & (y >= self.height * 0.1) & (y < self.height * 0.6)
        return y[inside].astype(np.intp), x[inside].astype(np.intp), self._star_lux[inside]

    def mover(self, elapsed_s: float) -> tuple[int, int, int, int]:
        """Top, left, height and width of the moving object: it crosses the picture in 8 s, bobbing."""
        height, width = max(2, self.height // 8), max(2, self.width // 12)
        phase = elapsed_s % 8 / 8
        left = int(phase * (self.width - width))
        top = int((0.5 + 0.2 * math.sin(phase * 6 * math.pi)) * (self.height - height))
        return top, left, height, width

    @cached_property
    def _star_radii(self) -> NDArray[np.float64]:
        return np.sqrt(_draw_uniform(self.seed + 1)) * math.hypot(self.width, self.height) * 0.6

    @cached_property
    def _star_angles(self) -> NDArray[np.float64]:
        return _draw_uniform(self.seed + 2) * 2 * math.pi

    @cached_property
    def _star_lux(self) -> NDArray[np.float64]:
        """Few bright, many faint: the count grows by 10^0.5 a magnitude."""
        return 40 * 10 ** (-1.2 * _draw_uniform(self.seed + 3))


def _draw_uniform(seed: int) -> NDArray[np.float64]:
    """Draws a number of 0..1 for each star."""
    rng = Random(seed)  # noqa: S311
    return np.array([rng.random() for _ in range(STARS)])


def _draw_clouds(width: int, height: int) -> NDArray[np.float32]:
    small = np.empty((9, 16), np.float32)
    cv2.randn(small, 0, 1)  # type: ignore[call-overload]
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _draw_house(picture: NDArray[np.float32], rng: Random) -> None:
    """A block with rows of windows: edges for sharpness and alignment to hold on to."""
    height, width = picture.shape
    broad = max(4, int(width * rng.uniform(0.04, 0.1)))
    top = int(height * rng.uniform(0.35, 0.55))
    left = int(rng.uniform(0, max(1, width - broad)))
    wall = picture[top : int(height * 0.72), left : left + broad]
    wall[:] = rng.uniform(60, 150)
    step = max(6, width // 80)
    for y in range(step // 2, max(0, wall.shape[0] - step), step):
        wall[y : y + step // 2, step // 2 :: step] = rng.uniform(30, 230)
