"""Plug-ins in their own processes: whatever the user's function does costs only itself."""

import os
import signal
import time
import uuid

import numpy as np
import pytest

from analyzer.plugins.host import Plugins
from analyzer.plugins.worker import check_result
from analyzer.settings import AnalyzerSettings
from shm_ring import FrameMeta, RingWriter
from shm_ring.formats import geometry

PLUGIN = """
import os, time

def mean(frame):
    return {"mean": float(frame.luma.mean()), "frame": frame.frame_id, "odd": frame.frame_id % 2 == 1}

def raises(frame):
    raise ValueError("no such star")

def hangs(frame):
    while True:
        time.sleep(1)

def garbage(frame):
    return [1, 2, 3]

def dies(frame):
    os._exit(3)

def hungry(frame):
    return {"size": len(bytearray(4 << 30))}

def writes(frame):
    frame.payload[0] = 1
    return {}

def prints(frame):
    print("{\\"result\\": 1}" * 10)
    return {"ok": 1}

def moody(frame):
    if frame.frame_id % 2:
        raise RuntimeError("odd")
    return {"even": frame.frame_id}
"""


@pytest.fixture
def ring(tmp_path):
    name = f"test{uuid.uuid4().hex[:10]}"
    shape = geometry("gray", 64, 48)
    lock_dir = tmp_path / "run"
    lock_dir.mkdir()
    with RingWriter.create(
        f"/{name}.cam0.main",
        slots=8,
        payload_bytes=shape.payload_bytes,
        lock_dir=lock_dir,
        camera="cam0",
        stream="main",
    ) as writer:
        yield Feeder(writer, shape)


class Feeder:
    def __init__(self, writer, shape):
        self.writer, self.shape, self.frame_id = writer, shape, 0

    def publish(self):
        picture = np.full(self.shape.payload_bytes, self.frame_id % 200, np.uint8)
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.writer.publish(picture, FrameMeta(self.frame_id, now_ns, time.time_ns()), self.shape)
        self.frame_id += 1


def run(ring, tmp_path, functions, until, timeout_s=75.0, **more):
    """Poll plug-ins while frames come, until `until(plugins)`. Returns (plugins' states, longest poll in s)."""
    (tmp_path / "plugins").mkdir(exist_ok=True)
    (tmp_path / "plugins" / "mine.py").write_text(PLUGIN)
    settings = AnalyzerSettings(plugins=tuple(f"mine:{name}" for name in functions), plugin_fps=50.0, **more)
    longest_s, deadline = 0.0, time.monotonic() + timeout_s
    with Plugins(settings, ring.writer.name, tmp_path) as plugins:
        while not until(plugins):
            assert time.monotonic() < deadline, plugins.states
            ring.publish()
            before = time.monotonic()
            plugins.poll()
            longest_s = max(longest_s, time.monotonic() - before)
            time.sleep(0.01)
        pids = [plugin._child.pid for plugin in plugins._plugins if plugin._child]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    return plugins, longest_s


def test_a_plugin_s_numbers_arrive(ring, tmp_path):
    plugins, _ = run(ring, tmp_path, ["mean"], lambda one: one.results.get("mine:mean", {}).get("frame", 0) > 20)
    result = plugins.results["mine:mean"]
    assert result["mean"] == result["frame"] % 200
    assert result["odd"] == (result["frame"] % 2 == 1)
    assert plugins.states["mine:mean"] == "running"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("raises", "ValueError: no such star"),
        ("garbage", "TypeError: score() returned list; expected a dict of numbers"),
        ("dies", "exited with code 3"),
        ("hungry", "MemoryError"),
        ("writes", "ValueError: assignment destination is read-only"),
        ("nothere", "has no attribute 'nothere'"),
    ],
)
def test_a_bad_plugin_is_reported_and_its_neighbour_goes_on(ring, tmp_path, bad, says):
    def both(plugins):
        neighbour = plugins.results.get("mine:mean", {}).get("frame", 0)
        return says in plugins.states[f"mine:{bad}"] and neighbour > 10

    plugins, longest_s = run(ring, tmp_path, [bad, "mean"], both)
    assert f"mine:{bad}" not in plugins.results
    assert plugins.trouble.startswith(f"plug-in mine:{bad}: ") and "mine:mean" not in plugins.trouble
    assert longest_s < 10.0  # a start costs a fork; a hang would cost for ever


def test_a_hanging_plugin_is_killed_and_started_again_and_costs_nobody_else(ring, tmp_path):
    def restarted(plugins):
        return plugins._plugins[0].restarts >= 2 and plugins.results.get("mine:mean", {}).get("frame", 0) > 100

    plugins, _ = run(ring, tmp_path, ["hangs", "mean"], restarted, plugin_timeout_s=0.5)
    assert "hung" in plugins.states["mine:hangs"] or plugins.states["mine:hangs"] == "starting"


def test_what_a_plugin_prints_is_not_taken_for_its_result(ring, tmp_path):
    plugins, _ = run(ring, tmp_path, ["prints"], lambda one: bool(one.results))
    assert plugins.results["mine:prints"] == {"ok": 1}


def test_a_plugin_that_raises_now_and_then_works_now_and_then(ring, tmp_path):
    seen = set()

    def both(plugins):
        seen.add(plugins.states["mine:moody"])
        return {"running", "RuntimeError: odd"} <= seen

    run(ring, tmp_path, ["moody"], both)


def test_a_plugin_killed_from_outside_comes_back(ring, tmp_path):
    killed = []

    def back(plugins):
        child = plugins._plugins[0]._child
        if not killed and plugins.results:
            os.kill(child.pid, signal.SIGKILL)
            killed.append(child.pid)
        return bool(killed) and bool(plugins.results) and child is not None and child.pid not in killed

    run(ring, tmp_path, ["mean"], back)


def test_a_plugin_without_frames_is_not_taken_for_hanging(ring, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(PLUGIN)
    settings = AnalyzerSettings(plugins=("mine:mean",), plugin_timeout_s=0.8)
    with Plugins(settings, ring.writer.name, tmp_path) as plugins:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            plugins.poll()
            time.sleep(0.02)
        assert plugins._plugins[0].restarts == 0


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (None, "NoneType"),
        ("text", "str"),
        ({1: 2}, "a name 1"),
        ({"": 2}, "a name ''"),
        ({"x" * 33: 2}, "1 to 32 characters"),
        ({"x": object()}, "x = object"),
        ({"x": [1]}, "x = list"),
        ({"x": 1 << 70}, "beyond 64 bits"),
        ({str(n): n for n in range(33)}, "33 items; at most 32"),
    ],
)
def test_garbage_is_named(result, says):
    with pytest.raises(TypeError, match=says):
        check_result(result)


def test_numpy_numbers_nan_and_long_texts_are_made_fit_to_travel():
    given = {"a": np.float32(1.5), "b": np.int64(3), "c": float("nan"), "d": "x" * 100, "e": np.bool_(True), "f": None}
    assert check_result(given) == {"a": 1.5, "b": 3, "c": None, "d": "x" * 64, "e": True, "f": None}


@pytest.mark.parametrize("name", ["nomodule", "a:b:c", "a.b:", ":f", "a b:c", "os;x:y"])
def test_names_that_are_no_functions_are_refused(name):
    with pytest.raises(ValueError, match="must be module:function"):
        AnalyzerSettings(plugins=(name,))
