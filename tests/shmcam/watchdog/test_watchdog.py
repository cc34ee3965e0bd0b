"""The real watchdog under a real supervisord: hangs, failures, memory, and a host that stood still."""

import os
import signal
import time

import pytest

from tests.shmcam.hub.hubs import Reader, until
from tests.shmcam.watchdog.supervised import Supervised

SHORT = """\
[control]
hang_report_s = 2.0
hang_kill_s = 5.0
startup_s = 20.0
fatal_retry_s = 1.0
memory_limit_mb = 900
"""
NAMES = ("analyzer", "capture", "recorder", "streamer")


@pytest.fixture(scope="module")
def running():
    with Supervised(*NAMES, config=SHORT, retries=1, idle=("exporter",)) as supervised:
        orphan = supervised.orphan("exporter")
        try:
            supervised.orphan_pid = orphan.pid
            # Told some heartbeats after the first one; a process that is stopped before the watchdog ever heard it is
            # not expected to speak.
            up = [f"ProcessUp(program={name!r}" for name in NAMES]
            until(lambda: all(one in supervised.told() for one in up), "the watchdog to know everyone", 40)
            yield supervised
        finally:
            orphan.kill()
            orphan.wait()


@pytest.fixture(autouse=True)
def _well(running):
    until(lambda: running.beats(*NAMES, "watchdog"), "all beat", 40)


def test_what_hangs_is_reported_and_killed_and_comes_back(running):
    with running.connect() as link:
        link.sendall(b'{"command": "subscribe", "topics": ["process", "system"]}\n')
        events = Reader(link)
        assert events.object()["status"] == "subscribed"
        hung, frozen = running.pid("analyzer"), running.pid("capture")
        running.order("capture", "freeze")  # a loop that turns but publishes nothing hangs too
        os.kill(hung, signal.SIGSTOP)
        heard = {"analyzer": [], "capture": []}
        while not all("process_up" in told for told in heard.values()):
            event = next_event(events, running)
            name, told = event["event"], heard.get(event["data"].get("program", ""), [])
            if name == "process_stalled" or (told and (name != "process_up" or "process_down" in told)):
                told.append(name)  # not the first start, which may be told late
            if name == "process_down" and event["data"]["program"] == "capture":
                running.order("capture", "")
        for told in heard.values():
            assert [name for name in told if name != "process_stalled"] == ["failed", "process_down", "process_up"]
        assert running.pid("analyzer") not in {0, hung}
        assert running.pid("capture") not in {0, frozen}
    assert "capture killed: says it runs, but no new frame" in running.told()


@pytest.mark.slow  # the decision itself: test_hang_detector
def test_what_hangs_before_its_first_word_or_while_the_watchdog_is_away_is_killed_too(running):
    first, hung = running.pid("analyzer"), running.pid("capture")
    os.kill(first, signal.SIGKILL)
    stopped = until(lambda: (pid := running.pid("analyzer")) != first and pid, "a new analyzer")
    os.kill(stopped, signal.SIGSTOP)  # Python is still importing
    os.kill(hung, signal.SIGSTOP)
    os.kill(running.pid("watchdog"), signal.SIGKILL)  # the new one has never heard the capture that hangs
    for name, pid in (("analyzer", stopped), ("capture", hung)):
        until(lambda: running.pid(name) not in {0, pid} and running.beats(name), f"{name} was replaced", 60)  # noqa: B023
        assert f"{name} killed: not a word for" in running.told()


def test_a_hub_that_hangs_is_killed_and_nobody_else_is(running):
    hub, analyzer = running.pid("hub"), running.pid("analyzer")
    os.kill(hub, signal.SIGSTOP)
    until(lambda: running.pid("hub") not in {0, hub}, "a new hub")
    until(lambda: running.beats(*NAMES), "all are back at the hub")
    assert running.pid("analyzer") == analyzer


def test_what_supervisord_gave_up_is_started_again(running):
    running.order("recorder", "fail")
    os.kill(running.pid("recorder"), signal.SIGKILL)
    until(lambda: running.state("recorder") == "FATAL", "given up")
    until(lambda: "supervisord gave up program=recorder" in running.told(), "noticed")
    shown = until(lambda: [r for r in rows(running) if r["state"] == "FATAL"], "status shows it")
    assert shown[0]["program"] == "recorder"
    assert "starts it again" in shown[0]["reason"]
    running.order("recorder", "")
    until(lambda: running.beats("recorder"), "recovered unaided", 40)


def test_a_process_beyond_the_memory_limit_is_restarted(running):
    assert "OK: changed" in running.text("set control.memory_limit_mb 150"), "a live setting"
    first = running.pid("streamer")
    running.order("streamer", "grow")
    until(lambda: "MemoryHigh(program='streamer', action='restart'" in running.told(), "told")
    running.order("streamer", "")
    until(lambda: running.pid("streamer") not in {0, first} and running.beats("streamer"), "a small one runs")


@pytest.mark.slow  # the decision itself: test_hang_detector
def test_a_host_that_stood_still_costs_nobody_their_process(running):
    before = {name: running.pid(name) for name in NAMES}
    everyone = [*before.values(), running.pid("hub"), running.pid("watchdog")]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(7)  # longer than hang_kill_s: that is the fault being tested
    for pid in reversed(everyone):
        os.kill(pid, signal.SIGCONT)
    until(lambda: running.beats(*NAMES), "all beat again")
    time.sleep(2)  # some checks, each of which could kill
    assert {name: running.pid(name) for name in NAMES} == before


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_stopped_supervisord_does_not_take_the_watchdog_with_it(running, seconds):
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


def test_an_orphan_is_told_with_the_line_that_ends_it(running):
    pid = running.orphan_pid
    said = f"pid {pid} says it is exporter, but supervisord did not start it; type: kill {pid}"
    until(lambda: said in running.told(), "told")


def next_event(events, running):
    try:
        return events.object()
    except TimeoutError:
        raise AssertionError(f"no event came; the watchdog told:\n{running.told()}") from None


def rows(running):
    return running.json({"command": "status"})["data"]["processes"]
