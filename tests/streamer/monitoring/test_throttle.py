"""The throttle of viewers: its steps and the reasons for them."""

from streamer.monitoring.throttle import HOLD_S, STEPS, Load, LoadLimits, Throttle

LIMITS = LoadLimits(90.0, 1.0)


def test_viewers_are_slowed_step_by_step_and_the_reason_is_told():
    throttle = Throttle()
    shares = []
    for step in range(5):
        throttle.update(Load(97.0, 0.0), LIMITS, step * (HOLD_S + 1))
        shares.append(throttle.share)
    assert shares == [*STEPS[1:], STEPS[-1], STEPS[-1]]
    assert throttle.reason == "CPU load is 97 % (limit 90 %)"


def test_a_recorder_that_is_behind_comes_first_whatever_the_load():
    throttle = Throttle()
    assert throttle.update(Load(10.0, 2.5), LIMITS, 0.0)
    assert throttle.reason == "recorder is 2.5 s behind (limit 1 s)"


def test_the_rate_does_not_swing():
    """Between the limits nothing moves, and no step follows another at once."""
    throttle = Throttle()
    throttle.update(Load(97.0, 0.0), LIMITS, 0.0)
    assert not throttle.update(Load(97.0, 0.0), LIMITS, 1.0)
    assert not throttle.update(Load(80.0, 0.0), LIMITS, 100.0), "below the limit, but not calm"
    assert throttle.update(Load(20.0, 0.0), LIMITS, 200.0)
    assert (throttle.share, throttle.reason) == (1.0, "")
