"""What an event made of a clip is known to the recorder that adopts it, whatever became of the one that wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.clips.clip import NS, ClipLimits, ClipOrder, ClipTotals
from recorder.clips.writer_events import Closed
from recorder.resume import MAX_MARKS, EventMarks
from recorder.settings import RecorderSettings
from recorder.triggers import Triggers
from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.runtime.clock import now_ns
from tests.machine import until
from tests.recorder import film
from tests.recorder.rig import check_clip

LIMITS = ClipLimits.of(RecorderSettings(pre_roll_s=2, post_roll_s=3))


def adopted(first_s, last_s, kind="rolling", trigger="rolling"):
    totals = ClipTotals(10, 1, 10, int(first_s * NS), int(last_s * NS), 0, 0, 1000)
    order = ClipOrder(-1, kind, trigger, int(first_s * NS), 0)
    return Closed(order, Path("a.mp4"), None, "cam0", 0, totals, "found after a crash", intact=False)


def told(marks, closed):
    order = marks.apply_to(closed).order
    return order.trigger, order.label, order.protect


@pytest.fixture
def noted(tmp_path):
    """A recorder noted what happened at 100 s, and was killed."""
    triggers = Triggers(LIMITS)
    triggers.note_event(100 * NS, "command", utc_ns=7, label="owl", protect=True)
    EventMarks(tmp_path / "m.json").save(triggers.events)
    return tmp_path / "m.json"


def test_clips_are_marked_into_which_the_event_fell_and_no_others(noted):
    marks = EventMarks(noted)
    assert told(marks, adopted(40, 97.9)) == ("rolling", "", False)
    assert told(marks, adopted(40, 98.1)) == ("command", "owl", True)
    assert told(marks, adopted(102.9, 160)) == ("command", "owl", True)
    assert told(marks, adopted(103, 160)) == ("rolling", "", False)
    assert told(marks, adopted(40, 160, "session", "auto")) == ("command", "owl", True)
    assert told(marks, adopted(40, 160, "session", "manual")) == ("manual", "owl", True), "it is what it is"


def test_of_many_events_the_protecting_ones_are_kept(noted):
    marks = EventMarks(noted)
    for number in range(2 * MAX_MARKS):
        triggers = Triggers(LIMITS)
        triggers.note_event((200 + 10 * number) * NS, "motion", utc_ns=7)
        marks.save(triggers.events)
    assert told(EventMarks(noted), adopted(40, 160)) == ("command", "owl", True)
    assert told(EventMarks(noted), adopted(190, 201)) == ("rolling", "", False), "the oldest of the others went"


def test_motion_that_was_resumed_marks_nothing_after_its_end(tmp_path):
    triggers, resumed, marks = Triggers(LIMITS), Triggers(LIMITS), EventMarks(tmp_path / "m.json")
    triggers.note_begin(100 * NS, "motion", utc_ns=7)
    marks.save(triggers.events)
    after_kill = EventMarks(tmp_path / "m.json")
    resumed.resume(after_kill.take_ongoing(110 * NS))
    resumed.note_end(112 * NS, "motion")
    after_kill.save(resumed.events)
    for known in (after_kill, EventMarks(tmp_path / "m.json")):
        assert told(known, adopted(90, 105))[0] == told(known, adopted(111, 114))[0] == "motion"
        assert told(known, adopted(116, 160)) == ("rolling", "", False)


def test_a_clip_of_its_own_takes_nothing_from_the_event_after_it(noted):
    triggers = Triggers(LIMITS)
    triggers.note_event(96 * NS, "motion", utc_ns=7)
    marks = EventMarks(noted)
    marks.save(triggers.events)
    assert told(marks, adopted(94, 99, "event", "motion")) == ("motion", "", False)
    assert told(marks, adopted(98.01, 103, "event", "command")) == ("command", "owl", True)


def test_what_lasts_marks_until_it_is_cut_off_and_what_ended_no_longer(tmp_path):
    triggers, path = Triggers(LIMITS), tmp_path / "m.json"
    triggers.note_begin(100 * NS, "motion", utc_ns=7)
    marks = EventMarks(path)
    marks.save(triggers.events)
    assert told(EventMarks(path), adopted(300, 310)) == ("motion", "", False)
    triggers.note_end(200 * NS, "motion")
    marks.save(triggers.events)
    assert told(EventMarks(path), adopted(300, 310)) == ("rolling", "", False)
    assert EventMarks(path).take_ongoing(202 * NS) is not None and EventMarks(path).take_ongoing(203 * NS) is None


def test_marks_of_another_boot_are_for_what_that_boot_left_only(noted, monkeypatch):
    """The sensor's clock begins anew with each boot: an old event must not mark a new clip of the same times."""
    monkeypatch.setattr("recorder.resume.boot_id", lambda: "the next one")
    marks = EventMarks(noted)
    assert told(marks, adopted(90, 110)) == ("command", "owl", True)
    assert marks.take_ongoing(101 * NS) is None
    assert told(EventMarks(noted), adopted(90, 110)) == ("rolling", "", False)


def test_only_news_is_written_only_the_newest_are_kept_and_rubbish_is_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("shmcam.runtime.atomic_files.os.fsync", lambda _descriptor: pytest.fail("synced"))
    path = tmp_path / "m.json"
    marks = EventMarks(path)
    marks.save([])
    assert not path.exists()
    for number in range(MAX_MARKS + 5):
        triggers = Triggers(LIMITS)
        triggers.note_event((100 + 100 * number) * NS, "motion", utc_ns=7)
        marks.save(triggers.events)
    was = path.stat().st_ino
    marks.save(triggers.events)
    assert path.stat().st_ino == was
    assert told(EventMarks(path), adopted(490, 510)) == ("rolling", "", False)
    assert told(EventMarks(path), adopted(590, 610)) == ("motion", "", False)
    for rubbish in (b"", b"{}", b"[1]", b'{"boot": "a", "marks": [{"start_ns": 1}]}', b"\xff"):
        path.write_bytes(rubbish)
        assert told(EventMarks(path), adopted(0, 10_000)) == ("rolling", "", False)


def filed(made, count):
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        return until(lambda: len(found := library.find()) >= count and found, 15, made.log)


def test_a_rolling_clip_that_was_marked_and_killed_is_adopted_as_marked(rig):
    """It counted as an ordinary one after the kill, so the next rolling clip but one deleted it, protected or not."""
    made = rig(mode="rolling", auto_start=True, rolling_clips_count=1, pre_roll_s=2.0, post_roll_s=60.0)
    made.start_hub()
    film_ = made.camera(slots=256, size=(320, 180))
    film_.begin_filming()
    made.start()
    made.ready()
    made.answers()
    made.written(20)
    assert made.ask("record trigger label=owl protect=true").status == "recording_triggered"
    made.processes[-1].kill()
    made.processes[-1].wait()
    made.start()
    made.resumes(times=2)
    made.written(50)
    assert made.ask("record stop").ok
    entries = sorted(filed(made, 2), key=lambda entry: entry.first_frame)
    assert [(entry.trigger, entry.label, entry.protected) for entry in entries] == [("command", "owl", True)] * 2
    assert "leftover adopted" in made.log() and "deleted path=" not in made.log()
    assert all(check_clip(entry.path, film_) for entry in entries)


def test_a_marked_clip_that_was_closed_but_not_filed_is_filed_as_marked(rig):
    """kill -9 between the end of a clip and its row in the library."""
    made = rig()
    folder = made.recordings / "rolling" / "cam0"
    folder.mkdir(parents=True)
    clip = film.clip_file(folder)
    for unit in film.units():
        clip.add(unit)
    clip.close()
    triggers = Triggers(LIMITS)
    triggers.note_event(5 * NS, "command", utc_ns=now_ns(), protect=True)
    EventMarks(made.folder / "run" / "cam0.marks.json").save(triggers.events)
    process = made.start()
    made.ready()
    (entry,) = filed(made, 1)
    assert entry.path == clip.paths.clip and entry.protected
    assert made.stop(process) == 0
