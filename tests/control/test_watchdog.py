"""The real watchdog under a real supervisord: hangs, failures, memory, and a host that stood still."""

import json
import os
import signal
import time

import pytest

from tests.control.hubs import Reader, until
from tests.control.supervised import Supervised

SHORT = "[control]\nhang_report_s = 2.0\nhang_kill_s = 5.0\nfatal_retry_s = 1.0\n"


def test_what_hangs_is_reported_and_killed_and_comes_back():
    with Supervised("analyzer", "capture", config=SHORT) as running, running.connect() as link:
        until(lambda: running.beats("analyzer", "capture", "watchdog"), "all beat")
        link.sendall(b'{"command": "subscribe", "topics": ["process", "system"]}\n')
        events = Reader(link)
        assert events.object()["status"] == "subscribed"
        first = running.pid("analyzer")
        os.kill(first, signal.SIGSTOP)
        begun = time.monotonic()
        assert wait_for(events, "process_stalled")["data"]["program"] == "analyzer"
        assert time.monotonic() - begun < 5
        assert "analyzer killed" in wait_for(events, "failed")["data"]["what"]
        assert wait_for(events, "process_down")["data"]["program"] == "analyzer"
        assert wait_for(events, "process_up")["data"]["program"] == "analyzer"
        assert running.pid("analyzer") not in {0, first}
        until(lambda: running.beats("analyzer"), "the new one beats")
        # a loop that turns but publishes nothing counts as hanging too
        running.order("capture", "freeze")
        until(lambda: "capture killed: says it runs, but no new frame" in running.told(), "frozen capture killed")


def test_a_hub_that_hangs_is_killed_and_nobody_else_is():
    with Supervised("analyzer", config=SHORT) as running:
        until(lambda: running.beats("analyzer", "watchdog"), "all beat")
        hub, analyzer = running.pid("hub"), running.pid("analyzer")
        os.kill(hub, signal.SIGSTOP)
        until(lambda: running.pid("hub") not in {0, hub}, "a new hub")
        until(
            lambda: running.state("hub") == "RUNNING" and running.beats("analyzer"), "the analyzer is back at the hub"
        )
        assert running.pid("analyzer") == analyzer


def test_what_supervisord_gave_up_is_started_again():
    with Supervised("recorder", config=SHORT, retries=1) as running:
        until(lambda: running.beats("recorder", "watchdog"), "all beat")
        running.order("recorder", "fail")
        os.kill(running.pid("recorder"), signal.SIGKILL)
        until(lambda: running.state("recorder") == "FATAL", "given up")
        until(lambda: "supervisord gave up program=recorder" in running.told(), "noticed")
        shown = until(
            lambda: [r for r in rows(running) if r["program"] == "recorder" and r["state"] == "FATAL"], "shown"
        )
        assert "starts it again" in shown[0]["reason"]
        running.order("recorder", "")
        until(lambda: running.beats("recorder"), "recovered unaided", 40)


def test_a_process_beyond_the_memory_limit_is_restarted():
    with Supervised("streamer", config=SHORT + "memory_limit_mb = 150\n") as running:
        until(lambda: running.beats("streamer", "watchdog"), "all beat")
        first = running.pid("streamer")
        running.order("streamer", "grow")
        until(lambda: "MemoryHigh(program='streamer', action='restart'" in running.told(), "told")
        running.order("streamer", "")
        until(lambda: running.pid("streamer") not in {0, first} and running.beats("streamer"), "a small one runs")


def test_a_host_that_stood_still_costs_nobody_their_process():
    with Supervised("analyzer", "capture", "recorder", config=SHORT) as running:
        names = ("analyzer", "capture", "recorder")
        until(lambda: running.beats(*names, "watchdog"), "all beat")
        before = {name: running.pid(name) for name in names}
        everyone = [*before.values(), running.pid("hub"), running.pid("watchdog")]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(8)  # longer than hang_kill_s: that is the fault being tested
        for pid in reversed(everyone):
            os.kill(pid, signal.SIGCONT)
        until(lambda: running.beats(*names), "all beat again")
        time.sleep(3)
        assert {name: running.pid(name) for name in names} == before


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_stopped_supervisord_does_not_take_the_watchdog_with_it(seconds):
    with Supervised("analyzer", config=SHORT) as running:
        until(lambda: running.beats("analyzer", "watchdog"), "all beat")
        pid = running.pid("watchdog")
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                assert running.beats("analyzer")
                time.sleep(0.5)
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        until(lambda: running.pid("watchdog") == pid and running.beats("watchdog"), "the same watchdog goes on")


def rows(running):
    return running.json({"command": "status"})["data"]["processes"]


def wait_for(events, name):
    while True:
        event = json.loads(events.line())
        if event["event"] == name:
            return event
