"""The keogram's disk may not answer; night and motion are decided all the same."""

import threading
import time

import pytest

from analyzer.keogram import keogram_thread
from analyzer.keogram.keogram_thread import KeogramThread
from shmcam.runtime.stop import Stop
from tests.analyzer.keogram.test_keeper import NOON, result_of
from tests.machine import until


class SlowKeeper:
    """A keeper whose disk answers when it is let."""

    columns = 3

    def __init__(self):
        self.answers, self.added = threading.Event(), []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.added.append("closed")

    def add(self, result, night):
        assert self.answers.wait(30)
        self.added.append(result)
        return [f"day{len(self.added)}.png"] if len(self.added) == 2 else []

    def draw(self):
        raise OSError("no such disk")


def test_a_disk_that_does_not_answer_costs_no_more_than_columns(monkeypatch, caplog):
    """Captures on a NAS that was switched off: the analyzer stood still, and was killed again and again."""
    monkeypatch.setattr(keogram_thread, "JOBS_MAX", 4)
    monkeypatch.setattr(keogram_thread, "WAIT_S", 3600.0)  # the end of the block ends a wait for a job
    caplog.set_level("INFO")
    keeper, saved, stop = SlowKeeper(), [], Stop()
    results = [result_of(NOON + second) for second in range(8)]
    with KeogramThread(keeper, saved.extend, stop) as thread:
        began = time.monotonic()
        thread.add(results[0], night=False)
        until(lambda: thread._jobs.empty(), 10, "the first one is being written")
        for result in results[1:]:
            thread.add(result, night=False)
        refused = []
        assert not thread.draw(lambda *told: refused.append(told)) and time.monotonic() - began < 10
        keeper.answers.set()
        until(lambda: len(keeper.added) == 5, 10, "all that had room")
        assert thread.draw(lambda *told: refused.append(told))
        until(lambda: refused, 10, "an answer")
    assert keeper.added == [*results[:5], "closed"] and saved == ["day2.png"]
    assert (
        "the disk does not answer, frames are left out" in caplog.text and "keogram goes on left_out=4" in caplog.text
    )
    (paths, columns, problem) = refused[0]
    assert (paths, columns) == ((), 0) and "no such disk" in str(problem)


def test_what_waits_at_the_end_is_written_and_a_hanging_disk_does_not_keep_the_process(monkeypatch):
    monkeypatch.setattr("shmcam.runtime.guarded_thread.STOP_S", 0.2)
    keeper, stop = SlowKeeper(), Stop()
    with KeogramThread(keeper, pytest.fail, stop) as thread:
        thread.add(result_of(NOON), night=False)
    assert keeper.added == [] and stop.requested
    keeper.answers.set()
    until(lambda: keeper.added[1:] == ["closed"], 10, "written in the end")
