"""The camera's transfer curve from light to pixel values and back, with black level and value range."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FULL_RANGE = (0.0, 255.0)
LIMITED_RANGE = (16.0, 235.0)
"""ITU-R BT.709 and BT.601: luma of `tv` range video."""

NEAR_BLACK = 4.0 / 255.0
NEAR_WHITE = 250.0 / 255.0
"""Fractions of the range outside which a pixel only bounds the light it saw (indi-allsky and RMS use similar)."""


def _srgb_to_linear(value: Floats) -> Floats:
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0.0) + 0.055) / 1.055) ** 2.4)


def _srgb_from_linear(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def _bt709_to_linear(value: Floats) -> Floats:
    return np.where(value < 0.081, value / 4.5, ((np.maximum(value, 0.0) + 0.099) / 1.099) ** (1 / 0.45))


def _bt709_from_linear(light: Floats) -> Floats:
    return np.where(light < 0.018, light * 4.5, 1.099 * np.maximum(light, 0.018) ** 0.45 - 0.099)


def _identity(value: Floats) -> Floats:
    return value


_CURVES = {
    "srgb": (_srgb_to_linear, _srgb_from_linear),  # IEC 61966-2-1
    "bt709": (_bt709_to_linear, _bt709_from_linear),  # ITU-R BT.709 item 1.2
    "linear": (_identity, _identity),
}


class Response(Struct, frozen=True, eq=False):
    """A transfer curve as tables over the 256 luma values."""

    curve: str
    black: float
    """Luma of no light."""
    white: float
    """Luma of full scale."""
    linear: Floats
    """(256,) relative light of each luma value; 1 = full scale."""
    black_to: int
    """Up to this luma a pixel is black: it saw at most `linear[black_to + 1]`."""
    white_from: int
    """From this luma a pixel is saturated: it saw at least `linear[white_from]`."""
    black_low: Floats
    black_high: Floats
    """(black_to + 1,) least and most light of each black luma value: 8 bits know it to half a step."""

    def luma(self, light: Floats) -> Floats:
        """Returns the luma value (not rounded) of this much relative light; clipped at full scale as a sensor does."""
        return self.black + (self.white - self.black) * _CURVES[self.curve][1](np.minimum(light, 1.0))

    def to_light(self, luma: Floats) -> Floats:
        """Returns the inverse of `luma`, for values between the table's 256."""
        return _to_light(self.curve, luma, self.black, self.white)


def _to_light(curve: str, luma: Floats, black: float, white: float) -> Floats:
    return _CURVES[curve][0](np.clip((luma - black) / (white - black), 0.0, 1.0))


@lru_cache(maxsize=16)
def response_of(curve: str, *, limited: bool = False, black_level: float = 0.0) -> Response:
    """Returns the curve named by the setting `analyzer.response`, for full-range or limited-range luma.

    `auto` means BT.709 for limited-range video and sRGB else: what libcamera's tuning files and JPEG files come
    close to. An error in the curve shifts brightness far from the reference exposure only; near it, it cancels.
    """
    name = ("bt709" if limited else "srgb") if curve == "auto" else curve
    low, high = LIMITED_RANGE if limited else FULL_RANGE
    black = max(low, black_level)
    values, span = np.arange(256, dtype=np.float64), high - black
    black_to = int(black + NEAR_BLACK * span)
    return Response(
        name,
        black,
        high,
        _to_light(name, values, black, high),
        black_to=black_to,
        white_from=int(black + NEAR_WHITE * span),
        black_low=_to_light(name, values[: black_to + 1] - 0.5, black, high),
        black_high=_to_light(name, values[: black_to + 1] + 0.5, black, high),
    )
