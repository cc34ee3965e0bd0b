"""By how much a promise of time is stretched: the load of the machine, and no more."""

import pytest

from tests import machine
from tests.machine import Deadline, Load, slowdown_of, within


@pytest.mark.parametrize(
    ("wanted", "took_s", "stolen_s", "factor"),
    [
        ([1] * 20, 1.0, 0.0, 1.0),  # its own machine
        ([2] * 20, 1.0, 0.0, 1.0),  # both cores busy
        ([8] * 20, 1.0, 0.0, 4.0),
        ([2] * 20, 1.0, 1.0, 2.0),  # half of two cores was stolen
        ([8] * 20, 1.0, 1.0, 8.0),
        ([2] * 20, 4.0, 0.0, 4.0),  # the host stood still for three of four seconds
        ([2] * 20, 4.0, 6.0, 4.0),  # and says so
        ([0], 0.01, 0.0, 1.0),
    ],
)
def test_work_takes_longer_by_what_others_take(wanted, took_s, stolen_s, factor):
    assert slowdown_of(wanted, 0.05, took_s=took_s, stolen_s=stolen_s, cores=2) == pytest.approx(factor)


def test_a_promise_that_is_not_kept_fails_and_says_the_load(monkeypatch):
    monkeypatch.setattr(Load, "factor", 1.0)
    with pytest.raises(AssertionError, match=r"promised within 0\.0 s \(load 1\.0 a core\)"), within(0.0):
        pass


def test_the_end_of_a_wait_comes_later_the_more_wants_the_cores(monkeypatch):
    now_s, wanted = 0.0, 1
    monkeypatch.setattr(machine.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(machine, "_count_wanted", lambda: wanted)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    deadline = Deadline(10)
    now_s = 29.0
    assert not deadline.has_passed()
    now_s, wanted = 38.0, 20  # beside ten for each core nine seconds are 0.9
    assert not deadline.has_passed()
    now_s, wanted = 38.2, 1
    assert deadline.has_passed() and str(deadline) == "not within 30 s of an idle machine, 38.2 s here"
