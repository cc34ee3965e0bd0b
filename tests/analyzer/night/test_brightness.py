"""What a frame's luma says: mean, percentiles, and brightness that does not depend on the exposure."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analyzer.night.brightness import (
    cut_detail_rows,
    estimate_brightness,
    histogram_of,
    measure,
    measure_sharpness,
    sample_grid,
    scene_ev_of,
)
from analyzer.night.transfer_curve import response_of

CURVES = [("srgb", False), ("bt709", True), ("bt709", False), ("linear", False)]


def measured_of(picture, curve):
    return measure(histogram_of(sample_grid(picture)), curve)


def brightness_of(picture, ratio, curve=None):
    curve = curve or response_of("srgb")
    return estimate_brightness(measured_of(picture, curve), curve, np.array([ratio]))


def exposed(scene, factor, curve, rng):
    """A picture of `scene` (relative light) at some exposure, with a little noise and 8 bits."""
    light = np.clip(scene * factor + rng.normal(0, 0.002, scene.shape), 0, 1)
    return np.rint(np.clip(curve.luma(light), 0, 255)).astype(np.uint8)


@pytest.mark.parametrize(("name", "limited"), CURVES)
def test_every_curve_goes_there_and_back(name, limited):
    curve = response_of(name, limited=limited)
    values = np.arange(int(curve.black), int(curve.white) + 1)
    assert np.allclose(curve.luma(curve.linear[values]), values, atol=1e-6)
    assert np.allclose(curve.to_light(values.astype(float)), curve.linear[values], atol=1e-9)
    assert np.all(np.diff(curve.linear) >= 0)


def test_dark_score_is_the_mean_luma():
    picture = np.random.default_rng(1).integers(0, 256, (1080, 1920), np.uint8)
    assert measured_of(picture, response_of("srgb")).dark_score[0] == pytest.approx(picture.mean(), abs=1.5)
    flat = np.full((720, 1280), 77, np.uint8)
    assert measured_of(flat, response_of("srgb")).dark_score[0] == 77


def test_at_the_reference_exposure_brightness_is_the_mean_luma():
    picture = np.random.default_rng(2).integers(10, 120, (720, 1280), np.uint8)
    span = brightness_of(picture, 1.0)
    assert span.value[0] == pytest.approx(measured_of(picture, response_of("srgb")).dark_score[0], abs=0.01)


def test_brightness_is_the_same_at_every_exposure_over_twelve_stops():
    """Issue 4, N2: median error at most 0.1 EV, p99 at most 0.25, wherever the frame is not clipped."""
    rng, curve = np.random.default_rng(3), response_of("srgb")
    scene = np.exp(rng.normal(0, 0.5, (300, 400)))
    scene /= scene.mean()
    errors = []
    for stops in np.linspace(-8, 4, 49):  # scene brightness: mean relative light at exposure 1
        for exposure in (2.0 ** np.arange(-6, 7)).tolist():
            mean = 2.0**stops * exposure
            if not 0.03 < mean < 0.35:
                continue
            measurement = measured_of(exposed(scene * 2.0**stops, exposure, curve, rng), curve)
            errors.append(abs(scene_ev_of(float(measurement.light[0]), exposure) - stops))
    assert len(errors) > 100
    assert np.median(errors) <= 0.1
    assert np.quantile(errors, 0.99) <= 0.25


def test_a_saturated_frame_is_at_least_so_bright_and_perhaps_any_brighter():
    span = brightness_of(np.full((720, 1280), 255, np.uint8), 1 / 45)
    assert span.low[0] < 60
    assert span.high[0] == 255


def test_a_black_frame_is_at_most_so_bright():
    span = brightness_of(np.zeros((720, 1280), np.uint8), 1.0)
    assert span.low[0] == 0
    assert span.high[0] < 6
    assert brightness_of(np.zeros((720, 1280), np.uint8), 1000.0).high[0] > 100  # too short an exposure to tell


def test_a_lamp_in_view_does_not_make_it_day():
    night = np.full((720, 1280), 8, np.uint8)
    with_lamp = night.copy()
    with_lamp[:300, :300] = 255  # 10 % of the frame
    plain, lit = brightness_of(night, 1.0), brightness_of(with_lamp, 1.0)
    assert measured_of(with_lamp, response_of("srgb")).dark_score[0] > 30  # what the first service saw
    assert lit.value[0] < plain.value[0] + 8
    assert lit.high[0] < 40


def test_sky_over_a_dark_foreground_is_day():
    picture = np.full((720, 1280), 60, np.uint8)
    picture[:300] = 240
    assert brightness_of(picture, 1.0).low[0] > 100


def test_limited_range_video_reads_like_full_range():
    full, limited = response_of("srgb"), response_of("bt709", limited=True)
    scene = np.full((90, 160), 0.2)
    one = measure(histogram_of(np.rint(full.luma(scene)).astype(np.uint8)), full)
    other = measure(histogram_of(np.rint(limited.luma(scene)).astype(np.uint8)), limited)
    assert one.light[0] == pytest.approx(0.2, rel=0.02)
    assert other.light[0] == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 1), (2, 3), (135, 135), (1080, 1921)])
def test_every_size_and_every_extreme_gives_finite_numbers(value, shape):
    picture = np.full(shape, value, np.uint8)
    curve = response_of("srgb")
    measurement = measured_of(picture, curve)
    for ratio in (1e-6, 1.0, 1e6):
        span = estimate_brightness(measurement, curve, np.array([ratio]))
        assert 0 <= span.low[0] <= span.value[0] + 1e-9 <= span.high[0] + 2e-9 <= 255 + 1e-6
    assert math.isfinite(scene_ev_of(float(measurement.light[0]), 1e-6))
    assert 0 <= measure_sharpness(cut_detail_rows(picture)) < 5


def sharpness_of(picture):
    return measure_sharpness(cut_detail_rows(picture.astype(np.uint8)))


def test_sharpness_falls_with_blur_and_not_with_brightness():
    rng = np.random.default_rng(4)
    sharp = rng.integers(0, 200, (720, 1280)).astype(np.float32)
    blurred = sum(np.roll(sharp, shift, axis=1) for shift in range(-4, 5)) / 9
    assert sharpness_of(sharp) > 3 * sharpness_of(blurred)
    assert sharpness_of(sharp / 2) == pytest.approx(sharpness_of(sharp), rel=0.05)


SPARSE = arrays(float, 256, elements=st.floats(0, 1))
DENSE = st.tuples(st.integers(0, 1 << 32), st.floats(0, 9)).map(
    lambda t: np.random.default_rng(t[0]).random(256) ** t[1]
)


@settings(max_examples=200, deadline=None)
@given(
    shares=(SPARSE | DENSE).filter(lambda values: sum(values) > 0.01),
    ratio=st.floats(1e-5, 1e5),
    more=st.floats(1.01, 4.0),
)
def test_brightness_never_falls_when_the_ratio_rises_and_stays_a_span(shares, ratio, more):
    curve = response_of("srgb")
    histogram_of_it = shares[None, :] / sum(shares)
    measurement = measure(histogram_of_it, curve)
    first, second = (estimate_brightness(measurement, curve, np.array([one])) for one in (ratio, ratio * more))
    assert first.low[0] - 1e-6 <= first.value[0] <= first.high[0] + 1e-6
    assert second.value[0] >= first.value[0] - 1e-6


def test_a_batch_says_the_same_as_its_frames_one_by_one():
    rng, curve = np.random.default_rng(5), response_of("srgb")
    shares = rng.random((7, 256)) ** 8
    shares /= shares.sum(axis=1, keepdims=True)
    ratios = 2.0 ** rng.uniform(-6, 6, 7)
    together = estimate_brightness(measure(shares, curve), curve, ratios)
    for row in range(7):
        alone = estimate_brightness(measure(shares[row : row + 1], curve), curve, ratios[row : row + 1])
        assert alone.value[0] == pytest.approx(together.value[row])
        assert alone.low[0] == pytest.approx(together.low[row])
        assert alone.high[0] == pytest.approx(together.high[row])
