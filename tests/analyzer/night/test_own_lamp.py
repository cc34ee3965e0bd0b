"""A lamp of the camera's own does not make day of night: learned at the switch, taken off until it goes out."""

from __future__ import annotations

import pytest

from analyzer.night.own_lamp import LEAST_SHARE, WATCH_S, OwnLamp
from bench.night.days import simulate
from tests.analyzer.night.test_days import RULES, check

SECOND = 1_000_000_000
DARK = 0.1


def lit(lamp_rate: float = 5.0, after_s: float = 4.0) -> OwnLamp:
    """A lamp that went on soon after night began."""
    lamp = OwnLamp()
    lamp.begin_night(0, DARK)
    assert lamp.observe(1 * SECOND, DARK, 0.0) == 1.0
    lamp.observe(round(after_s * SECOND), DARK + lamp_rate, 0.0)
    return lamp


def test_what_the_lamp_adds_is_taken_off_until_the_scene_is_bright_beside_it():
    lamp = lit()
    assert lamp.rate == pytest.approx(5.0)
    assert lamp.observe(60 * SECOND, 5.1, 0.0) * 5.1 == pytest.approx(DARK)
    assert lamp.observe(70 * SECOND, 5.5, 0.0) * 5.5 == pytest.approx(DARK)  # the lamp's own drift
    dawn = 5.0 * (1 + LEAST_SHARE) + 0.5
    assert lamp.observe(80 * SECOND, dawn, 0.0) * dawn == pytest.approx(dawn - 5.0)


def test_a_white_frame_after_the_switch_is_waited_out():
    lamp = OwnLamp()
    lamp.begin_night(0, DARK)
    for second in range(2, 60, 2):  # the ladder comes down from the exposure of the dark
        assert lamp.observe(second * SECOND, 0.9, 0.9) == 1.0
    assert lamp.observe(60 * SECOND, 5.1, 0.0) < 0.1


def test_a_light_that_comes_later_is_no_lamp_of_ours():
    lamp = OwnLamp()
    lamp.begin_night(0, DARK)
    for second in range(1, round(WATCH_S) + 3):
        lamp.observe(second * SECOND, DARK, 0.0)
    assert lamp.observe(30 * SECOND, 5.0, 0.0) == 1.0 and not lamp.rate


def test_a_lamp_that_goes_out_is_forgotten_and_so_is_one_at_day():
    lamp = lit()
    assert lamp.observe(90 * SECOND, 0.2, 0.0) == 1.0 and not lamp.rate  # a passing car, or the lamp broke
    assert lamp.observe(95 * SECOND, 5.0, 0.0) == 1.0
    lamp = lit()
    lamp.end_night()
    assert lamp.observe(100 * SECOND, 5.0, 0.0) == 1.0


def test_nothing_is_learned_of_a_scene_without_any_light():
    lamp = OwnLamp()
    lamp.begin_night(0, 0.0)
    assert lamp.observe(2 * SECOND, 1.0, 0.0) == 1.0 and lamp.observe(2 * SECOND, 0.0, 0.0) == 1.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_nights_lit_by_the_camera_itself_switch_as_often_as_the_sky():
    days = simulate(["own_lamp"], range(10), RULES)
    check(days, RULES)
    assert all(len(day.first_service) > 50 for day in days)
