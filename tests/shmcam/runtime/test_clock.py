"""The frame rate that each process shows, and the error of the wall clock."""

from __future__ import annotations

import pytest

from shmcam.runtime import clock
from shmcam.runtime.clock import ClockError, RateMeter, read_clock_error, read_clock_error_us

PERIOD_NS = 33_333_333
S = 10**9


def meter_after(times, intervals: int = 31, window_s: float = 3600.0) -> RateMeter:
    meter = RateMeter(intervals, window_s=window_s)
    for at_ns in times:
        meter.add(at_ns)
    return meter


@pytest.mark.parametrize("frames", [2, 10, 1000])
def test_a_steady_camera_shows_its_rate(frames):
    meter = meter_after(number * PERIOD_NS for number in range(frames))
    assert meter.per_s == pytest.approx(30, rel=1e-6) and meter.period_ns == PERIOD_NS
    assert meter.newest_ns == (frames - 1) * PERIOD_NS


@pytest.mark.parametrize("times", [[], [7]])
def test_one_frame_has_no_rate(times):
    assert meter_after(times).per_s == 0 and meter_after(times).period_ns == 0


def test_only_the_newest_intervals_count():
    meter = meter_after([0, 100 * S, *(100 * S + number * S for number in range(1, 5))], intervals=4)
    assert meter.per_s == 1


def test_a_pause_that_was_announced_is_no_interval():
    meter = meter_after([0, S])
    meter.clear()
    assert meter.per_s == 0 and meter.newest_ns is None
    meter.add(100 * S)
    meter.add(101 * S)
    assert meter.per_s == 1


def test_a_clock_that_went_back_begins_anew():
    meter = meter_after([10 * S, 11 * S, 3 * S])
    assert meter.per_s == 0
    meter.add(5 * S)
    assert meter.per_s == 0.5


def test_what_is_older_than_the_window_does_not_slow_the_rate():
    """A night of long exposures ends: a second later the day's rate is shown."""
    night = [number * 30 * S for number in range(20)]
    day = [night[-1] + number * S // 10 for number in range(1, 12)]
    assert meter_after([*night, *day], window_s=1.0).per_s == 10


def test_one_interval_longer_than_the_window_still_counts():
    assert meter_after([0, 2 * S, 4 * S], window_s=1.0).per_s == 0.5


def test_frames_in_between_that_are_not_looked_at_count_by_their_numbers():
    meter = RateMeter(window_s=1.0)
    for number in range(100, 200, 15):
        meter.add(number * PERIOD_NS, number)
    assert meter.per_s == pytest.approx(30, rel=1e-6)


def test_numbers_that_jump_begin_anew():
    """After a power cut frame ids go on 200,000 further."""
    meter = RateMeter()
    for number in (0, 1, 2, 200_003, 200_004):
        meter.add(number % 1000 * PERIOD_NS, number)
    assert meter.per_s == pytest.approx(30, rel=1e-6)


def test_the_kernel_tells_how_wrong_the_wall_clock_may_be():
    error = read_clock_error()
    assert error is None or (error.max_us >= 0 and error.estimated_us >= 0)


@pytest.mark.parametrize(
    ("answer", "status", "error", "max_us"),
    [
        (0, 0x2001, ClockError(True, 20, 1500), 1500),
        (0, 0x0040, ClockError(False, 20, 1500), None),
        (clock.TIME_ERROR, 0, ClockError(False, 20, 1500), None),
        (-1, 0, None, None),
    ],
)
def test_only_a_clock_that_an_ntp_client_has_set_has_an_error(monkeypatch, answer, status, error, max_us):
    class Libc:
        def __init__(self, *_args, **_kwargs):
            pass

        def adjtimex(self, pointer):
            timex = pointer._obj
            assert timex.modes == 0  # reading only
            timex.maxerror, timex.esterror, timex.status = 1500, 20, status
            return answer

    monkeypatch.setattr(clock.ctypes, "CDLL", Libc)
    assert read_clock_error() == error
    assert read_clock_error_us() == max_us
