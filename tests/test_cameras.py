"""Several cameras: one process and one ring each, pictures and clips of one instant, hot to add and to remove."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import tomlkit

from shm_ring import RingReader
from tests.machine import until
from tests.pipeline import Pipeline
from tests.reading import number_in, number_in_jpeg, numbers_in_clip

CAMERAS = {"cam0": {"width": 320, "height": 240}, "cam1": {"width": 256, "height": 192}}


@pytest.fixture(scope="module")
def shmcam():
    with Pipeline(cameras=CAMERAS, night={"enable": False}) as pipeline:
        until(lambda: pipeline.frames("cam1"), 30, lambda: "frames of cam1\n" + pipeline.logs("capture-cam1"))
        until(lambda: pipeline.states().get("recorder-cam1") == "RUNNING", 30, "cam1's recorder")
        yield pipeline


def test_each_camera_has_its_processes_its_ring_and_its_log(shmcam):
    assert {"capture", "capture-cam1", "recorder", "recorder-cam1", "analyzer-cam1"} <= set(shmcam.states())
    for camera, size in CAMERAS.items():
        with RingReader.open(shmcam.ring_name(camera)) as ring, ring.borrow(ring.latest()) as frame:
            assert (frame.geometry.width, frame.geometry.height) == (size["width"], size["height"])
        assert number_in_jpeg(shmcam.http(f"/cam/{camera}/snapshot.jpg")) is not None
    assert "ready" in shmcam.logs("capture-cam1")


def test_shmcam_cameras_lists_what_there_is_and_what_is_delivered(shmcam):
    listed = shmcam.shmcam("cameras")
    assert listed.returncode == 0, listed.stderr
    assert "simulated sensor" in listed.stdout and "cam0" in listed.stdout and "cam1" in listed.stdout
    rows = json.loads(shmcam.shmcam("--json", "cameras").stdout)
    assert {"source", "index", "model", "device_id", "modes", "busy"} <= set(rows["found"][-1])
    assert [row["camera"] for row in rows["configured"]] == ["cam0", "cam1"]


def test_a_group_restart_touches_one_camera_only(shmcam):
    mine = shmcam.pid("capture")
    assert "started" in shmcam.supervisorctl("restart", "cam1:*")
    until(lambda: shmcam.frames("cam1"), 30, "cam1 to come back")
    assert shmcam.pid("capture") == mine


def test_snapshot_takes_all_cameras_at_one_instant_and_tells_the_error(shmcam):
    error_ms, shown_ns, gaps_ns = until(lambda: _measured_snapshot(shmcam), 30, "a snapshot that is still in the rings")
    assert error_ms == pytest.approx(abs(shown_ns[0] - shown_ns[1]) / 1e6, abs=0.06)
    assert error_ms <= sum(gaps_ns) / 2e6, "each is the nearest frame of those that its camera delivered"


def _measured_snapshot(shmcam):
    """What a snapshot says its error is, the times of its frames, and the longest gaps; None: it was overwritten."""
    reply = shmcam.text("snapshot", 30)
    names = re.findall(r"(\S*snapshot_cam(\d)_\d{8}_\d{6}\S*\.jpg)", reply)
    assert {index for _, index in names} == {"0", "1"}, reply
    shown_ns, gaps_ns = [], []
    for name, index in names:
        with RingReader.open(shmcam.ring_name(f"cam{index}")) as ring:
            times_ns = {meta.frame_id: meta.captured_ns for meta in map(ring.meta, ring.last(50))}
        number = number_in(shmcam.folder / name)
        assert number is not None
        if number not in times_ns:
            return None
        shown_ns.append(times_ns[number])
        gaps_ns.append(max(later - earlier for earlier, later in pairwise(times_ns.values())))
    return float(re.search(r"([\d.]+) ?ms", reply)[1]), shown_ns, gaps_ns


def test_recordings_of_all_cameras_start_and_stop_with_one_instant_and_a_snapshot_is_taken_meanwhile(shmcam):
    shmcam.text("record start")
    head = shmcam.frames()
    until(lambda: shmcam.frames() > head + 30, 30, "a second")
    reply = shmcam.json({"command": "snapshot"}, 30)
    until(lambda: shmcam.frames() > head + 60, 30, "two seconds")
    shmcam.text("record stop", 30)
    clips = until(lambda: _both(shmcam), 20, "a clip of each camera")
    assert len({clip.parent for clip in clips}) == 1, "one session folder"
    lines = {clip.name[:4]: _timing(clip) for clip in clips}
    for at in (0, -1):  # the cameras run free: less than a period apart, two where a busy machine lost a frame
        apart_ns = abs(lines["cam0"][at] - lines["cam1"][at])
        assert apart_ns < 2.5e9 / 30, f"{apart_ns / 1e6} ms"
    for clip in clips:
        numbers = numbers_in_clip(clip)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "the snapshot cost no frame"
        shot = next(path for path in _paths(reply) if f"snapshot_cam{clip.name[3]}_" in path.name)
        assert number_in(shot) in numbers, "the snapshot shows a frame of the recording"


def _timing(clip):
    csv = clip.with_name(clip.stem + "_frame_timing.csv").read_text().splitlines()[1:]
    return [int(line.split(",")[2]) for line in csv]


def _paths(reply):
    found = re.findall(r"[^\s\"]*snapshot_cam\d_\d{8}_\d{6}\S*?\.jpg", json.dumps(reply))
    return [Path(path) for path in found]


def _both(shmcam):
    clips = sorted((shmcam.folder / "recordings").glob("session_*/cam[01]_*.mp4"))
    return clips if len(clips) == 2 else None


def test_a_camera_is_added_and_removed_by_editing_config_and_supervisorctl_update(shmcam):
    """It is whole: commands, pictures, stream, settings and page know it, and forget it, without another restart."""
    mine, recorder = shmcam.pid("capture"), shmcam.pid("recorder")
    document = tomlkit.parse(shmcam.config.read_text())
    document["cameras"]["cam2"] = {"width": 192, "height": 144}
    shmcam.config.write_text(tomlkit.dumps(document))
    until(lambda: "cam2: added process group" in shmcam.supervisorctl("update"), 20, "cam2 to be added")
    until(lambda: shmcam.frames("cam2"), 30, lambda: "frames of cam2\n" + shmcam.logs("capture-cam2"))
    saved = until(lambda: _done(shmcam, "save cam2"), 40, lambda: shmcam.logs("watchdog"))
    assert "cam2" in saved, saved
    until(lambda: _camera_names(shmcam) == ["cam0", "cam1", "cam2"], 30, "the page's list")
    assert number_in_jpeg(shmcam.http("/cam/cam2/snapshot.jpg")) is not None
    assert "snapshot_cam2_" in until(lambda: _done(shmcam, "snapshot"), 30, "a snapshot")
    assert _done(shmcam, "set cameras.cam2.night.dark_threshold 33")
    del document["cameras"]["cam2"]
    shmcam.config.write_text(tomlkit.dumps(document))
    until(lambda: "cam2: removed process group" in shmcam.supervisorctl("update"), 20, "cam2 to be removed")
    until(lambda: not list(shmcam.segments()[0].parent.glob(f"{shmcam.prefix}.cam2.*")), 10, "its rings to go")
    until(lambda: "no camera 'cam2'" in shmcam.text("save cam2", 30), 40, lambda: shmcam.logs("watchdog"))
    until(lambda: _camera_names(shmcam) == ["cam0", "cam1"], 30, "the page to forget it")
    assert shmcam.frames("cam0") and shmcam.frames("cam1")
    assert (shmcam.pid("capture"), shmcam.pid("recorder")) == (mine, recorder), "other processes do not notice"


def _done(shmcam, command):
    """The reply to a command, or "" if it is an error: the program that answers is being restarted."""
    reply = shmcam.text(command, 30)
    return "" if reply.startswith("ERROR") else reply


def _camera_names(shmcam):
    try:
        return [camera["name"] for camera in json.loads(shmcam.http("/api/v1/cameras"))["cameras"]]
    except OSError:
        return []  # the streamer is being restarted
