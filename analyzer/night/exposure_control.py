"""The exposure ladder at night: expose so that the scene can be measured, and seen.

At the fixed long exposure of the first service a frame saturates 5.5 stops below the day's exposure, so the bright
threshold could not even be measured and dawn went unseen (shared/imaging.md 0.3). Video mode has auto exposure; this
is the night's, slow on purpose: picamera2 needs about `buffers + 4` frames until a new exposure shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.settings import NightSettings

TARGET_LIGHT = 0.2
"""Mean relative light aimed at, about luma 124 with sRGB: mid grey (18 %) plus what lamps leave."""
DIM_LIGHT = 0.08
GLARING_LIGHT = 0.5
"""Outside these the exposure changes; 2.6 stops apart, so that a step never calls for the opposite step."""
SATURATED = 0.25
"""With more of the frame saturated the mean says little, and the exposure goes down by a fixed factor."""
VERY_SATURATED = 0.75
VIDEO_EXPOSURE_US = 33_333
"""At 30 fps, where the frame rate is not known."""
MOST_UP, MOST_DOWN = 4.0, 1 / 16


@dataclass(frozen=True, slots=True)
class ExposureSetting:
    """What the camera is asked for."""

    exposure_us: int
    gain: float

    @property
    def product_s(self) -> float:
        """Seconds times gain: what brightness depends on."""
        return self.exposure_us * 1e-6 * self.gain


def reference_s(rules: NightSettings) -> float:
    """Exposure product of video mode at its limit: the scale of the user's thresholds."""
    return (rules.reference_exposure_us or VIDEO_EXPOSURE_US) * 1e-6 * rules.reference_gain


def longest(rules: NightSettings) -> ExposureSetting:
    """Top of the ladder: the user's exposure_us and gain, shorter where slow_video keeps its frame rate."""
    exposure_us = rules.exposure_us
    if rules.mode == "slow_video":
        exposure_us = min(exposure_us, int(1e6 / rules.slow_video_fps))
    return ExposureSetting(exposure_us, rules.gain)


def split(product_s: float, rules: NightSettings) -> ExposureSetting:
    """The rung nearest to an exposure product: time first, gain only when time is used up (less noise).

    Never below half the reference: there any valid bright threshold can still be measured, and nothing darker than
    it needs less.
    """
    top = longest(rules)
    wanted_s = min(max(product_s, reference_s(rules) / 2), top.product_s)
    exposure_us = max(1, min(top.exposure_us, round(wanted_s * 1e6)))
    return ExposureSetting(exposure_us, min(top.gain, max(1.0, wanted_s * 1e6 / exposure_us)))


def first(light_at_reference: float, rules: NightSettings) -> ExposureSetting:
    """Where to start when night begins, from the relative light a frame at the reference exposure sees."""
    if not rules.ladder:
        return longest(rules)
    return split(reference_s(rules) * TARGET_LIGHT / max(light_at_reference, 1e-6), rules)


def step(light: float, saturated: float, now_s: float, rules: NightSettings) -> ExposureSetting | None:
    """The next rung for a settled night frame of exposure product `now_s`; None: stay.

    `light`: its mean relative light, `saturated`: fraction of its pixels at full scale.
    """
    if not rules.ladder:
        return _fixed(light, saturated, now_s, rules)
    if saturated >= SATURATED:
        factor = MOST_DOWN if saturated >= VERY_SATURATED else 1 / 4
    elif DIM_LIGHT <= light <= GLARING_LIGHT:
        return None
    else:
        factor = min(max(TARGET_LIGHT / max(light, 1e-6), MOST_DOWN), MOST_UP)
    rung = split(now_s * factor, rules)
    # Beyond an end of the ladder (a camera that clamps) its nearest rung may lie the wrong way.
    return _unless_there(rung, now_s) if (rung.product_s > now_s) == (factor > 1.0) else None


def _fixed(light: float, saturated: float, now_s: float, rules: NightSettings) -> ExposureSetting | None:
    """`ladder = false`: the user's exposure, except that a white frame shows nothing, dawn least of all."""
    if saturated >= VERY_SATURATED:
        return _unless_there(split(now_s * MOST_DOWN, rules), now_s)
    return _unless_there(longest(rules), now_s) if light < DIM_LIGHT else None


def _unless_there(rung: ExposureSetting, now_s: float) -> ExposureSetting | None:
    # At an end of the ladder the best rung is where we are: asking again would only unsettle the camera.
    return rung if abs(rung.product_s / now_s - 1.0) > 0.1 else None
