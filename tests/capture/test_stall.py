"""The instant at which a late frame is told: decided from the time waited, without a clock."""

from types import SimpleNamespace

import pytest

from capture.loop import CaptureLoop
from capture.settings import CameraSettings
from capture.sources.base import CameraError


class Told:
    """Stands for rings and status; remembers the states."""

    shortage = ""

    def __init__(self):
        self.states = []

    def heartbeat(self):
        pass

    def beat(self, state, reason="", publisher=None):
        self.states.append((state, reason))


def check(waited_s, *, period_s=1 / 30, stalled=False, frames=1, **keys):
    """Returns what is told of a frame that has not come for so long, and whether it counts as a stall."""
    told = Told()
    loop = SimpleNamespace(rings=told, status=told, desired=SimpleNamespace(camera=CameraSettings(**keys)))
    publisher = SimpleNamespace(period_s=period_s, frames=frames)
    stalled = CaptureLoop._check_stall(loop, publisher, waited_s, stalled)
    return *told.states[-1], stalled


@pytest.mark.parametrize(
    ("timeout_s", "period_s", "told_after_s"),
    [
        (CameraSettings().capture_timeout_s, 1 / 30, CameraSettings().capture_timeout_s),
        (1.0, 1 / 30, 1.0),
        (1.0, 1.0, 3.0),
        (1.0, 0.25, 1.0),
    ],
)
def test_a_stall_is_told_at_capture_timeout_s_or_three_periods_and_no_later(timeout_s, period_s, told_after_s):
    keys = {"capture_timeout_s": timeout_s, "period_s": period_s, "lost_after_s": 60.0}
    assert check(told_after_s - 0.01, **keys) == ("running", "", False)
    assert check(told_after_s - 0.01, frames=0, **keys) == ("starting", "", False)
    state, reason, stalled = check(told_after_s + 0.01, **keys)
    assert (state, stalled) == ("stalled", True)
    assert reason == f"no frame for {told_after_s + 0.01:.1f} s"
    assert check(told_after_s + 0.01, stalled=True, **keys)[0] == "stalled"


def test_it_is_logged_once(caplog):
    check(1.5, capture_timeout_s=1.0)
    check(1.7, capture_timeout_s=1.0, stalled=True)
    assert [record.message for record in caplog.records] == ["slow capture: no frame for 1.5 s capture_timeout_s=1.0"]


@pytest.mark.parametrize(("period_s", "lost_after_s", "limit_s"), [(1 / 30, 2.0, 2.0), (1.0, 2.0, 5.0)])
def test_a_camera_is_lost_after_lost_after_s_or_five_periods(period_s, lost_after_s, limit_s):
    keys = {"capture_timeout_s": 1.0, "period_s": period_s, "lost_after_s": lost_after_s}
    assert check(limit_s - 0.01, **keys)[0] == "stalled"
    with pytest.raises(CameraError, match=f"no frame for {limit_s:.1f} s"):
        check(limit_s + 0.01, **keys)
