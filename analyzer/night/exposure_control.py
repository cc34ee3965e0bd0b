"""Chooses the exposure at night, so that the scene can be measured, and seen: the setting `night.ladder`.

At the fixed long exposure of the first service a frame saturates 5.5 stops below the day's exposure, so the bright
threshold could not even be measured and dawn went unseen. Video mode has auto exposure; this
is the night's, slow on purpose: picamera2 needs about `buffers + 4` frames until a new exposure shows.
"""

from __future__ import annotations

from msgspec import Struct

from analyzer.settings import NightSettings
from shmcam.imaging.exposure_target import DIM_LIGHT, GLARING_LIGHT, TARGET_LIGHT, VERY_SATURATED

SATURATED = 0.25
"""With more of the frame saturated the mean says little, and the exposure goes down by a fixed factor."""
VIDEO_EXPOSURE_US = 33_333
"""At 30 fps, where the frame rate is not known."""
MOST_UP, MOST_DOWN = 4.0, 1 / 16


class ExposureSetting(Struct, frozen=True):
    """An exposure that is requested of the camera."""

    exposure_us: int
    gain: float

    @property
    def product_s(self) -> float:
        """Seconds times gain; the brightness depends on it."""
        return self.exposure_us * 1e-6 * self.gain


def reference_s_of(settings: NightSettings) -> float:
    """Returns the exposure product of video mode at its limit: the scale of the user's thresholds."""
    return (settings.reference_exposure_us or VIDEO_EXPOSURE_US) * 1e-6 * settings.reference_gain


def longest_exposure_of(settings: NightSettings) -> ExposureSetting:
    """Returns the user's exposure_us and gain, shorter where slow_video keeps its frame rate."""
    exposure_us = settings.exposure_us
    if settings.mode == "slow_video":
        exposure_us = min(exposure_us, int(1e6 / settings.slow_video_fps))
    return ExposureSetting(exposure_us, settings.gain)


def split_product(product_s: float, settings: NightSettings) -> ExposureSetting:
    """Splits an exposure product into time and gain: time first, gain only when time is used up (less noise).

    Never below half the reference: there any valid bright threshold can still be measured, and no scene darker than
    it needs less.
    """
    top = longest_exposure_of(settings)
    wanted_s = min(max(product_s, reference_s_of(settings) / 2), top.product_s)
    exposure_us = max(1, min(top.exposure_us, round(wanted_s * 1e6)))
    return ExposureSetting(exposure_us, min(top.gain, max(1.0, wanted_s * 1e6 / exposure_us)))


def choose_first(light_at_reference: float, settings: NightSettings) -> ExposureSetting:
    """Chooses the exposure when night begins, from the relative light of a frame at the reference exposure."""
    if not settings.ladder:
        return longest_exposure_of(settings)
    return split_product(reference_s_of(settings) * TARGET_LIGHT / max(light_at_reference, 1e-6), settings)


def choose_next(light: float, saturated: float, now_s: float, settings: NightSettings) -> ExposureSetting | None:
    """Chooses the next exposure after a settled night frame of exposure product `now_s`; None: stay.

    `light`: its mean relative light, `saturated`: fraction of its pixels at full scale.
    """
    if not settings.ladder:
        return _choose_fixed(light, saturated, now_s, settings)
    if saturated >= SATURATED:
        factor = MOST_DOWN if saturated >= VERY_SATURATED else 1 / 4
    elif DIM_LIGHT <= light <= GLARING_LIGHT:
        return None
    else:
        factor = min(max(TARGET_LIGHT / max(light, 1e-6), MOST_DOWN), MOST_UP)
    exposure = split_product(now_s * factor, settings)
    # Beyond the longest or shortest exposure (a camera that clamps) the nearest one may lie the wrong way.
    return _skip_if_same(exposure, now_s) if (exposure.product_s > now_s) == (factor > 1.0) else None


def _choose_fixed(light: float, saturated: float, now_s: float, settings: NightSettings) -> ExposureSetting | None:
    """Chooses for `ladder = false`: the user's exposure, except that a white frame shows nothing, dawn least of all."""
    if saturated >= VERY_SATURATED:
        return _skip_if_same(split_product(now_s * MOST_DOWN, settings), now_s)
    return _skip_if_same(longest_exposure_of(settings), now_s) if light < DIM_LIGHT else None


def _skip_if_same(exposure: ExposureSetting, now_s: float) -> ExposureSetting | None:
    # At the longest or shortest exposure the best one is the present one: a request would only unsettle the camera.
    return exposure if abs(exposure.product_s / now_s - 1.0) > 0.1 else None
