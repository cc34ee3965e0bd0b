"""Who asked for a stop is told of the file that was stopped, whatever was asked for next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recorder import commands
from recorder.clips.clip import NS, ClipLimits, ClipTotals
from recorder.clips.writer_events import Closed, Filed, Opened
from recorder.commands import CLOSE_TIMEOUT_S, SETTLED_S, RecordCommands
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers
from shmcam.control.messages import Record, Reply

S = NS


@dataclass
class FakeRequest:
    message: Record
    replies: list[Reply] = field(default_factory=list)

    def reply(self, answer):
        self.replies.append(answer)
        return True


class Writer:
    """What is asked of the real one."""

    trouble, unwritten, queue_length = "", 0, 0
    current = None


@pytest.fixture
def orders():
    own = RecorderSettings()
    return RecordCommands("cam0", own, Triggers(ClipLimits.of(own)), Writer(), live=None)


def ask(orders, action, at_ns):
    request = FakeRequest(Record(action=action, at_ns=at_ns))
    orders.obey(request)
    return request


def close(orders, order, name, *, reason="next file", intact=True, kept=True):
    totals = ClipTotals(10, 1, 10, order.start_ns, order.start_ns + S, 0, 0, 1000)
    orders.answer(Closed(order, Path(name), None, "cam0", 0, totals, reason, intact, kept))


@pytest.fixture
def clock(monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(commands.time, "monotonic", lambda: now_s[0])
    return now_s


def test_a_stop_followed_at_once_by_a_start_is_answered_with_its_own_file(orders):
    ask(orders, "start", 100 * S)
    first = orders.triggers.decide(101 * S)
    stop = ask(orders, "stop", 110 * S)
    ask(orders, "start", 110 * S)
    second = orders.triggers.decide(111 * S)
    assert second.number != first.number
    close(orders, first, "a.mp4")
    assert [reply.data["file"] for reply in stop.replies] == ["a.mp4"]
    stop = ask(orders, "stop", 120 * S)
    orders.triggers.decide(121 * S)
    close(orders, second, "b.mp4")
    assert [reply.data["file"] for reply in stop.replies] == ["b.mp4"]


def test_a_file_of_a_stopped_recording_that_is_not_its_last_answers_nothing(orders):
    ask(orders, "start", 100 * S)
    first = orders.triggers.decide(101 * S)
    stop = ask(orders, "stop", 110 * S)
    close(orders, first, "a.mp4")  # the picture changed, say; frames from before the stop still come
    assert not stop.replies
    orders.triggers.decide(110 * S)
    close(orders, first, "b.mp4")
    assert [reply.data["file"] for reply in stop.replies] == ["b.mp4"]


def test_a_start_is_answered_with_its_own_file(orders):
    """Not with the file of an event that was opened just before."""
    start = ask(orders, "start", 100 * S)
    orders.triggers.note_event(99 * S, "motion", utc_ns=0)
    event = orders.triggers.decide(99 * S)
    orders.answer(Opened(event, Path("event.mp4"), 1, 99 * S))
    assert not start.replies
    orders.answer(Opened(orders.triggers.decide(100 * S), Path("a.mp4"), 2, 100 * S))
    assert [reply.data["file"] for reply in start.replies] == ["a.mp4"]


def test_a_recording_that_is_over_before_its_first_frame_is_no_success(orders, clock):
    """A start for 5 s at 10 s of exposure was answered with "recording begins with the first frame", and none came."""
    request = FakeRequest(Record(action="start", at_ns=100 * S, duration_s=5))
    orders.obey(request)
    orders.triggers.decide(99 * S)
    orders.triggers.decide(109 * S)
    clock[0] += commands.OPEN_TIMEOUT_S + 1
    orders.answer_overdue()
    (reply,) = request.replies
    assert not reply.ok and reply.text == "ERROR: nothing was recorded: the recording ended before a frame came"


def test_the_status_tells_the_size_that_the_last_file_has_in_the_end(orders):
    """It went on with the size before the index was moved to the front."""
    ask(orders, "start", 100 * S)
    close(orders, orders.triggers.decide(100 * S), "a.mp4")
    orders.answer(Filed(orders.last, 990))
    ask(orders, "stop", 101 * S)
    orders.triggers.decide(102 * S)
    assert orders.make_status_reply().data["bytes"] == 990


def late(orders, clock, after_s=CLOSE_TIMEOUT_S):
    stop = ask(orders, "stop", orders.triggers.session.start_ns + 5 * S)
    orders.answer_overdue()
    assert not stop.replies
    clock[0] += after_s + 1
    orders.answer_overdue()
    (reply,) = stop.replies
    return reply


def test_a_late_answer_to_stop_says_what_is_true(orders, clock):
    ask(orders, "start", 100 * S)
    assert late(orders, clock).text == "stopped; nothing was written"
    ask(orders, "start", 200 * S)
    order = orders.triggers.decide(201 * S)
    orders.writer.current = (order, Path("a.mp4"), 10, 0)
    assert late(orders, clock).text == "stopped; a.mp4 is still being written"
    ask(orders, "start", 300 * S)
    orders.triggers.decide(301 * S)
    orders.writer.queue_length = 3
    assert "wait for the disk" in late(orders, clock).text, "the open file is that of the recording before"


def test_a_stop_is_not_kept_waiting_for_a_file_that_cannot_come(orders, clock):
    ask(orders, "start", 100 * S)
    orders.triggers.decide(101 * S)
    orders.writer.trouble = "disk full"
    stop = ask(orders, "stop", 102 * S)
    orders.triggers.decide(103 * S)
    orders.answer_overdue()
    assert not stop.replies, "its frames may just be handed over"
    clock[0] += SETTLED_S + 0.1
    orders.answer_overdue()
    (reply,) = stop.replies
    assert not reply.ok and reply.text == "ERROR: stopped; nothing was written: disk full"


def test_a_stop_while_a_clip_that_has_ended_is_being_closed_is_answered_with_that_clip(orders):
    orders.triggers.note_event(100 * S, "motion", utc_ns=0)
    event = orders.triggers.decide(100 * S)
    orders.triggers.expire(200 * S)
    orders.writer.current = (event, Path("event.mp4"), 10, 0)
    stop = ask(orders, "stop", 201 * S)
    assert not stop.replies
    orders.writer.current = None
    close(orders, event, "event.mp4", reason="over")
    assert [reply.data["file"] for reply in stop.replies] == ["event.mp4"]
    assert [reply.status for reply in ask(orders, "stop", 202 * S).replies] == ["not_recording"]


def test_a_trigger_while_the_last_clip_is_being_closed_is_answered_with_its_own(orders):
    ask(orders, "start", 100 * S)
    session = orders.triggers.decide(101 * S)
    ask(orders, "stop", 110 * S)
    orders.triggers.expire(111 * S)
    orders.writer.current = (session, Path("session.mp4"), 10, 0)
    request = ask(orders, "trigger", 112 * S)
    assert not request.replies
    event = orders.triggers.decide(112 * S)
    orders.answer(Opened(event, Path("event.mp4"), 7, 107 * S))
    assert [reply.data["file"] for reply in request.replies] == ["event.mp4"]


def test_neither_stop_nor_status_name_a_file_that_is_gone(orders):
    ask(orders, "start", 100 * S)
    order = orders.triggers.decide(101 * S)
    stop = ask(orders, "stop", 110 * S)
    orders.triggers.decide(111 * S)
    close(orders, order, "a.mp4", reason="a.mp4 was taken away", intact=False, kept=False)
    (reply,) = stop.replies
    assert not reply.ok and reply.data["file"] == "" and reply.text.startswith("ERROR: ")
    assert "taken away" in orders.make_status_reply().text and orders.make_status_reply().data["file"] == ""
