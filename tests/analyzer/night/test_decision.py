"""The table of day and night: evidence, dwell, hold, lock-out, override, and that no input makes it flap."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.night.brightness import Brightness
from analyzer.night.decision import NEXT, Decision, Lock, NightSwitch, Reading, State, frame_of, reading_of
from analyzer.settings import NightSettings

RULES = NightSettings(dwell_s=5.0, hold_s=60.0, min_dark_frames=3, min_bright_frames=2, lockout_s=600.0)
SECOND = 1_000_000_000


def feed(switch: NightSwitch, level: float, start_s: float, seconds: float, step_s: float = 1.0) -> list[Decision]:
    """The same brightness for a while; returns the decisions."""
    count = round(seconds / step_s)
    found = (switch.update(level, level, level, round((start_s + n * step_s) * SECOND)) for n in range(count))
    return [one for one in found if one]


def test_every_state_has_an_answer_to_every_reading():
    assert set(NEXT) == {(state, reading) for state in State for reading in Reading}


def test_thresholds_are_exactly_the_users():
    assert reading_of(39.9, 39.9, RULES) is Reading.DARK
    assert reading_of(40.0, 40.0, RULES) is Reading.BETWEEN
    assert reading_of(80.0, 80.0, RULES) is Reading.BETWEEN
    assert reading_of(80.1, 80.1, RULES) is Reading.BRIGHT


def test_a_span_that_reaches_over_a_threshold_is_no_evidence():
    assert reading_of(10.0, 60.0, RULES) is Reading.BETWEEN
    assert reading_of(60.0, 255.0, RULES) is Reading.BETWEEN
    assert reading_of(10.0, 255.0, RULES) is Reading.BETWEEN


def test_night_begins_after_dwell_and_at_most_a_frame_later():
    switch = NightSwitch(RULES)
    assert feed(switch, 100.0, 0, 10) == []
    (decision,) = feed(switch, 20.0, 10, 30)
    assert decision.night
    delay_s = decision.captured_ns / SECOND - 10
    assert RULES.dwell_s <= delay_s <= RULES.dwell_s + 1.0
    assert "level=20.0<40" in decision.reason


def test_night_begins_only_after_enough_consecutive_frames():
    switch = NightSwitch(NightSettings(dwell_s=0.0, min_dark_frames=10))
    assert feed(switch, 20.0, 0, 0.9, 0.1) == []
    assert feed(switch, 60.0, 0.9, 0.1, 0.1) == []  # one frame of doubt
    assert feed(switch, 20.0, 1.0, 0.9, 0.1) == []
    assert len(feed(switch, 20.0, 1.9, 0.1, 0.1)) == 1


def test_a_short_darkness_changes_nothing():
    switch = NightSwitch(RULES)
    for start in range(0, 100, 10):
        assert feed(switch, 20.0, start, 4) == []
        assert feed(switch, 100.0, start + 4, 6) == []
    assert switch.state is State.DAY


def test_day_returns_above_the_bright_threshold_only():
    switch = NightSwitch(RULES, night=True)
    assert feed(switch, 70.0, 0, 100) == []
    (decision,) = feed(switch, 90.0, 100, 20)
    assert not decision.night
    assert not switch.is_night


def test_no_second_switch_within_hold_but_right_after_it():
    switch = NightSwitch(RULES)
    (night,) = feed(switch, 10.0, 0, 20)
    decisions = feed(switch, 200.0, 20, 120)
    assert len(decisions) == 1
    assert RULES.hold_s <= (decisions[0].captured_ns - night.captured_ns) / SECOND <= RULES.hold_s + 1


def test_three_switches_within_the_lockout_span_lock_the_mode():
    switch = NightSwitch(RULES)
    times = []
    for start in range(0, 3000, 100):  # somebody plays with the light switch, 100 s dark, 100 s bright
        level = 10.0 if (start // 100) % 2 == 0 else 200.0
        times += [one.captured_ns / SECOND for one in feed(switch, level, start, 100)]
    third = times[2]
    assert times[3] - third >= RULES.lockout_s
    assert switch.lock_at(round((third + 1) * SECOND)).seconds > 500
    assert switch.lock_at(round((third + 1) * SECOND)).key == "night.lockout_s"


def test_a_person_overrules_and_auto_carries_on():
    switch = NightSwitch(RULES)
    feed(switch, 100.0, 0, 5)
    forced = switch.force("on", 5 * SECOND)
    assert forced is not None and forced.night and forced.reason == "forced on"
    assert feed(switch, 200.0, 5, 200) == []
    assert switch.is_night
    assert switch.force("on", 205 * SECOND) is None  # it is night already
    assert switch.force("auto", 205 * SECOND) is None
    (day,) = feed(switch, 200.0, 205, 100)
    assert not day.night


@pytest.mark.parametrize(
    "presses", [("on", "off", "on", "auto"), ("off", "on", "auto"), ("on", "off") * 10 + ("on", "auto")]
)
def test_presses_of_a_button_do_not_lock_the_automatic_mode(presses):
    """A camera stayed in night mode in daylight for 20 minutes, and the answer named night.hold_s."""
    switch = NightSwitch(RULES)
    feed(switch, 100.0, 0, 5)
    for number, press in enumerate(presses):
        switch.force(press, (5 + number) * SECOND)
    assert switch.is_night and switch.lock_at((5 + len(presses)) * SECOND).seconds == 0
    (day,) = feed(switch, 200.0, 5 + len(presses), 20)
    assert not day.night
    assert switch.lock_at(day.captured_ns).key == "night.hold_s"  # its own switches still hold


def test_switching_night_off_in_the_settings_ends_the_night():
    switch = NightSwitch(RULES, night=True)
    switch.settings = NightSettings(enable=False)
    (decision,) = feed(switch, 5.0, 0, 10)
    assert not decision.night
    assert decision.reason == "night.enable = false"
    assert feed(switch, 5.0, 10, 100) == []


def test_frames_around_a_hole_are_not_consecutive():
    switch = NightSwitch(RULES)
    assert feed(switch, 20.0, 0, 3) == []
    assert switch.update(20.0, 20.0, 20.0, 600 * SECOND) is None  # capture was away for ten minutes
    assert feed(switch, 20.0, 601, 3) == []
    assert switch.update(20.0, 20.0, 20.0, 605 * SECOND) is not None


def test_long_exposures_are_consecutive_although_they_are_minutes_apart():
    switch = NightSwitch(NightSettings(exposure_us=200_000_000, min_bright_frames=2), night=True)
    assert switch.update(200.0, 200.0, 200.0, 0) is None
    assert switch.update(200.0, 200.0, 200.0, 201 * SECOND) is not None


def test_time_that_runs_backward_starts_again_and_cannot_lock_for_ever():
    switch = NightSwitch(RULES)
    feed(switch, 10.0, 10_000, 20)
    assert switch.is_night
    feed(switch, 10.0, 0, 5)  # a replay began again
    assert switch.lock_at(5 * SECOND).seconds == 0.0
    (day,) = feed(switch, 200.0, 5, 20)
    assert not day.night


@settings(max_examples=300, deadline=None)
@given(
    levels=st.lists(st.tuples(st.floats(0, 255), st.floats(0.02, 30.0)), min_size=1, max_size=400),
    dark=st.floats(1, 120),
    gap=st.floats(0.5, 100),
    dwell_s=st.floats(0, 20),
    hold_s=st.floats(0, 300),
)
def test_no_brightness_whatever_makes_two_switches_within_hold(levels, dark, gap, dwell_s, hold_s):
    rules = NightSettings(dark_threshold=dark, bright_threshold=dark + gap, dwell_s=dwell_s, hold_s=hold_s)
    switch, now_s, switches = NightSwitch(rules), 0.0, []
    for level, step_s in levels:
        now_s += step_s
        before = switch.is_night
        if decision := switch.update(level, level, level, round(now_s * SECOND)):
            assert decision.night is not before
            switches.append(now_s)
        assert switch.lock_at(round(now_s * SECOND)).seconds <= max(hold_s, rules.lockout_s)
    assert all(later - earlier >= hold_s - 1e-6 for earlier, later in itertools.pairwise(switches))


@settings(max_examples=200, deadline=None)
@given(dark=st.floats(1, 150), gap=st.floats(0.5, 100), level=st.floats(0, 255), period_s=st.floats(0.01, 2.5))
def test_a_steady_brightness_is_answered_within_dwell_and_the_frames_asked_for(dark, gap, level, period_s):
    rules = NightSettings(dark_threshold=dark, bright_threshold=dark + gap)
    switch = NightSwitch(rules, night=level > dark)
    frames, found = 0, None
    while found is None and frames < 2000:
        found = switch.update(level, level, level, round(frames * period_s * SECOND))
        frames += 1
        if dark <= level <= dark + gap and frames > 50:
            assert switch.is_night is (level > dark)
            return
    assert found is not None
    needed = rules.min_dark_frames if found.night else rules.min_bright_frames
    assert (frames - 1) * period_s <= max(rules.dwell_s, (needed - 1) * period_s) + period_s


@pytest.mark.parametrize(("dark", "bright"), [(80.0, 40.0), (50.0, 50.0)])
def test_crossed_thresholds_are_refused_with_both_numbers(dark, bright):
    with pytest.raises(ValueError, match=f"dark_threshold = {dark:g} must be below bright_threshold = {bright:g}"):
        NightSettings(dark_threshold=dark, bright_threshold=bright)


def test_a_decision_has_its_frame_and_its_numbers_with_their_limit():
    switch = NightSwitch(RULES)
    assert feed(switch, 20.04, 10, 20) == [Decision(True, 15 * SECOND, "level=20.0<40 frames=6 for=5.0s")]
    assert feed(switch, 200.0, 100, 20) == [Decision(False, 105 * SECOND, "level=200.0>80 frames=6 for=5.0s")]


@pytest.mark.parametrize(("factor", "seconds"), [((), 5), ((1.0,), 5), ((2.0,), 10), ((0.2,), 2)])
def test_the_dwell_is_multiplied_where_the_brightness_is_less_trustworthy(factor, seconds):
    """The last row: three dark frames are needed in any case."""
    switch = NightSwitch(RULES)
    decided_s = [at for at in range(30) if switch.update(20.0, 20.0, 20.0, at * SECOND, *factor)]
    assert decided_s == [seconds]


def test_day_needs_its_own_number_of_frames():
    switch = NightSwitch(NightSettings(dwell_s=0.0, min_dark_frames=3, min_bright_frames=2), night=True)
    assert [bool(switch.update(200.0, 200.0, 200.0, at * SECOND)) for at in range(3)] == [False, True, False]


@pytest.mark.parametrize(
    ("keys", "switches_s", "lock"),
    [
        ({}, (), Lock(0.0)),
        ({}, (0, 50), Lock(9.0, "night.hold_s")),
        ({}, (0, 50, 100), Lock(99.0, "night.lockout_s")),
        ({}, (0, 50, 100 + 1e-9), Lock(9.0, "night.hold_s")),  # one nanosecond beyond the span
        ({}, (0, 200, 250, 300), Lock(99.0, "night.lockout_s")),
        ({}, (0, 10, 20, 300), Lock(9.0, "night.hold_s")),
        ({"lockout_switches": 0}, (0, 50, 100), Lock(9.0, "night.hold_s")),
        ({"lockout_s": 10.0}, (0, 10), Lock(9.0, "night.hold_s")),
        ({"lockout_s": 10.0, "lockout_switches": 2}, (0, 10), Lock(9.0, "night.hold_s")),  # no longer than the hold
    ],
)
def test_the_lock_after_switches_at_these_times(keys, switches_s, lock):
    rules = {"dwell_s": 0.0, "hold_s": 10.0, "lockout_switches": 3, "lockout_s": 100.0, **keys}
    switch = NightSwitch(NightSettings(min_dark_frames=1, min_bright_frames=1, **rules))
    for number, at_s in enumerate(switches_s):
        level = 200.0 if number % 2 else 10.0
        decision = switch.update(level, level, level, round(at_s * SECOND))
        assert decision and decision.night is (number % 2 == 0)
    last_s = switches_s[-1] if switches_s else 0
    found = switch.lock_at(round((last_s + 1) * SECOND))
    assert (found.seconds, found.key) == (pytest.approx(lock.seconds, abs=1e-12), lock.key)
    assert switch.lock_at(round((last_s + 200) * SECOND)).seconds == 0.0


@pytest.mark.parametrize(
    ("keys", "gap_s"), [({}, 10), ({"dwell_s": 25.0}, 25), ({"dwell_s": 1.0, "exposure_us": 20_000_000}, 60)]
)
@pytest.mark.parametrize("night", [False, True])
def test_frames_are_consecutive_up_to_the_longest_gap_and_not_a_nanosecond_more(keys, gap_s, night):
    level = 200.0 if night else 10.0
    for more_ns in (0, 1):
        switch = NightSwitch(NightSettings(min_dark_frames=2, min_bright_frames=2, **keys), night=night)
        assert switch.update(level, level, level, 7 * SECOND) is None
        decision = switch.update(level, level, level, (7 + gap_s) * SECOND + more_ns)
        assert bool(decision) is (more_ns == 0)
        assert switch.is_night is (night is not bool(decision))


def test_two_frames_of_one_instant_are_no_jump_backward():
    switch = NightSwitch(NightSettings(dwell_s=0.0, hold_s=60.0, min_dark_frames=2))
    assert [bool(switch.update(10.0, 10.0, 10.0, SECOND)) for _ in range(2)] == [False, True]
    switch.update(200.0, 200.0, 200.0, SECOND)
    assert switch.lock_at(SECOND) == Lock(60.0, "night.hold_s")


def test_an_order_and_its_end_start_the_evidence_anew():
    switch = NightSwitch(RULES)
    assert switch.force("off", 0) is None, "it is day already"
    assert switch.force("on", SECOND) == Decision(True, SECOND, "forced on")
    assert switch.force("off", 2 * SECOND) == Decision(False, 2 * SECOND, "forced off")
    switch.force("auto", 3 * SECOND)
    assert feed(switch, 20.0, 3, 5) == []
    assert switch.force("auto", 8 * SECOND) is None
    (night,) = feed(switch, 20.0, 8, 20)
    assert night.captured_ns == 13 * SECOND
    assert feed(switch, 200.0, 100, 3) == []
    switch.force("auto", 103 * SECOND)
    assert switch.state is State.NIGHT and switch.is_night
    (day,) = feed(switch, 200.0, 103, 20)
    assert day.captured_ns == 108 * SECOND


def test_night_switched_off_in_the_settings_says_when():
    switch = NightSwitch(NightSettings(enable=False), night=True)
    assert switch.update(5.0, 5.0, 5.0, 7) == Decision(False, 7, "night.enable = false")


def test_one_frame_is_taken_out_of_a_batch():
    batch = Brightness(np.array([1.0, 2.0]), np.array([0.5, 1.5]), np.array([1.25, 2.25]))
    assert frame_of(batch) == (1.0, 0.5, 1.25)
    assert frame_of(batch, 1) == (2.0, 1.5, 2.25)
    assert all(type(value) is float for value in frame_of(batch))
