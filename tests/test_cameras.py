"""Several cameras: one process and one ring each, pictures and clips of one instant, hot to add and to remove."""

from __future__ import annotations

import json
import re

import pytest
import tomlkit

from shm_ring import RingReader
from tests.pipeline import Pipeline, until
from tests.reading import number_in, number_in_jpeg, numbers_in_clip

CAMERAS = {"cam0": {"width": 640, "height": 480}, "cam1": {"width": 480, "height": 360}}


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
    reply = shmcam.text("snapshot", 30)
    names = re.findall(r"(\S*snapshot_cam(\d)_\d{8}_\d{6}\S*\.jpg)", reply)
    assert {index for _, index in names} == {"0", "1"}, reply
    error_ms = float(re.search(r"([\d.]+) ?ms", reply)[1])
    assert error_ms <= 17.0, "nearest frames of two 30 fps cameras are at most half a period apart"
    for name, _ in names:
        assert number_in(shmcam.folder / name) is not None


def test_recordings_of_all_cameras_start_and_stop_together(shmcam):
    shmcam.text("record start")
    head = shmcam.frames()
    until(lambda: shmcam.frames() > head + 60, 30, "two seconds")
    shmcam.text("record stop", 30)
    clips = until(lambda: _both(shmcam), 20, "a clip of each camera")
    assert len({clip.parent for clip in clips}) == 1, "one session folder"
    counts = [len(numbers_in_clip(clip)) for clip in clips]
    assert abs(counts[0] - counts[1]) <= 3, counts


def _both(shmcam):
    clips = sorted((shmcam.folder / "recordings").glob("session_*/cam[01]_*.mp4"))
    return clips if len(clips) == 2 else None


def test_a_camera_is_added_and_removed_by_editing_config_and_supervisorctl_update(shmcam):
    document = tomlkit.parse(shmcam.config.read_text())
    document["cameras"]["cam2"] = {"width": 320, "height": 240}
    shmcam.config.write_text(tomlkit.dumps(document))
    until(lambda: "cam2: added process group" in shmcam.supervisorctl("update"), 20, "cam2 to be added")
    until(lambda: shmcam.frames("cam2"), 30, lambda: "frames of cam2\n" + shmcam.logs("capture-cam2"))
    del document["cameras"]["cam2"]
    shmcam.config.write_text(tomlkit.dumps(document))
    until(lambda: "cam2: removed process group" in shmcam.supervisorctl("update"), 20, "cam2 to be removed")
    until(lambda: not list(shmcam.segments()[0].parent.glob(f"{shmcam.prefix}.cam2.*")), 10, "its rings to go")
    assert shmcam.frames("cam0") and shmcam.frames("cam1")
