"""What crashes left behind is adopted into the library or removed; the folder and the library agree afterwards."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import time

import pytest
from msgspec.structs import replace

from recorder.clips import recovery
from recorder.clips.finish import move_index_to_front
from recorder.resume import NOTHING, InterruptedRecording, ResumeFile
from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.library.sidecar import INSTALLATION, Owner
from shmcam.runtime.atomic_files import open_atomic
from shmcam.runtime.clock import now_ns
from shmcam.runtime.procfs import boot_id
from shmcam.runtime.stop import Stop
from tests.machine import until
from tests.recorder import film
from tests.recorder.rig import numbers, rows, timing_of


def part(folder, frames=100, form=film.FORMAT):
    """A clip whose recorder died after so many frames."""
    clip = film.clip_file(folder, form=form)
    for unit in film.units(frames):
        clip.add(unit)
    film.killed(clip)
    return clip.paths, clip.paths.growing.read_bytes(), clip.paths.growing_timing.read_bytes() if form.csv else b""


CASES = {
    "as it was": lambda video, csv: (video, csv),
    "empty video": lambda _video, csv: (b"", csv),
    "only the head": lambda video, csv: (video[:36], csv),
    "head and index, no fragment": lambda video, csv: (video[:850], csv),
    "one byte short of the first fragment": lambda video, csv: (video[:9000], csv),
    "zeros": lambda video, csv: (bytes(len(video)), csv),
    "garbage": lambda video, csv: (random.Random(1).randbytes(20_000), csv),
    "half": lambda video, csv: (video[: len(video) // 2], csv),
    "zeros at the end": lambda video, csv: (video + bytes(100_000), csv),
    "garbage at the end": lambda video, csv: (video + random.Random(2).randbytes(5_000), csv),
    "no csv": lambda video, _csv: (video, None),
    "empty csv": lambda video, _csv: (video, b""),
    "csv cut in a line": lambda video, csv: (video, csv[: len(csv) // 2 + 7]),
    "csv of garbage": lambda video, _csv: (video, random.Random(3).randbytes(3000)),
    "csv with zeros that glue two lines": lambda video, csv: (video, csv[:790] + bytes(500) + csv[1290:]),
    "csv with zeros in a time": lambda video, csv: (video, csv.replace(b",5000000000,", b",50000\0\0000,")),
    "csv with a torn number at the end of a line": lambda video, csv: (video, csv.replace(b",0,0\n", b",0,\0\n", 3)),
    "csv without a column": lambda video, csv: (video, csv.replace(b",5000333330000,", b"5000333330000,")),
    "csv with zeros at the end": lambda video, csv: (video, csv[:500] + bytes(4096)),
    "only a csv": lambda _video, csv: (None, csv),
    "a size that points past the end": lambda video, csv: (video[:-8] + b"\xff\xff\xff\xf0mdat", csv),
    "a moof of four gigabytes": lambda video, csv: (video + b"\xff\xff\xff\xffmoof", csv),
    "a box of size zero": lambda video, csv: (video + b"\x00\x00\x00\x00mdat", csv),
}


def test_leftovers_of_a_camera_that_was_renamed_are_found(tmp_path):
    """They stayed for ever: the recorder of each camera adopts what bears its name."""
    place, _, _ = part(tmp_path)
    (tmp_path / "film.mp4.part").write_bytes(b"somebody's")
    assert recovery.find_removed_cameras(tmp_path, ["garden"]) == ["cam0"]
    assert recovery.find_removed_cameras(tmp_path, ["cam0", "garden"]) == []
    assert [clip.camera for clip in recovery.adopt_leftovers(tmp_path, "cam0", alone=False)] == ["cam0"]
    assert recovery.find_removed_cameras(tmp_path, ["garden"]) == [] and place.clip.exists()


@pytest.mark.parametrize("form", [film.FORMAT, replace(film.FORMAT, container="h264")])
def test_a_fresh_leftover_of_a_camera_not_configured_here_stays_if_it_does_not_tell_whose_it_is(tmp_path, form):
    """On a shared disk the empty files and the raw H.264 that another machine was writing were removed or renamed."""
    place, video, csv = part(tmp_path, form=form)
    place.growing.write_bytes(video if form.container == "h264" else b"")
    lone = place.growing_timing.with_name(place.growing_timing.name.replace("000000_", "000001_"))
    lone.write_bytes(csv)
    before = sorted(tmp_path.iterdir())
    assert recovery.adopt_leftovers(tmp_path, "cam0", alone=False, unproven_age_s=3600.0) == []
    assert sorted(tmp_path.iterdir()) == before
    for path in before:
        os.utime(path, (1e9, 1e9))
    closed = recovery.adopt_leftovers(tmp_path, "cam0", alone=False, unproven_age_s=3600.0)
    assert len(closed) == (form.container == "h264") and not list(tmp_path.glob("*.part"))


def test_the_csv_of_another_installations_leftover_stays_with_it(tmp_path, monkeypatch):
    about = {**film.about(), INSTALLATION: "one"}
    monkeypatch.setattr(film, "about", lambda: about)
    place, _, csv = part(tmp_path)
    assert recovery.adopt_leftovers(tmp_path, "cam0", Owner(("another",))) == []
    assert place.growing.exists() and place.growing_timing.read_bytes() == csv


@pytest.mark.parametrize("case", CASES)
def test_every_leftover_is_adopted_or_removed(tmp_path, case):
    place, video, csv = part(tmp_path)
    video, csv = CASES[case](video, csv)
    for path, data in ((place.growing, video), (place.growing_timing, csv)):
        path.unlink()
        if data is not None:
            path.write_bytes(data)
    closed = recovery.adopt_leftovers(tmp_path, "cam0")
    assert not list(tmp_path.glob("*.part")), sorted(tmp_path.iterdir())
    for one in closed:
        ids = numbers(one.path)
        assert ids == list(range(1000, 1000 + len(ids))) and len(ids) == one.totals.frames
        assert one.totals.first_frame == 1000 and one.totals.last_frame == ids[-1]
        assert abs(one.totals.last_ns - 5_000_000_000 - (len(ids) - 1) * 33_333_000) < 2000
        if one.timing and rows(timing_of(one.path)):
            lines = [int(line["frame_number"]) for line in rows(timing_of(one.path))]
            assert lines == ids[: len(lines)]
    if case in ("as it was", "zeros at the end", "garbage at the end", "no csv", "empty csv", "csv of garbage"):
        assert len(closed) == 1 and closed[0].totals.frames == 90
    if case in ("empty video", "only the head", "zeros", "garbage", "only a csv"):
        assert not closed and not list(tmp_path.iterdir())


def test_a_clip_that_was_finished_but_not_yet_renamed_is_adopted_whole(tmp_path):
    clip = film.clip_file(tmp_path)
    for unit in film.units():
        clip.add(unit)
    clip.close()
    clip.paths.clip.rename(clip.paths.growing)
    (closed,) = recovery.adopt_leftovers(tmp_path, "cam0")
    assert closed.totals.frames == 100 == len(numbers(closed.path))
    assert closed.timing is not None


@pytest.mark.parametrize("container", ["mkv", "h264"])
def test_other_containers_are_adopted_too(tmp_path, container):
    place, _, _ = part(tmp_path, form=film.ClipFormat(container, 0.5, csv=True, plain=True))
    (closed,) = recovery.adopt_leftovers(tmp_path, "cam0")
    ids = numbers(closed.path)
    assert closed.path == place.clip and closed.totals.frames == len(ids) > 60
    assert [int(line["frame_number"]) for line in rows(timing_of(closed.path))] == ids


def test_files_of_other_cameras_and_of_other_programs_are_left_alone(tmp_path):
    for name in ("cam1_640x360_30fps_x.mp4.part", "cam0.part", "notes.txt.part", ".cam0_x.mp4.part"):
        (tmp_path / name).write_bytes(b"mine")
    assert recovery.adopt_leftovers(tmp_path, "cam0") == []
    assert len(list(tmp_path.iterdir())) == 4


def test_half_a_description_or_copy_goes_unless_somebody_writes_it(tmp_path):
    """kill -9 while a long video was copied left gigabytes until the exporter's next start."""
    session = tmp_path / "session_20260101_000000"
    session.mkdir()
    for name in (".cam0_x.mp4.123.part", ".cam0_x.mp4.json.123.part"):
        (session / name).write_bytes(b"half")
    with open_atomic(session / "cam1_x.mp4") as file:
        file.write(b"growing")
        assert recovery.adopt_leftovers(tmp_path, "cam0") == []
        assert len(list(session.iterdir())) == 1
    assert [path.name for path in session.iterdir()] == ["cam1_x.mp4"]


def test_a_live_file_of_a_camera_whose_longer_name_begins_alike_is_left_alone(tmp_path):
    names = [f"front_{more}_640x360_30fps_20260101_000000" for more in ("door", "1", "2x")]
    names = [stem + end for stem in names for end in (".mp4.part", "_frame_timing.csv.part")]
    for name in names:
        (tmp_path / name).write_bytes(b"live")
    assert recovery.adopt_leftovers(tmp_path, "front") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert all(path.read_bytes() == b"live" for path in tmp_path.iterdir())


def test_a_clip_that_is_being_written_is_left_alone_until_its_writer_is_gone(tmp_path):
    clip = film.clip_file(tmp_path)
    for unit in film.units():
        clip.add(unit)
    assert recovery.adopt_leftovers(tmp_path, "cam0") == []
    assert clip.paths.growing.exists() and clip.paths.growing_timing.exists()
    clip.close()
    assert clip.paths.clip.exists() and clip.paths.timing.exists()


def test_where_files_cannot_be_locked_only_a_recorder_that_has_just_begun_adopts(tmp_path, monkeypatch):
    """Some network file systems: later, a growing file may be its own."""
    place, _, _ = part(tmp_path)

    def refuse(_descriptor, _how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert recovery.adopt_leftovers(tmp_path, "cam0", alone=False) == [] and place.growing.exists()
    (closed,) = recovery.adopt_leftovers(tmp_path, "cam0")
    assert closed.path == place.clip and closed.totals.frames == 90


def test_a_name_that_is_taken_is_not_overwritten(tmp_path):
    place, video, _ = part(tmp_path)
    place.clip.write_bytes(b"an older clip")
    (closed,) = recovery.adopt_leftovers(tmp_path, "cam0")
    assert place.clip.read_bytes() == b"an older clip"
    assert closed.path.name.endswith("_2.mp4") and len(numbers(closed.path)) == 90
    assert len(video) > 0


@pytest.mark.parametrize("value", [None, "x", "12", [], {}, 1.5, float("nan"), float("inf"), -5, 1 << 70])
def test_a_video_that_says_nonsense_of_itself_is_adopted_with_what_is_known(tmp_path, monkeypatch, value):
    about = {"camera": "cam0", "kind": value, "first_frame": value, "captured_ns": value, "captured_utc_ns": value}
    monkeypatch.setattr(film, "about", lambda: about)
    part(tmp_path)
    (closed,) = recovery.adopt_leftovers(tmp_path, "cam0")
    assert closed.totals.frames == 90 and closed.totals.first_ns == 0 and closed.order.kind == "session"
    assert closed.started_utc_ns > 1_600_000_000_000_000_000


def test_the_timing_of_an_older_clip_of_that_name_is_not_overwritten(tmp_path):
    place, _, csv = part(tmp_path)
    place.clip.write_bytes(b"an older clip")
    place.timing.write_bytes(b"its lines")
    (closed,) = recovery.adopt_leftovers(tmp_path, "cam0")
    assert place.timing.read_bytes() == b"its lines"
    assert closed.timing == timing_of(closed.path) and csv.startswith(closed.timing.read_bytes())


def test_the_end_of_the_newest_closed_clip_is_known_from_its_timing(tmp_path):
    assert recovery.read_closed_until(tmp_path, "cam0") == NOTHING
    clip = film.clip_file(tmp_path)
    for unit in film.units():
        clip.add(unit)
    clip.close()
    last = film.units()[-1].meta
    assert recovery.read_closed_until(tmp_path, "cam0") == (last.captured_ns, last.frame_id)
    assert recovery.read_closed_until(tmp_path, "cam1") == NOTHING
    clip.paths.timing.write_bytes(clip.paths.timing.read_bytes()[:-3] + bytes(3))
    assert recovery.read_closed_until(tmp_path, "cam0") == NOTHING
    clip.paths.timing.write_text(f"9,{time.time() - 500:.6f},{last.captured_ns},0,0\n")
    assert recovery.read_closed_until(tmp_path, "cam0") == NOTHING, "of another boot, perhaps"


@pytest.mark.parametrize("index_in_front", [False, True])
def test_a_clip_that_was_closed_but_not_described_yet_is_finished_by_the_next_recorder(rig, index_in_front):
    """kill -9 while the index of the clip before was copied to the front, or just after: that one stayed unknown."""
    made = rig()
    session = made.recordings / "session_20260101_000000"
    session.mkdir(parents=True)
    clip = film.clip_file(session)
    for unit in film.units():
        clip.add(unit)
    clip.close()
    assert not index_in_front or move_index_to_front(clip.paths.clip, Stop())
    (session / "holiday.mp4").write_bytes(b"somebody else's")
    for times in (1, 2):
        process = made.start()
        made.ready(times=times)
        until(lambda: (session / (clip.paths.clip.name + ".json")).exists(), 10, made.log())
        assert made.stop(process) == 0
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        (entry,) = library.find()
    assert (entry.path, entry.frames, entry.first_frame) == (clip.paths.clip, 100, 1000)
    assert entry.companions == (clip.paths.timing.name,)
    assert made.log().count("closed clip put into the library") == 1 and "index moved to the front" in made.log()


def test_the_recorder_puts_what_it_finds_into_the_library(rig):
    """Index equals directory after a start."""
    made = rig()
    session = made.recordings / "session_20260101_000000"
    session.mkdir(parents=True)
    place, _, _ = part(session)
    process = made.start()
    made.ready()
    settings = Settings.load(made.folder / "config.toml", environ={})
    with Catalogue.of(settings) as library:
        (entry,) = until(lambda: library.find(), 10, made.log())
    assert entry.path == place.clip and entry.frames == 90 and entry.companions == (place.timing.name,)
    assert json.loads((session / (place.clip.name + ".json")).read_text())["first_frame"] == 1000
    assert made.stop(process) == 0


def interrupted(**changes):
    values = {
        "boot": boot_id(), "kind": "session", "trigger": "manual", "utc_ns": 1, "label": "", "protect": False,
        "stop_ns": 1 << 62, "last_ns": now_ns() - 5_000_000_000, "alive_ns": 0,
    }  # fmt: skip
    return InterruptedRecording(**(values | changes))


def test_only_a_recent_session_of_this_boot_is_resumed(tmp_path):
    memory = ResumeFile(tmp_path / "m.json")
    assert memory.read(now_ns(), NOTHING) is None
    memory.write(interrupted())
    assert memory.read(now_ns(), NOTHING) is not None
    later = now_ns() - 1_000_000_000
    assert memory.read(now_ns(), (later, 7)).last_frame == 7, "what is on disk counts if it is newer"
    for change in ({"boot": "another"}, {"last_ns": now_ns() - 200_000_000_000}, {"stop_ns": now_ns() - 6_000_000_000}):
        memory.write(interrupted(**change))
        assert memory.read(now_ns(), NOTHING) is None, change
    memory.write(interrupted(stop_ns=now_ns() - 1))
    assert memory.read(now_ns(), NOTHING) is not None, "its end is not on disk, but perhaps in the ring"
    for rubbish in (b"", b"{}", b"[1]", b'{"boot": 3}', b"\xff"):
        (tmp_path / "m.json").write_bytes(rubbish)
        assert memory.read(now_ns(), NOTHING) is None
    memory.remove()
    memory.remove()
