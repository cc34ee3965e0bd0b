"""kill -9 of each process in turn while the whole pipeline records: the others lose nothing, all come back."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from shm_ring import RingError, RingReader
from tests.machine import until, within
from tests.pipeline import Pipeline
from tests.reading import numbers_in_clip, stream_parts

SMALL = {"width": 320, "height": 240}
RECORDING = {"auto_start": True, "mode": "session", "preset": "ultrafast"}


class Watcher(threading.Thread):
    """A reader of its own: the frame ids in the ring, in order, with what it missed."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(daemon=True)
        self.ids: list[int] = []
        self.done = False
        self._name = pipeline.ring_name()

    def run(self) -> None:
        with RingReader.open(self._name) as ring:
            sequence = ring.head
            while not self.done:
                if not ring.wait(sequence, 0.2):
                    continue
                try:
                    self.ids.append(ring.meta(sequence).frame_id)
                except RingError:
                    self.ids.append(-1)
                sequence += 1

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done = True
        self.join(10)


@pytest.fixture(scope="module")
def shmcam():
    with Pipeline(night={"enable": False}, recorder=RECORDING) as pipeline:
        pipeline.wait_running()
        yield pipeline


def clips(shmcam):
    return sorted(path for path in (shmcam.folder / "recordings").rglob("*.mp4") if path.stat().st_size)


@pytest.mark.parametrize("victim", ["streamer", "analyzer", "exporter", "hub", "watchdog", "recorder"])
def test_killing_a_consumer_costs_nobody_a_frame(shmcam, victim):
    capture = shmcam.pid("capture")
    with Watcher(shmcam) as watcher:
        until(lambda: len(watcher.ids) > 10, 20, "frames before the kill")
        dead = shmcam.kill(victim)
        until(lambda: shmcam.pid(victim) not in (0, dead), 15, f"{victim} to be started again")
        until(lambda: len(watcher.ids) > 60, 20, "frames after the kill")
    ids = watcher.ids
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert shmcam.pid("capture") == capture
    until(lambda: shmcam.text("ping") and "ERROR" not in shmcam.text("save"), 20, f"commands after killing {victim}")


def test_viewers_stay_connected_while_capture_is_killed(shmcam):
    parts = stream_parts(f"{shmcam.url}/stream", 30)
    before = int(next(parts)[0]["x-frame-id"])
    dead = shmcam.kill("capture")
    for headers, _ in parts:
        # frame ids go on where the dead writer stopped: the new one takes its segment over
        if shmcam.pid("capture") not in (0, dead) and int(headers["x-frame-id"]) > before + 60:
            break
    assert "ERROR" not in shmcam.text("save")


def test_every_clip_that_the_kills_left_behind_plays_and_has_no_hole(shmcam):
    assert shmcam.text("record stop", 30)
    found = until(lambda: clips(shmcam), 20, "clips")
    for clip in found:
        numbers = [number for number in numbers_in_clip(clip) if number is not None]
        assert numbers, f"{clip} has no frame"
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(found) >= 2


@pytest.mark.parametrize("how", ["its name is removed", "its header is overwritten"])
@pytest.mark.parametrize("stream", ["main", "scores", "h264"])
def test_a_ring_that_another_program_spoils_is_made_anew(shmcam, stream, how):
    """`rm /dev/shm/...`, or a program that writes there: the writer went on where no reader could follow."""
    segment = Path("/dev/shm") / shmcam.ring_name(stream=stream).lstrip("/")
    shmcam.text("watch seconds=60")
    until(segment.exists, 20, f"a ring {stream}")
    before = segment.stat().st_ino
    if how == "its name is removed":
        segment.unlink()
    else:
        with segment.open("r+b") as file:
            file.write(b"not a ring")
    with within(2.0):  # docs/faults.md, 15
        until(lambda: segment.exists() and segment.stat().st_ino != before, 20, f"a new ring {stream}")
    until(lambda: shmcam.frames(stream=stream) > 3, 30, f"frames in the new {stream}")
    until(lambda: shmcam.text("save").startswith("Saved"), 20, "pictures")


def test_a_plain_kill_is_healed_like_any_other(shmcam):
    dead = shmcam.kill("exporter", signal.SIGTERM)
    until(lambda: shmcam.pid("exporter") not in (0, dead), 15, "the exporter to be started again")


def test_a_killed_supervisord_takes_its_children_along_and_starts_again(tmp_path):
    with Pipeline(camera=SMALL, night={"enable": False}) as pipeline:
        pipeline.wait_running("capture", "hub")
        pids = {name: pipeline.pid(name) for name in pipeline.states()}
        pipeline.kill_supervisord()
        import psutil

        until(lambda: not any(psutil.pid_exists(pid) for pid in pids.values()), 10, "children to die with it")
        pipeline.start()
        pipeline.wait_running()
        assert "FATAL" not in pipeline.supervisorctl("status")
        assert sorted(pipeline.states()) == sorted(pids)


def test_a_stop_takes_the_ring_of_a_killed_capture_along(tmp_path):
    with Pipeline(camera=SMALL, night={"enable": False}) as pipeline:
        pipeline.wait_running("capture", "hub")
        pipeline.kill("capture", signal.SIGSTOP)  # it cannot end by itself: supervisord kills it at the stop
        assert pipeline.segments()
        pipeline.stop()  # says what is left in /dev/shm


def test_a_stopped_capture_is_reported_then_replaced(tmp_path):
    with Pipeline(camera=SMALL, night={"enable": False}, control={"hang_kill_s": 6.0}) as pipeline:
        pipeline.wait_running()
        hung = pipeline.kill("capture", signal.SIGSTOP)
        with within(8.0):  # docs/faults.md, 6: two after hang_kill_s
            with within(5.0):
                until(lambda: "capture" in pipeline.text("health") and _complains(pipeline), 15, "a report of the hang")
            until(lambda: pipeline.pid("capture") not in (0, hung), 40, "the hung capture to be replaced")
        head = pipeline.frames()
        until(lambda: pipeline.frames() > head, 20, "frames again")


@pytest.mark.slow
def test_a_stopped_capture_is_replaced_while_hub_and_watchdog_keep_dying():
    """Each death of the hub or the watchdog began the 20 s anew: after 81 s the stopped capture was still there."""
    with Pipeline(camera=SMALL, night={"enable": False}) as pipeline:
        pipeline.wait_running()
        hung, since_s = pipeline.kill("capture", signal.SIGSTOP), time.monotonic()
        pipeline.kill("watchdog")
        while pipeline.pid("capture") in (0, hung):
            pipeline.kill("hub")
            time.sleep(4)  # the fault: a hub that lives for 4 s
            assert time.monotonic() - since_s < 40, pipeline.logs("watchdog")
        head = pipeline.frames()
        until(lambda: pipeline.frames() > head, 20, "frames again")
        assert "capture killed: neither frame nor heartbeat in its ring" in pipeline.logs("watchdog")


def _complains(pipeline: Pipeline) -> bool:
    health = pipeline.text("health").lower()
    return any(word in health for word in ("stall", "hung", "hang", "silent", "no heartbeat", "stale", "lost"))
