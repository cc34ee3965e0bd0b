"""The recorder as a real process, told what to do through a real hub, judged by what other programs read from disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time

import av
import numpy as np
import pytest

from shm_ring import RingReader
from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.runtime.clock import now_ns, to_stamp
from tests.machine import long_ago_ns, needs, until
from tests.recorder.rig import PERIOD_NS, TOLD_LATE, check_clip, decoded, numbers, rows, timing_of


def ffprobe(path):
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def filming(rig):
    """A hub, a camera that films in the background, and a recorder that waits for commands."""

    def make(camera=None, tables=None, **recorder):
        made = rig(**recorder)
        made.write_config(**(tables or {}))
        made.start_hub()
        film = made.camera(**(camera or {}))
        film.begin_filming()
        made.start()
        made.ready()
        made.answers()
        return made, film

    return make


@needs("ffprobe")
def test_start_and_stop_by_command_record_exactly_the_frames_between(filming):
    made, film = filming()
    before_ns = now_ns()
    started = made.ask("record start label=trial_1")
    began_ns = now_ns()
    assert started.ok and started.status == "recording_started", started
    status = made.recorded(31)
    assert status.status == "recording" and status.data["file"] == started.data["file"]
    assert made.ask("record start").status == "already_recording"
    stop_ns = now_ns()
    stopped = made.ask("record stop")
    ended_ns = now_ns()
    assert stopped.ok and stopped.status == "recording_stopped", stopped
    (clip,) = made.clips()
    assert str(clip) == started.data["file"] == stopped.data["file"]
    assert re.fullmatch(r"session_\d{8}_\d{6}_trial_1", clip.parent.name)
    assert re.fullmatch(r"cam0_640x360_30\.0fps_\d{8}_\d{6}_trial_1\.mp4", clip.name)
    ids = check_clip(clip, film)
    times = {meta.frame_id: meta.captured_ns for meta in film.published}
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert before_ns <= times[ids[0]] and times[ids[0] - 1] < began_ns
    assert times[ids[-1]] < ended_ns and stop_ns <= until(lambda: film.published[ids[-1] + 1]).captured_ns
    assert stopped.data["frames"] == len(ids) and stopped.data["drops"] == 0
    assert made.ask("record stop").status == "not_recording"
    assert made.ask("record status").status == "idle"
    # In the library, with its index in front, readable by ffprobe.
    until(lambda: "index moved" in made.log(), 10, made.log())
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        (entry,) = until(lambda: library.find(kinds=["session"]), 10)
    assert (entry.first_frame, entry.last_frame, entry.frames, entry.label) == (ids[0], ids[-1], len(ids), "trial_1")
    assert entry.companions == (timing_of(clip).name,)
    head = clip.read_bytes()[:4096]
    assert b"moov" in head and b"moof" not in head
    probe = ffprobe(clip)
    assert int(probe["streams"][0]["nb_read_frames"]) == len(ids)
    assert check_clip(clip, film) == ids


FOREIGN_TIMES = [
    ({"source": "replay", "path": "dump"}, -1),
    ({"source": "file", "path": "a.mp4", "realtime": False}, 1),
]


@pytest.mark.parametrize(("camera", "direction"), FOREIGN_TIMES)
def test_frames_with_times_of_their_own_are_recorded_from_the_newest(rig, camera, direction):
    """A replay bears old times, a file as fast as it decodes future ones; auto_start begins with the first frame."""
    made = rig(auto_start=True, pre_roll_s=0.1, post_roll_s=0.2)
    made.write_config(camera=camera)
    made.start_hub()
    film = made.camera()
    film.ahead_ns = direction * long_ago_ns()
    made.start()
    made.ready()
    made.answers()
    film.begin_filming()
    made.recorded(5)
    stopped = made.ask("record stop")
    assert stopped.ok and 0 <= stopped.data["first_frame"] < 4 <= stopped.data["last_frame"], stopped
    before = len(film.published)
    started = made.ask("record start")
    assert started.ok and before - 1 <= started.data["frame_id"] <= before + TOLD_LATE and not started.data["notes"]
    made.recorded(5)
    film.held = True
    stopped = made.ask("record stop")
    assert stopped.ok and stopped.data["first_frame"] == started.data["frame_id"], "it ends though no frame comes"
    film.held = False
    film.wait_frames(2)
    started = made.ask("record start duration_s=0.3")
    until(lambda: made.ask("record status").status == "idle", 10)
    (clip,) = [clip for clip in made.clips() if str(clip) == started.data["file"]]
    assert 4 <= len(numbers(clip)) <= 10, "frames of 0.3 s, told as late as a busy machine does"
    triggered = made.ask("record trigger")
    assert triggered.ok and triggered.data["frame_id"] > started.data["frame_id"]


def test_an_event_clip_has_its_pre_roll_from_the_ring_and_merges_a_second_event(filming):
    # The second event must come before the first one's post-roll is over, also where an encoder takes a second to open.
    made, film = filming(pre_roll_s=1.0, post_roll_s=4.0, mode="event")
    film.wait_frames(45)
    asked_ns = now_ns()
    first = made.ask("record trigger")
    answered_ns = now_ns()
    assert first.status == "recording_started" and not first.data["notes"], first
    film.wait_frames(15)
    again_ns = now_ns()
    assert made.ask("record trigger").status == "recording_triggered"
    until(lambda: made.ask("record status").status == "idle", 20)
    (clip,) = made.clips()
    ids = check_clip(clip, film)
    times = {meta.frame_id: meta.captured_ns for meta in film.published}
    assert asked_ns <= times[ids[0]] + 1_000_000_000 and times[ids[0] - 1] + 1_000_000_000 < answered_ns
    assert times[ids[-1] + 1] >= again_ns + 4_000_000_000, "four seconds after the second event"


def test_a_restart_goes_on_where_it_stopped_and_a_kill_loses_nothing_the_ring_holds(filming):
    """supervisorctl restart, then kill -9: the ring still has what was filmed meanwhile.

    Small frames, because the ring must hold 68 s. Beside two busy loops the next recorder began after 14 s; with 17 s
    in the ring, frames were gone when it took longer. The recorder tells it ("pre-roll is short") and cannot help.
    """
    made, film = filming(camera={"slots": 2048, "size": (160, 72)})
    made.ask("record start")
    film.wait_frames(20)
    assert made.stop(made.processes[-1]) == 0
    second = made.start()
    made.resumes(times=2)
    film.wait_frames(20)
    second.kill()
    second.wait()
    made.start()
    made.resumes(times=3)
    film.wait_frames(20)
    made.ask("record stop")
    clips = made.clips()
    assert len(clips) == 3 and len({clip.parent for clip in clips}) == 1, clips
    ids = [number for clip in sorted(clips, key=lambda one: numbers(one)[0]) for number in check_clip(clip, film)]
    assert ids == list(range(ids[0], ids[-1] + 1)), f"every frame once\n{made.log()}"
    assert made.log().count("recording is resumed") == 2
    assert made.log().count("leftover adopted") == 1


def test_what_the_ring_lost_while_the_recorder_was_away_is_a_drop_of_the_next_file(filming):
    made, film = filming(camera={"slots": 16, "size": (320, 180)})
    made.ask("record start")
    film.wait_frames(20)
    made.processes[-1].kill()
    made.processes[-1].wait()
    film.wait_frames(40)
    made.start()
    made.resumes(times=2)
    film.wait_frames(20)
    made.ask("record stop")
    first, second = sorted(made.clips(), key=lambda clip: numbers(clip)[0])
    # A ring of half a second: on a busy machine it may lose frames within a file, too.
    within = {clip: numbers(clip)[-1] - numbers(clip)[0] + 1 - len(numbers(clip)) for clip in (first, second)}
    missing = numbers(second)[0] - check_clip(first, film, drops=within[first])[-1] - 1
    assert missing > 0
    check_clip(second, film, drops=missing + within[second])
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        entries = until(lambda: len(found := library.find(kinds=["session"])) == 2 and found, 10)
    assert sorted(entry.drops for entry in entries) == [within[first], missing + within[second]]


def test_rolling_clips_are_cut_and_the_oldest_go(filming):
    made, film = filming(mode="rolling", auto_start=True, recording_duration_minutes=1 / 60, rolling_clips_count=2)
    folder = made.recordings / "rolling" / "cam0"
    until(lambda: made.log().count("recording ended") >= 4, 20, made.log())
    until(lambda: "deleted path=" in made.log(), 10, made.log())
    made.ask("record stop")
    until(lambda: len(list(folder.glob("*.mp4"))) == 2, 10, made.log())
    ids = [number for clip in sorted(folder.glob("*.mp4"), key=os.path.getmtime) for number in check_clip(clip, film)]
    assert ids == list(range(ids[0], ids[-1] + 1)), "no frame between two clips is missing"
    until(lambda: len(list(folder.glob("*.csv"))) == 2, 10, "the CSV goes with its clip, after it")


def test_several_cameras_start_and_stop_with_the_frames_of_one_instant(rig):
    made = rig()
    made.write_config(cameras={"cam0": {}, "cam1": {}})
    made.start_hub()
    films = [made.camera("cam0"), made.camera("cam1")]
    made.start("cam0")
    made.start("cam1")
    made.ready("recorder")
    made.ready("recorder-cam1")
    until(lambda: "cam1" in made.ask("record status").data.get("cameras", {}), 10)
    running = threading.Event()

    def run():
        start, number = time.monotonic(), 0
        while not running.wait(max(0.0, start + number / 30 - time.monotonic())):
            at_ns = now_ns()
            [film.publish(at_ns) for film in films]
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        films[1].wait_frames(5)
        reply = made.ask("record start")
        assert set(reply.data["cameras"]) == {"cam0", "cam1"}, reply
        films[1].wait_frames(30)
        assert made.ask("record stop").ok
    finally:
        running.set()
        thread.join()
    clips = {clip.name[:4]: clip for clip in made.clips()}
    assert len(clips) == 2 and len({clip.parent for clip in clips.values()}) == 1, "one session folder"
    short, long = sorted((check_clip(clips[film.name], film) for film in films), key=len)
    assert long[: len(short)] == short, "the same frames"
    assert len(long) - len(short) <= TOLD_LATE


@pytest.mark.parametrize("container", ["mkv", "h264"])
def test_other_containers_play_and_have_every_frame(filming, container):
    made, film = filming(container=container)
    made.ask("record start")
    film.wait_frames(30)
    assert made.ask("record stop").ok
    (clip,) = made.clips(f"*.{container}")
    ids = numbers(clip)
    assert ids == [int(line["frame_number"]) for line in rows(timing_of(clip))]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    if container == "mkv":
        check_clip(clip, film)


@pytest.mark.parametrize("key", ["recorder.csv", "cameras.cam0.recorder.csv"])
def test_the_csv_can_be_switched_off_live(filming, key):
    """A camera's own value hid a change of it."""
    made, film = filming(tables={"cameras": {"cam0": {"recorder": {"csv": True}}}} if "cam0" in key else None)
    assert made.ask(f"set {key} false").ok
    made.ask("record start")
    film.wait_frames(15)
    made.ask("record stop")
    assert made.clips() and not list(made.recordings.rglob("*.csv"))


def test_limits_of_the_library_that_are_set_live_count_for_the_next_recording(filming):
    made, _ = filming(on_close="plain")
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        for _ in range(2):
            assert made.ask("record start").ok
            made.written(5)
            assert made.ask("record stop").ok
            until(library.find, 10, made.log)
            assert made.ask("set library.clips_max_count 1").ok
        until(lambda: "deleted path=" in made.log(), 10, made.log)
    assert len(made.clips()) == 1


def test_the_overlay_can_be_switched_on_while_it_records_and_the_ring_stays_clean(filming):
    made, film = filming(overlay={"place": "bottom-left", "text": "Garden", "font_scale_base": 3.0})
    made.ask("record start")
    film.wait_frames(20)
    assert made.ask("set recorder.overlay.enable true").ok
    film.wait_frames(30)
    made.ask("record stop")
    (clip,) = made.clips()
    check_clip(clip, film)
    shown = [frame.to_ndarray(format="gray")[280:, :300].astype(int) for frame in av.open(str(clip)).decode(video=0)]
    plain = np.abs(shown[5] - shown[0]).mean()
    assert plain < 8 < np.abs(shown[-1] - shown[0]).mean(), "text appears at the bottom left"
    with RingReader.open(film.writer.name) as reader, reader.borrow(reader.head - 1) as frame:
        assert np.abs(frame.luma[280:, :300].astype(int) - shown[0]).mean() < 8, "but not in the ring"
        del frame


def test_drops_of_the_camera_are_gaps_in_time_and_in_the_csv(rig):
    """Decoded frames plus drops is what the sensor counted."""
    made = rig(auto_start=True)
    made.start()
    made.ready()
    film = made.camera(slots=256, size=(320, 180))
    at_ns, sensor = now_ns(), 0
    for number in range(90):
        lost = {20: 1, 40: 3, 41: 2, 70: 10}.get(number, 0)
        at_ns += PERIOD_NS * (1 + lost)
        sensor += 1 + lost
        film.publish(at_ns, dropped=lost)
        time.sleep(0.005)
    made.written(90)
    assert made.stop(made.processes[-1]) == 0
    (clip,) = made.clips()
    ids = check_clip(clip, film, drops=16)
    lines = rows(timing_of(clip))
    assert len(ids) == 90 and len(ids) + 16 == sensor
    gaps = {int(line["frame_number"]): int(line["dropped_since_last"]) for line in lines}
    assert {number: gap for number, gap in gaps.items() if gap} == {20: 1, 40: 3, 41: 2, 70: 10}
    assert int(lines[-1]["total_hardware_drops"]) == 16
    assert list(lines[0]) == [
        "frame_number", "write_time_unix", "sensor_timestamp_ns", "dropped_since_last", "total_hardware_drops",
    ]  # fmt: skip


def test_night_frames_of_two_seconds_and_a_change_of_size_begin_new_files(rig):
    """Mode and size change: one file closes, the next opens, every picture has its own time."""
    made = rig(auto_start=True)
    made.start()
    made.ready()
    small = made.camera(slots=64)
    at_ns = now_ns()
    for _ in range(30):
        at_ns += PERIOD_NS
        small.publish(at_ns)
        time.sleep(0.003)
    for _ in range(5):
        at_ns += 2_000_000_000
        small.publish(at_ns, period_ns=2_000_000_000, night=True)
        time.sleep(0.003)
    for _ in range(10):
        at_ns += PERIOD_NS
        small.publish(at_ns)
        time.sleep(0.003)
    made.written(45)
    small.close()
    made.cameras.remove(small)
    large = made.camera(size=(802, 602), slots=16)
    for _ in range(10):
        at_ns += PERIOD_NS
        large.publish(at_ns)
        time.sleep(0.003)
    made.written(55)
    assert made.stop(made.processes[-1]) == 0
    clips = sorted(made.clips(), key=lambda clip: numbers(clip)[0])
    assert [clip.name.split("_")[1] for clip in clips] == ["640x360", "640x360", "640x360", "802x602"]
    assert [clip.name.split("_")[2] for clip in clips] == ["30.0fps", "0.5fps", "30.0fps", "30.0fps"]
    assert [len(check_clip(clip, small)) for clip in clips[:3]] == [30, 5, 10]
    assert len(check_clip(clips[3], large)) == 10
    night = [pts for pts, _ in decoded(clips[1])]
    assert night == [number * 2_000_000 for number in range(5)]


def test_a_wall_clock_that_is_set_begins_another_file_and_no_time_within_goes_wrong(rig):
    """1970 at boot, then NTP; later somebody sets it back: names tell the new time, no frame and no file is lost."""
    made = rig(auto_start=True)
    made.start()
    made.ready()
    film = made.camera(slots=128)
    day_ns = 86_400_000_000_000
    for set_ns in (-365 * day_ns, 0, 500_000_000, -2 * day_ns):
        film.clock_set_ns = set_ns
        film.run(0.6)
    made.written(72)
    assert made.stop(made.processes[-1]) == 0
    assert made.log().count("reason=the clock was set") == 2
    clips = sorted(made.clips(), key=lambda clip: numbers(clip)[0])
    assert [len(check_clip(clip, film)) for clip in clips] == [18, 36, 18]
    assert len({clip.parent for clip in clips}) == 1, "still one recording"
    for clip in clips:
        first = next(meta for meta in film.published if meta.frame_id == numbers(clip)[0])
        assert to_stamp(first.captured_utc_ns) in clip.name


def test_the_oldest_rolling_clips_go_though_the_clock_says_otherwise(rig):
    """Somebody sets the clock back a year and on again: what was recorded in between is not the oldest."""
    made = rig(mode="rolling", auto_start=True, recording_duration_minutes=1 / 60, rolling_clips_count=5)
    made.start()
    made.ready()
    film, at_ns = made.camera(size=(320, 180), slots=256), now_ns()
    for set_ns in (0, -365 * 86_400_000_000_000, 0):
        film.clock_set_ns = set_ns
        for _ in range(75):
            at_ns += PERIOD_NS
            film.publish(at_ns)
            time.sleep(0.003)
    until(lambda: made.log().count("deleted path=") == 3, 20, made.log)  # of nine clips the last one is still open
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        entries = sorted(library.find(), key=lambda entry: entry.first_frame)
    assert [entry.path for entry in entries] == sorted(made.clips(), key=lambda clip: numbers(clip)[0])
    ids = [number for entry in entries for number in check_clip(entry.path, film)]
    assert ids == list(range(film.published[75].frame_id, ids[-1] + 1)), "all from the year before on, without a hole"
    firsts = {meta.frame_id: meta.captured_utc_ns for meta in film.published}
    for entry in entries:
        assert entry.started_utc_ns == firsts[entry.first_frame] and to_stamp(entry.started_utc_ns) in entry.path.name
    assert len(entries) == 5 and len({entry.path.name.split("_")[3][:4] for entry in entries}) == 2, "of both years"
    assert made.stop(made.processes[-1]) == 0


def test_a_second_recorder_of_a_camera_is_refused_and_names_the_first(rig):
    made = rig()
    first = made.start()
    made.ready()
    second = made.start()
    assert second.wait(20) == 1
    assert f"pid {first.pid}" in made.log()
    assert first.poll() is None
