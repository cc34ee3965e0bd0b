"""The throttle of viewers: its steps, the reasons for them, and that the stream obeys."""

import time
import urllib.request
from itertools import islice

from shmcam.control.client import ControlClient
from streamer.monitoring.throttle import HOLD_S, STEPS, Load, LoadLimits, Throttle
from tests.machine import PATIENCE, until
from tests.shmcam.hub.hubs import HubProcess
from tests.streamer.test_process import Camera, parts, streaming

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


def test_mjpeg_gives_way_to_a_recorder_that_is_behind_and_comes_back(tmp_path):
    """Whatever breaks in the chain from the recorder's heartbeat to the pictures, this sees it in the frames' times."""

    def is_throttled() -> bool:
        return b"\nshmcam_served_share 1.0\n" not in streamer.get("/metrics")[2]

    def mean_period_s(stream, pictures: int = 12) -> float:
        begun_s = time.time()  # what was sent before is in the socket still
        fresh = (at for headers, _ in stream if (at := float(headers["X-Timestamp"])) > begun_s)
        times = list(islice(fresh, pictures))
        return (times[-1] - times[0]) / (pictures - 1)

    with (
        HubProcess() as hub,
        streaming(tmp_path, f'[paths]\nrun = "{hub.socket.parent}"\n') as streamer,
        Camera(tmp_path, streamer.prefix),
        ControlClient("recorder", socket_path=hub.socket) as recorder,
        # 6 pictures a second: the camera gives more on a busy machine, too.
        urllib.request.urlopen(f"{streamer.url}/stream?fps=6", timeout=PATIENCE * 10) as response,
    ):
        stream = (part for part in parts(response) if "X-Signal" not in part[0])
        recorder.beat(behind_s=0.0)
        until(lambda: mean_period_s(stream) < 1.4 / 6, 10, "6 pictures a second")
        recorder.beat(behind_s=2.5)
        until(is_throttled, 10, "the streamer to give way")
        assert mean_period_s(stream) > 1.6 / 6
        recorder.beat(behind_s=0.0)
        until(lambda: not is_throttled() and mean_period_s(stream) < 1.4 / 6, 30, "all pictures again")
