"""Which frames count, how their exposure is known, and what the camera is asked for."""

import math

import numpy as np
import pytest

from analyzer.night import exposure_control
from analyzer.night.brightness import histogram_of, measure, sample_grid
from analyzer.night.controller import NightController
from analyzer.night.exposure_control import ExposureSetting
from analyzer.night.exposure_estimate import ExposureSource, LuxScale, light_ratio_of, reported_exposure_of
from analyzer.night.settling import UNSETTLED_FRAMES, FrameInfo
from analyzer.night.transfer_curve import response_of
from analyzer.settings import NightSettings

SECOND = 1_000_000_000
CURVE = response_of("srgb")
RULES = NightSettings(dwell_s=2.0, min_dark_frames=3, min_bright_frames=2, hold_s=10.0)
REFERENCE_S = exposure_control.reference_s_of(RULES)
SCENE = np.random.default_rng(1).uniform(0.5, 1.5, (90, 160))


class Camera:
    """A camera that obeys, as the controller sees it: auto exposure by day, what it is asked for at night."""

    def __init__(self, controller, *, known=True, lux_known=False, follows=True):
        self.controller, self.known, self.lux_known, self.follows = controller, known, lux_known, follows
        self.product_s = REFERENCE_S
        self.night = False
        self.now_s = 0.0
        self.requests = []
        self.decisions = []
        self.assessment = None

    def frames(self, light_per_s, count, step_s=0.5):
        """`light_per_s`: relative light per second of exposure product."""
        for _ in range(count):
            self.now_s += step_s
            if not self.night:
                self.product_s = min(REFERENCE_S, 0.18 / light_per_s)
            light = np.clip(SCENE * light_per_s * self.product_s, 0, 1)
            pixels = np.rint(CURVE.luma(light)).astype(np.uint8)
            reported = reported_exposure_of(
                round(self.product_s * 1e6) if self.known else 0,
                1.0,
                1.0,
                light_per_s * 140 if self.lux_known else math.nan,
            )
            info = FrameInfo(round(self.now_s * SECOND), reported, is_night=self.night)
            self.assessment = self.controller.observe(info, pixels, measure(histogram_of(pixels), CURVE), CURVE)
            if self.assessment.decision:
                self.decisions.append(self.assessment.decision)
            if self.assessment.request:
                self.requests.append(self.assessment.request)
                self.night = self.assessment.request.mode != "video"
                if self.night and self.follows:
                    self.product_s = self.assessment.request.exposure.product_s
        return self


BRIGHT, DUSK, DARK = 10.0, 0.06, 0.002


@pytest.mark.parametrize("lux_known", [False, True])
def test_a_dusk_and_a_dawn_are_two_switches_with_exposures_known(lux_known):
    camera = Camera(NightController(RULES), lux_known=lux_known)
    for light in (BRIGHT, 1.0, DUSK, 0.02, DARK, 0.02, DUSK, 1.0, BRIGHT):
        camera.frames(light, 40)
    assert [one.night for one in camera.decisions] == [True, False]
    assert camera.requests[0].mode == "still"
    assert camera.requests[-1].mode == "video"


def test_lux_is_preferred_once_it_has_been_learned():
    camera = Camera(NightController(RULES), lux_known=True)
    assert camera.frames(1.0, 5).assessment.source is ExposureSource.EV
    assert camera.frames(1.0, 40).assessment.source is ExposureSource.LUX
    level = camera.assessment.level
    camera.lux_known = False
    assert camera.frames(1.0, 1).assessment.source is ExposureSource.EV
    assert camera.assessment.level == pytest.approx(level, abs=1.0)


def test_lux_that_belongs_to_another_scene_is_not_believed():
    camera = Camera(NightController(RULES), lux_known=True).frames(1.0, 40)
    reported = reported_exposure_of(round(camera.product_s * 1e6), 1.0, 1.0, 140.0 * 500)
    pixels = np.full((90, 160), 118, np.uint8)
    info = FrameInfo(round((camera.now_s + 1) * SECOND), reported)
    assessment = camera.controller.observe(info, pixels, measure(histogram_of(pixels), CURVE), CURVE)
    assert assessment.source is ExposureSource.EV


def test_unknown_exposure_is_learned_from_the_step_at_the_switch():
    camera = Camera(NightController(RULES), known=False)
    camera.frames(BRIGHT, 40)
    assert camera.assessment.source is ExposureSource.RAW
    camera.frames(0.05, 100)  # 20 s of dwell: raw needs ten times the patience
    assert [one.night for one in camera.decisions] == [True]
    camera.frames(0.05, 60)
    assert camera.assessment.source is ExposureSource.LEARNED
    assert camera.assessment.level == pytest.approx(float(CURVE.luma(np.array([0.05 * REFERENCE_S]))[0]), abs=6)
    camera.frames(0.05, 200)
    assert len(camera.decisions) == 1, "its own longer exposure must not make it day"
    camera.frames(1.0, 100)
    assert [one.night for one in camera.decisions] == [True, False]


def test_unknown_exposure_that_saturates_is_learned_on_a_lower_rung():
    fixed = NightSettings(dwell_s=0.5, min_dark_frames=2, hold_s=5.0, ladder=False, exposure_us=30_000_000)
    camera = Camera(NightController(fixed), known=False)
    camera.frames(0.07, 120)
    assert camera.decisions[0].night
    assert camera.assessment.source is ExposureSource.LEARNED
    assert len(camera.requests) > 1
    assert len(camera.decisions) == 1


def test_a_source_that_ignores_exposures_is_judged_by_its_plain_mean():
    """A video file: night mode changes nothing in the picture, so the step is 1 and the mean stays the score."""
    camera = Camera(NightController(RULES), known=False, follows=False)
    camera.frames(0.05, 200)
    assert camera.decisions[0].night
    assert camera.assessment.level == pytest.approx(float(CURVE.luma(np.array([0.05 * REFERENCE_S]))[0]), abs=3)


@pytest.mark.parametrize(
    ("exposure_us", "gain", "digital"),
    [(0, 1.0, 1.0), (1000, 0.0, 1.0), (1000, math.nan, 1.0), (1000, math.inf, 1.0), (1000, -1.0, 1.0), (-5, 1.0, 1.0)],
)
def test_zero_and_nan_exposures_mean_unknown(exposure_us, gain, digital):
    assert math.isnan(reported_exposure_of(exposure_us, gain, digital, math.nan).product_s)


@pytest.mark.parametrize("digital", [0.0, math.nan, -1.0])
def test_a_digital_gain_that_cannot_be_counts_as_none(digital):
    assert reported_exposure_of(1000, 2.0, digital, -3.0).product_s == pytest.approx(0.002)


def test_frames_that_do_not_show_the_commanded_exposure_do_not_count_for_twelve_frames():
    controller = NightController(RULES)
    controller.force("on", SECOND)
    pixels = np.full((90, 160), 124, np.uint8)  # well exposed, so there is no reason to step
    measurement = measure(histogram_of(pixels), CURVE)
    infos = [
        FrameInfo(n * SECOND, reported_exposure_of(500_000, 1.0, 1.0, math.nan), is_night=True) for n in range(2, 40)
    ]
    settled = [controller.observe(info, pixels, measurement, CURVE).settled for info in infos]
    assert settled == [False] * UNSETTLED_FRAMES + [True] * (len(infos) - UNSETTLED_FRAMES)


def test_frames_flagged_settling_do_not_count_but_a_stuck_flag_does_not_blind():
    controller = NightController(RULES)
    pixels = np.full((90, 160), 5, np.uint8)
    measurement = measure(histogram_of(pixels), CURVE)
    reported = reported_exposure_of(33_333, 8.0, 1.0, math.nan)
    counted = [
        controller.observe(FrameInfo(n * SECOND, reported, is_settling=True), pixels, measurement, CURVE).settled
        for n in range(1, 60)
    ]
    assert not any(counted[:29])
    assert all(counted[32:])


def test_capture_in_the_other_mode_is_asked_again_but_not_with_every_frame():
    controller = NightController(RULES, night=True)
    pixels = np.full((90, 160), 30, np.uint8)
    measurement = measure(histogram_of(pixels), CURVE)
    reported = reported_exposure_of(33_333, 8.0, 1.0, math.nan)
    requests = [
        controller.observe(FrameInfo(n * SECOND // 10, reported, is_night=False), pixels, measurement, CURVE).request
        for n in range(200)
    ]
    asked = [one for one in requests if one]
    assert all(one.mode == "still" for one in asked)
    assert 3 <= len(asked) <= 5  # 20 s, every 5 s


def test_slow_video_asks_for_the_longest_frame_and_leaves_the_rest_to_the_camera():
    settings = NightSettings(dwell_s=1.0, mode="slow_video", slow_video_fps=4.0)
    camera = Camera(NightController(settings)).frames(DARK, 60)
    (request,) = camera.requests
    assert (request.mode, request.exposure.exposure_us, request.exposure.gain) == ("slow_video", 250_000, 6.0)


def test_startup_in_the_dark_is_night_after_the_dwell():
    camera = Camera(NightController(RULES)).frames(1e-5, 10)
    (decision,) = camera.decisions
    assert decision.night
    assert decision.captured_ns <= (RULES.dwell_s + 1.0) * SECOND


def test_forcing_night_switches_the_camera_at_once():
    camera = Camera(NightController(RULES)).frames(BRIGHT, 5)
    decision, request = camera.controller.force("on", round(camera.now_s * SECOND))
    assert decision.night
    assert request.mode == "still"
    assert request.exposure.product_s == pytest.approx(REFERENCE_S / 2, rel=0.01)  # bright: the lowest exposure
    decision, request = camera.controller.force("off", round(camera.now_s * SECOND))
    assert not decision.night
    assert request.mode == "video"


def test_forcing_before_the_first_frame_is_possible():
    decision, request = NightController(RULES).force("on", 0)
    assert decision.night
    assert request.exposure == ExposureSetting(2_000_000, 6.0)


# ---- the exposures of the night


def test_time_comes_before_gain():
    assert exposure_control.split_product(1.0, RULES) == ExposureSetting(1_000_000, 1.0)
    assert exposure_control.split_product(2.0, RULES) == ExposureSetting(2_000_000, 1.0)
    assert exposure_control.split_product(8.0, RULES) == ExposureSetting(2_000_000, 4.0)
    assert exposure_control.split_product(99.0, RULES) == ExposureSetting(2_000_000, 6.0)


def test_the_lowest_rung_still_measures_any_bright_threshold():
    lowest = exposure_control.split_product(0.0, RULES)
    assert lowest.product_s == pytest.approx(REFERENCE_S / 2, rel=0.01)


@pytest.mark.parametrize("light_per_s", [1e-5, 1e-3, 0.01, 0.1, 0.5, 3.0, 50.0])
def test_the_ladder_comes_to_rest_from_anywhere_within_eight_steps(light_per_s):
    for start_s in (12.0, 1.0, REFERENCE_S / 2):
        now_s, steps = start_s, 0
        while steps <= 8:
            light = min(1.0, light_per_s * now_s)
            exposure = exposure_control.choose_next(light, 1.0 if light >= 1.0 else 0.0, now_s, RULES)
            if exposure is None:
                break
            now_s, steps = exposure.product_s, steps + 1
        assert steps <= 8


def test_a_fixed_exposure_is_left_only_where_the_frame_is_white():
    fixed = NightSettings(ladder=False)
    assert exposure_control.choose_first(1.0, fixed) == ExposureSetting(2_000_000, 6.0)
    assert exposure_control.choose_next(0.6, 0.5, 12.0, fixed) is None
    assert exposure_control.choose_next(1.0, 0.9, 12.0, fixed).product_s == pytest.approx(0.75)
    assert exposure_control.choose_next(0.01, 0.0, 0.75, fixed) == ExposureSetting(2_000_000, 6.0)


def test_light_ratio_needs_pixels_that_both_frames_show():
    white = sample_grid(np.full((90, 160), 255, np.uint8))
    grey = sample_grid(np.full((90, 160), 100, np.uint8))
    assert light_ratio_of(white, grey, CURVE) is None
    assert light_ratio_of(grey, grey, CURVE) == pytest.approx(1.0)
    assert light_ratio_of(grey, sample_grid(np.full((45, 80), 100, np.uint8)), CURVE) is None  # another size


def test_the_lux_constant_follows_the_camera_for_as_long_as_it_is_day():
    scale = LuxScale()
    for _ in range(400):
        scale.learn(0.2, 0.01, 100.0)
    for _ in range(400):
        scale.learn(0.2, 0.01, 50.0)  # another white balance, another tuning
    assert scale.product_s(0.2, reported_exposure_of(10_000, 1.0, 1.0, 50.0)) == pytest.approx(0.01)
