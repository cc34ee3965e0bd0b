"""A thread of ours that meets a bug does not leave a process behind that works without it."""

from __future__ import annotations

import threading

from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop


def meet_a_bug() -> None:
    raise ZeroDivisionError("a bug")


def test_a_thread_that_meets_a_bug_ends_the_process_with_an_error(caplog):
    """Not with 0: supervisord takes that for the end of a process that was asked to stop."""
    stop = Stop()
    with Worker("follow-cam0", meet_a_bug, stop):
        assert stop.wait(10) and stop.failed
    assert "follow-cam0 broke" in caplog.text and "ZeroDivisionError: a bug" in caplog.text


def test_the_end_of_the_block_requests_the_stop_and_waits_for_the_thread():
    stop, ended = Stop(), []

    def work() -> None:
        stop.wait(60)
        ended.append(threading.current_thread().name)

    with Worker("saver", work, stop):
        assert not ended
    assert ended == ["saver"] and stop.requested and not stop.failed


def test_a_job_may_fail_while_the_thread_answers_the_others(caplog):
    stop, done = Stop(), []

    def work() -> None:
        with worker.guard():
            meet_a_bug()
        done.append("the next job")

    worker = Worker("saver", work, stop)
    worker.start()
    assert worker.join(10) and stop.failed and done == ["the next job"]
    assert "thread saver broke" in caplog.text and "ZeroDivisionError: a bug" in caplog.text


def test_a_thread_of_a_program_without_a_stop_says_what_broke_it(caplog):
    worker = Worker("control", meet_a_bug, None)
    worker.start()
    assert worker.join(10)
    assert "thread control broke" in caplog.text and "ZeroDivisionError: a bug" in caplog.text
