"""Renders the frames of the simulated sensor: scene, light, noise and number to the planes of a ring slot."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from capture.sources.synthetic.scene import STARS_BELOW_LUX, Scene
from capture.sources.synthetic.sensor import (
    Exposure,
    PictureControls,
    from_stable,
    noise_sigma,
    relative_light,
    signal_of,
    to_stable,
)
from shmcam.imaging import frame_number_code

Plane = NDArray[np.uint8]

NOISE_SPARE = 64
"""Rows and columns the ready-made noise is larger than what is taken, so that 4096 different crops exist."""
NOISE_TILE = 1344
"""Columns of noise that are drawn at random; wider frames repeat them."""
NOISE_ROWS = 256
"""Rows of the ready-made noise; each band of so many rows of a frame takes another crop of it."""
MOVER_REFLECTANCE = 235
NOISE_STEPS_PER_STOP = 4
LIGHT_STEPS_PER_OCTAVE = 64
"""Light is rounded to 1 %, so that a constant scene is not computed anew for every frame."""


class RenderedFrame(Struct, frozen=True):
    """The inputs of one rendered frame."""

    number: int
    """Frame number shown in the code."""
    count: int
    """Frames drawn before; picks the noise."""
    elapsed_s: float
    """Simulated time; places what moves."""
    lux: float
    exposure: Exposure
    look: PictureControls


class FrameRenderer:
    """Draws frame after frame of one size. `scenery`, `noise` (seeded) and `moving` say what is in them."""

    def __init__(self, scenery: Scene, *, noise: bool, code: bool, moving: bool) -> None:
        self._scenery, self._noise, self._code, self._moving = scenery, noise, code, moving
        self._relative = relative_light(scenery.histogram)
        self._lit = np.empty((scenery.height, scenery.width), np.uint8)
        self._lit_for: tuple[float, float] | None = None
        self._grain = self._grains(scenery)
        self._bank = lru_cache(2)(self._scaled_noise)
        self._output = lru_cache(8)(from_stable)

    def measure_signal(self, lux: float, exposure: Exposure) -> float:
        """Mean linear signal of the scene under this exposure, each pixel clipped at full scale."""
        light = np.minimum(self._relative * signal_of(lux, exposure), 1)
        return float(self._scenery.histogram @ light)

    def luma(self, out: Plane, moment: RenderedFrame) -> None:
        """Draws the Y plane."""
        exposure, count = moment.exposure, moment.count
        light = _round_light(signal_of(moment.lux, exposure))
        if self._lit_for != (light, exposure.gain):
            cv2.LUT(self._scenery.reflectance, to_stable(self._relative * light, exposure.gain), dst=self._lit)
            self._lit_for = (light, exposure.gain)
        if self._noise:
            self._add_noise(out, count, exposure.gain)
        else:
            np.copyto(out, self._lit)
        self._draw_moving(out, moment, light)
        cv2.LUT(out, self._output(exposure.gain, moment.look), dst=out)
        if self._code:
            frame_number_code.draw(out, moment.number)

    def chroma(self, blue: Plane, red: Plane, moment: RenderedFrame) -> None:
        """Draws the U and V planes: colours fade in the dark and where the picture is blown out."""
        table = _chroma_table(round(self._colourfulness(moment) * moment.look.saturation, 2))
        for plane, full in zip((blue, red), self._scenery.chroma, strict=True):
            plane[:] = table[full]
        if self._code:
            cell = frame_number_code.cell_pixels_of(self._scenery.width)
            for plane in (blue, red):
                plane[: (cell + 1) // 2, : (cell * frame_number_code.CELLS + 1) // 2] = 128

    def _colourfulness(self, moment: RenderedFrame) -> float:
        level = self.measure_signal(moment.lux, moment.exposure)
        return min(1.0, math.sqrt(level / 0.1)) * min(1.0, (1 - level) / 0.3)

    def _add_noise(self, out: Plane, count: int, gain: float) -> None:
        width = self._scenery.width
        left = (count * 53 + count // 64) % NOISE_SPARE
        for band, top in enumerate(range(0, self._scenery.height, NOISE_ROWS)):
            rows, lit = out[top : top + NOISE_ROWS], self._lit[top : top + NOISE_ROWS]
            first = (count * 37 + band * 29) % NOISE_SPARE
            crop = slice(first, first + len(lit)), slice(left, left + width)
            plus, minus = (noise[crop] for noise in self._bank(_gain_step(gain)))
            cv2.subtract(cv2.add(lit, plus, dst=rows), minus, dst=rows)

    def _draw_moving(self, out: Plane, moment: RenderedFrame, light: float) -> None:
        lux, exposure = moment.lux, moment.exposure
        if lux < STARS_BELOW_LUX:
            rows, columns, star_lux = self._scenery.star_places(moment.elapsed_s)
            bright = to_stable(np.asarray(star_lux / max(lux, 1e-9) * light), exposure.gain)
            for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
                at = rows + down, columns + right
                out[at] = np.maximum(out[at], bright)
        if self._moving:
            top, left, height, width = self._scenery.mover(moment.elapsed_s)
            shade = to_stable(self._relative[MOVER_REFLECTANCE : MOVER_REFLECTANCE + 1] * light, exposure.gain)
            out[top : top + height, left : left + width] = shade

    @staticmethod
    def _grains(scenery: Scene) -> Plane:
        cv2.setRNGSeed(scenery.seed + 4)
        height, width = min(scenery.height, NOISE_ROWS) + NOISE_SPARE, scenery.width + NOISE_SPARE
        tile = np.empty((height, min(width, NOISE_TILE)), np.uint8)
        cv2.randn(tile, 128, 32)  # type: ignore[call-overload]
        return np.asarray(cv2.copyMakeBorder(tile, 0, 0, 0, width - tile.shape[1], cv2.BORDER_WRAP), np.uint8)

    def _scaled_noise(self, gain: float) -> tuple[Plane, Plane]:
        """Returns the noise to add and to subtract: two saturating byte operations cost a tenth of a signed one."""
        steps = np.rint((np.arange(256) - 128) / 32 * noise_sigma(gain))
        plus, minus = np.clip(steps, 0, 255).astype(np.uint8), np.clip(-steps, 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(self._grain, plus), np.uint8), np.asarray(cv2.LUT(self._grain, minus), np.uint8)


def _round_light(light: float) -> float:
    return float(2 ** (round(math.log2(max(light, 1e-12)) * LIGHT_STEPS_PER_OCTAVE) / LIGHT_STEPS_PER_OCTAVE))


def _gain_step(gain: float) -> float:
    return float(2 ** (round(math.log2(max(gain, 1e-3)) * NOISE_STEPS_PER_STOP) / NOISE_STEPS_PER_STOP))


@lru_cache(64)
def _chroma_table(strength: float) -> Plane:
    return np.asarray(np.clip(np.rint(128 + (np.arange(256) - 128) * strength), 0, 255), np.uint8)
