"""What a recorder notes of a session while it lasts is enough for the next one to take it up."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from recorder import resume
from recorder.clips.clip import NS, ClipLimits, ClipTotals
from recorder.clips.writer_events import Closed
from recorder.resume import ALIVE_S, NOTHING, PTS_NS, EventMarks, Resume, ResumeFile
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers

OWN = RecorderSettings()
BEGAN_NS = 10_000 * NS


class Clock:
    def __init__(self, monkeypatch):
        self.ns = BEGAN_NS
        monkeypatch.setattr(resume, "now_ns", lambda: self.ns)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Kept(ResumeFile):
    writes = 0

    def write(self, state):
        super().write(state)
        self.writes += 1


def recorder(folder: Path) -> tuple[Resume, Triggers, Kept]:
    memory, triggers = Kept(folder / "m.json"), Triggers(ClipLimits.of(OWN))
    return Resume(memory, EventMarks(folder / "marks.json"), triggers), triggers, memory


def closed(order, last_ns):
    totals = ClipTotals(10, 1, 10, order.start_ns, last_ns, 0, 0, 1000)
    return Closed(order, Path("a.mp4"), None, "cam0", 0, totals, "next file", intact=True)


def filming(clock, folder, seconds, last=None):
    """A recorder that has filmed so long, with passes of one second, and then died. Returns: how often it wrote."""
    one, triggers, memory = recorder(folder)
    triggers.start(BEGAN_NS, "session", "manual", utc_ns=7, label="long")
    for second in range(seconds + 1):
        clock.ns = BEGAN_NS + second * NS
        one.save(last and last(triggers.session, second))
    return memory.writes


def test_a_long_recording_is_resumed_although_no_fragment_of_it_was_left(clock, tmp_path):
    writes = filming(clock, tmp_path, 3600)
    assert writes <= 3600 / ALIVE_S + 1, "an SD card is written to seldom"
    clock.ns += 80 * NS
    one, triggers, _ = recorder(tmp_path)
    one.begin(OWN, [])
    assert triggers.session is not None and triggers.session.label == "long"


def test_a_clip_that_was_closed_just_before_the_kill_is_not_recorded_again(clock, tmp_path):
    filming(clock, tmp_path, 10, lambda order, second: closed(order, BEGAN_NS + 5 * NS))
    clock.ns += NS
    one, triggers, _ = recorder(tmp_path)
    one.begin(OWN, [], (BEGAN_NS + 10 * NS, 100))
    assert triggers.session is not None and triggers.session.start_ns == BEGAN_NS + 10 * NS + PTS_NS


def test_a_recorder_that_has_been_dead_for_long_resumes_nothing(clock, tmp_path):
    filming(clock, tmp_path, 3600)
    clock.ns += 200 * NS
    one, triggers, _ = recorder(tmp_path)
    one.begin(OWN, [])
    assert triggers.session is None


def test_what_auto_start_began_for_one_start_alone_is_not_resumed_by_the_next(clock, tmp_path):
    """`shmcam run --mode headless`, Ctrl-C, `shmcam run`: the second one recorded, though nobody had told it to."""
    for auto_start in (True, False):
        own = msgspec.structs.replace(OWN, auto_start=auto_start)
        one, triggers, _ = recorder(tmp_path)
        one.begin(own, [])
        assert (triggers.session is not None) is auto_start
        one.save(None)
        one.interrupt(None)
        clock.ns += NS
    assert not (tmp_path / "m.json").exists()


def test_a_resumed_recording_begins_after_the_last_file_that_was_closed(clock, tmp_path):
    """Not after the last frame that was encoded: the ring may still have what the disk has not."""
    last_ns = BEGAN_NS + 595 * NS
    filming(clock, tmp_path, 600, lambda order, second: closed(order, last_ns) if second >= 595 else None)
    clock.ns += 2 * NS
    one, triggers, _ = recorder(tmp_path)
    one.begin(OWN, [])
    assert triggers.session is not None and triggers.session.start_ns == last_ns + PTS_NS


def test_a_file_of_which_nothing_was_whole_takes_the_recording_back_to_no_earlier_one(clock, tmp_path):
    last_ns = BEGAN_NS + 5 * NS
    filming(clock, tmp_path, 10, lambda order, second: closed(order, last_ns if second < 8 else 0))
    clock.ns += 2 * NS
    one, triggers, _ = recorder(tmp_path)
    one.begin(OWN, [])
    assert triggers.session is not None and triggers.session.start_ns == last_ns + PTS_NS


def test_a_session_that_ended_is_forgotten(clock, tmp_path):
    one, triggers, _ = recorder(tmp_path)
    triggers.start(BEGAN_NS, "session", "manual", utc_ns=7)
    one.save(None)
    assert (tmp_path / "m.json").exists()
    triggers.stop(BEGAN_NS + NS)
    triggers.expire(BEGAN_NS + 2 * NS)
    one.save(None)
    assert not (tmp_path / "m.json").exists()


def test_what_is_noted_waits_for_no_disk(clock, tmp_path, monkeypatch):
    """The loop notes it; a card may take seconds for an fsync, and after a power cut nothing is resumed anyway."""
    monkeypatch.setattr("shmcam.runtime.atomic_files.os.fsync", lambda _descriptor: pytest.fail("synced"))
    assert filming(clock, tmp_path, 10) > 0


def test_a_disk_that_turns_read_only_ends_no_recorder_whose_session_ends(clock, tmp_path, monkeypatch):
    one, triggers, _ = recorder(tmp_path)
    triggers.start(BEGAN_NS, "session", "manual", utc_ns=7)
    one.save(None)

    def refuse(path, **_how):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    triggers.stop(BEGAN_NS + NS)
    triggers.expire(BEGAN_NS + 2 * NS)
    one.save(None)


def resumed(clock, tmp_path, after_s):
    clock.ns += int(after_s * NS)
    one, triggers, _ = recorder(tmp_path)
    one.begin(OWN, [])
    return triggers


@pytest.fixture
def motion(clock, tmp_path):
    """A recorder that heard of motion at BEGAN_NS, wrote its first 8 s, and passed once more."""
    one, triggers, memory = recorder(tmp_path)
    triggers.note_begin(BEGAN_NS, "motion", utc_ns=7)
    clock.ns = BEGAN_NS + 8 * NS
    one.save(closed(triggers.event.order, clock.ns))
    return one, triggers, memory


def test_an_event_that_lasts_is_taken_up_again_and_ends_when_it_ends(clock, tmp_path, motion):
    triggers = resumed(clock, tmp_path, 2)
    event = triggers.event
    assert event.order.start_ns == BEGAN_NS + 8 * NS + PTS_NS
    assert (event.order.kind, event.order.trigger, event.order.utc_ns) == ("event", "motion", 7)
    triggers.note_begin(BEGAN_NS, "motion", utc_ns=7)  # told again by the hub: it is the same
    assert triggers.event is event and triggers.decide(BEGAN_NS + 60 * NS) is not None
    triggers.note_end(BEGAN_NS + 61 * NS, "motion")
    assert triggers.decide(BEGAN_NS + 70 * NS) is not None, "the post-roll"
    assert triggers.decide(BEGAN_NS + 72 * NS) is None


def test_an_event_that_is_over_is_taken_up_for_the_rest_of_its_post_roll(clock, tmp_path, motion):
    one, triggers, _ = motion
    triggers.note_end(BEGAN_NS + 7 * NS, "motion")
    one.save(None)
    triggers = resumed(clock, tmp_path, 2)
    assert triggers.decide(BEGAN_NS + 16 * NS) is not None
    assert triggers.decide(BEGAN_NS + 17 * NS) is None


def test_a_resumed_event_is_cut_off_when_it_would_have_been(clock, tmp_path, motion):
    triggers = resumed(clock, tmp_path, 2)
    last_ns = BEGAN_NS + int((OWN.max_event_s - OWN.pre_roll_s) * NS)
    assert triggers.decide(last_ns - 1) is not None
    assert triggers.decide(last_ns) is None


def test_an_event_that_ended_is_forgotten_even_if_it_was_only_resumed(clock, tmp_path, motion):
    clock.ns += 30 * NS
    one, triggers, memory = recorder(tmp_path)
    one.begin(OWN, [])
    triggers.note_end(BEGAN_NS + 9 * NS, "motion")
    triggers.expire(clock.ns)
    assert triggers.event is None
    one.save(None)
    assert memory.read(clock.ns, NOTHING) is None


def test_auto_start_begins_beside_an_event_that_is_taken_up(clock, tmp_path, motion):
    one, triggers, _ = recorder(tmp_path)
    one.begin(RecorderSettings(auto_start=True), [])
    assert triggers.event is not None and triggers.session is not None


def test_an_event_during_rolling_clips_marks_what_is_recorded_of_it_after_a_kill(clock, tmp_path):
    one, triggers, _ = recorder(tmp_path)
    triggers.start(BEGAN_NS, "rolling", "rolling", utc_ns=7)
    triggers.note_event(BEGAN_NS + 6 * NS, "command", utc_ns=8, protect=True)
    clock.ns = BEGAN_NS + 8 * NS
    one.save(None)
    clock.ns += NS
    one, triggers, _ = recorder(tmp_path)
    assert one.begin(OWN, [], (BEGAN_NS + 7 * NS, 70)) == 70
    order = triggers.decide(BEGAN_NS + 8 * NS)
    assert order is not None and (order.kind, order.trigger, order.protect) == ("rolling", "command", True)
    assert triggers.decide(BEGAN_NS + 15 * NS) is order
    assert triggers.event is not None and triggers.event.end_ns == BEGAN_NS + int((6 + OWN.post_roll_s) * NS)


def test_a_stopped_event_marks_nothing_that_is_recorded_after_a_kill(clock, tmp_path):
    one, triggers, _ = recorder(tmp_path)
    triggers.start(BEGAN_NS, "rolling", "rolling", utc_ns=7)
    triggers.note_event(BEGAN_NS + 2 * NS, "command", utc_ns=8)
    one.save(None)
    triggers.stop(BEGAN_NS + 3 * NS)
    one.save(None)
    triggers.expire(BEGAN_NS + 4 * NS)
    triggers.start(BEGAN_NS + 4 * NS, "rolling", "rolling", utc_ns=9)
    clock.ns = BEGAN_NS + 5 * NS
    one.save(None)
    one, triggers, _ = recorder(tmp_path)
    one.begin(OWN, [])
    order = triggers.decide(BEGAN_NS + 5 * NS)
    assert order is not None and order.trigger == "rolling" and triggers.event is None
