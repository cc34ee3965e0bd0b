"""The analyzer under faults: stopped, starved, without a hub, without a ring."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shm_ring import FrameMeta, RingReader, RingWriter
from shm_ring.formats import geometry
from shm_ring.records.scores import Scores
from shmcam.config.settings import Settings
from tests.machine import until, within
from tests.pipeline import Pipeline
from tests.programs import Program


class Alone:
    """An analyzer process and a ring written by the test; no hub at all."""

    def __init__(self, **tables):
        self.world = Pipeline(**tables)
        self.settings = Settings.load(self.world.config, environ={})
        self.shape = geometry("yuv420p", 320, 240)
        self.frame_id = 0

    def __enter__(self):
        (self.world.folder / "run").mkdir()
        self.writer = self.make_ring(8)
        self.child = self.start()
        return self

    def __exit__(self, *error):
        self.child.send_signal(signal.SIGCONT)
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(60)
        self.writer.retire()
        self.world.stop()
        assert code == 0

    def make_ring(self, slots, shape=None):
        return RingWriter.create(
            self.world.ring_name(),
            slots=slots,
            payload_bytes=(shape or self.shape).payload_bytes,
            lock_dir=self.world.run,
            camera="cam0",
            stream="main",
        )

    def start(self):
        command = [sys.executable, "-m", "analyzer", "--config", str(self.world.config)]
        return Program(command, cwd=self.world.folder)

    def publish(self, value=100):
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        meta = FrameMeta(self.frame_id, now_ns, time.time_ns(), 10_000, 1.0)
        self.writer.publish(np.full(self.shape.payload_bytes, value, np.uint8), meta, self.shape)
        self.frame_id += 1

    def scored(self, at_least, seconds=20.0):
        """Publish until a record of frame `at_least` or later is there."""

        def one():
            self.publish()
            newest = scores.latest()
            return newest if newest and newest.frame_id >= at_least else None

        with Scores(self.world.ring_name(stream="scores")) as scores:
            return until(one, seconds, lambda: self.world.logs("analyzer"))


def test_without_a_hub_frames_are_scored_all_the_same():
    with Alone() as alone:
        assert alone.scored(20).dark_score == 100


def test_stopped_for_a_while_it_goes_on_with_the_newest_frame_and_counts_the_gap():
    with Alone() as alone:
        alone.scored(10)
        os.kill(alone.child.pid, signal.SIGSTOP)
        for _ in range(200):
            alone.publish()
        os.kill(alone.child.pid, signal.SIGCONT)
        newest = alone.scored(alone.frame_id)
        assert newest.frame_id > 200
        alone.child.send_signal(signal.SIGTERM)
        alone.child.wait(60)
        assert "skipped=0" not in alone.world.logs("analyzer").splitlines()[-2]


def test_a_new_generation_of_another_size_is_followed_within_two_seconds():
    with Alone() as alone:
        alone.scored(10)
        alone.writer.retire()
        alone.shape = geometry("nv12", 641, 361)
        alone.writer = alone.make_ring(4)
        with within(2.0):
            alone.scored(alone.frame_id + 3)


def test_killed_mid_record_the_next_one_takes_the_ring_over_and_readers_notice_nothing():
    with Alone() as alone:
        first = alone.scored(20)
        with RingReader.open(alone.world.ring_name(stream="scores")) as reader:
            for _ in range(3):
                alone.child.kill()
                alone.child.wait()
                alone.child = alone.start()
                alone.scored(alone.frame_id + 5)
            assert not reader.retired
            assert reader.takeovers == 3
            with Scores(alone.world.ring_name(stream="scores")) as scores:
                assert scores.nearest(first.frame_id).captured_ns == first.captured_ns


def test_a_second_analyzer_is_refused_naming_the_first():
    with Alone() as alone:
        alone.scored(5)
        second = alone.start()
        assert second.wait(60) not in (0, 78)
        assert str(alone.child.pid) in alone.world.logs("analyzer")
        alone.scored(alone.frame_id + 5)


def test_a_wrong_setting_ends_it_with_78_and_one_line(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("[night]\ndark_threshold = 90\nbright_threshold = 80\n")
    command = [sys.executable, "-m", "analyzer", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 78
    assert "dark_threshold = 90 must be below bright_threshold = 80" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_memory_stays_flat_over_thousands_of_frames():
    def resident(pid):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def feed(alone, frames):
        for _ in range(frames):
            alone.publish()
            time.sleep(0.003)
        alone.scored(alone.frame_id)

    with Alone() as alone:
        feed(alone, 300)
        before = resident(alone.child.pid)
        feed(alone, 2500)
        assert resident(alone.child.pid) - before < 3_000_000
