"""The whole of shmcam, supervisord and all, on two simulated Raspberry Pi cameras."""

from __future__ import annotations

import csv
import re
import signal
from itertools import pairwise
from pathlib import Path

import cv2
import pytest

from shm_ring import Flags, RingError, RingReader
from shmcam.imaging import frame_number_code
from tests.machine import until
from tests.picamera2.camera import Rig
from tests.pipeline import Pipeline
from tests.reading import number_in, number_in_jpeg, numbers_in_clip

pytestmark = [pytest.mark.picamera2, pytest.mark.timeout(180)]

CAMERAS = {"cam0": {"width": 1280, "height": 720}, "cam1": {"width": 1456, "height": 1088, "framerate": 60}}
NIGHT = {"exposure_us": 250_000, "gain": 4.0, "dwell_s": 1, "hold_s": 1, "min_dark_frames": 5}


@pytest.fixture(scope="module")
def switches(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder: Path = tmp_path_factory.mktemp("ctl")
        monkeypatch.setenv("RIG_CTL", str(folder))
        yield Rig(folder, monkeypatch)


@pytest.fixture(scope="module")
def shmcam(switches):
    camera = {"source": "auto", "lost_after_s": 2, "capture_timeout_s": 1}
    recorder = {"encoder": "libx264", "preset": "ultrafast"}
    with Pipeline(cameras=CAMERAS, camera=camera, night=NIGHT, recorder=recorder) as pipeline:
        until(lambda: pipeline.frames("cam1"), 30, "frames of cam1\n" + pipeline.logs("capture-cam1"))
        pipeline.wait_running()
        yield pipeline


def frames(shmcam, count, camera="cam0"):
    """The newest frames of a camera: frame id, number drawn by the sensor, metadata."""
    with RingReader.open(shmcam.ring_name(camera)) as ring:
        taken = [ring.copy(sequence) for sequence in ring.last(count)]
    return [(frame.frame_id, frame_number_code.read(frame.luma), frame.meta, frame.geometry) for frame in taken]


def newest(shmcam, camera="cam0"):
    try:
        return frames(shmcam, 1, camera)[0]
    except (RingError, IndexError):
        return None


def test_auto_finds_the_cameras_and_says_why(shmcam):
    log = shmcam.logs("capture")
    assert "imx708 (picamera2 0)" in log
    assert "auto: picamera2 answers" in log
    assert "imx296 (picamera2 1)" in shmcam.logs("capture-cam1")


def test_detect_lists_both_with_model_and_sizes(shmcam):
    text = shmcam.text("detect", 20)
    assert re.search(r"imx708.*4608x2592.*2304x1296.*1536x864", text), text
    assert re.search(r"imx296.*1456x1088", text), text


@pytest.mark.parametrize("camera", CAMERAS)
def test_slots_hold_the_sensors_frames_in_order_with_their_metadata(shmcam, camera):
    until(lambda: shmcam.frames(camera) > 40, 20)
    taken = frames(shmcam, 20, camera)
    for (before_id, before, old, _), (after_id, after, new, shape) in pairwise(taken):
        assert after_id == before_id + 1
        assert after - before == 1 + new.dropped_before, "the sensor's own numbering agrees with the drop counter"
        assert (new.captured_ns - old.captured_ns) / 1000 == pytest.approx(
            new.frame_duration_us * (1 + new.dropped_before), rel=0.01
        )
        assert (shape.width, shape.height) == (CAMERAS[camera]["width"], CAMERAS[camera]["height"])
        assert new.exposure_us > 0 and new.analogue_gain >= 1 and new.colour_temperature_k == 4500
        assert new.lux == pytest.approx(400, rel=0.05)


def test_a_saved_picture_is_the_frame_it_names(shmcam):
    reply = shmcam.text("save jpg", 20)
    path = shmcam.folder / re.search(r"image: (\S+\.jpg)", reply)[1]
    named = int(re.search(r"_f(\d+)(?:_\d+)?\.jpg", path.name)[1])
    numbers = {frame_id: number for frame_id, number, _, _ in frames(shmcam, 60)}
    assert number_in(path) == numbers[named], "the sensor's number, which is not the ring's"
    assert cv2.imread(str(path)).shape == (720, 1280, 3)
    assert number_in_jpeg(shmcam.http("/cam/cam1/snapshot.jpg")) is not None


def test_clips_of_both_cameras_hold_every_frame_of_the_sensor(shmcam):
    assert "ERROR" not in shmcam.text("record start", 20)
    head = shmcam.frames()
    until(lambda: shmcam.frames() > head + 60, 30, "two seconds")
    assert "ERROR" not in shmcam.text("record stop", 30)
    clips = until(lambda: _finished(shmcam), 30, "both clips")
    for clip in clips:
        numbers = numbers_in_clip(clip)
        with next(clip.parent.glob(f"{clip.name[:4]}*_frame_timing.csv")).open() as file:
            lost = sum(int(row["dropped_since_last"]) for row in list(csv.DictReader(file))[1:])
        assert len(numbers) >= 50
        assert numbers == sorted(set(numbers))
        assert numbers[-1] - numbers[0] + 1 - len(numbers) == lost, "a missing number is one the CSV tells of"


def _finished(shmcam):
    clips = sorted((shmcam.folder / "recordings").glob("session_*/*.mp4"))
    return clips if len(clips) == 2 else []


def test_a_control_set_on_the_socket_is_seen_in_the_next_frames(shmcam):
    with RingReader.open(shmcam.ring_name()) as ring:
        generation = ring.generation
    assert shmcam.text("set cameras.cam0.controls.ExposureValue -2").startswith("OK")
    until(lambda: newest(shmcam)[2].exposure_us * newest(shmcam)[2].analogue_gain < 5000, 10, "a darker exposure")
    assert shmcam.text("set cameras.cam0.controls.ExposureValue 0").startswith("OK")
    until(lambda: newest(shmcam)[2].exposure_us * newest(shmcam)[2].analogue_gain > 14_000, 10, "the old exposure")
    with RingReader.open(shmcam.ring_name()) as ring:
        assert ring.generation == generation, "no new ring for a control"


def test_dusk_brings_still_mode_and_dawn_ends_it(shmcam, switches):
    """The analyzer judges by what the simulated sensor delivers, and capture exposes as it asks."""
    switches.put("lux-0", 0.05)
    until(lambda: newest(shmcam)[2].exposure_us > 100_000, 60, "a night exposure\n" + shmcam.text("night_level"))
    late = [meta for _, _, meta, _ in frames(shmcam, 40) if meta.flags & Flags.NIGHT and meta.exposure_us < 100_000]
    assert len(late) >= 5, "frames that were in the camera's queue when still mode was asked for"
    assert all(meta.flags & Flags.SETTLING for meta in late), "nobody may judge night by them"
    until(lambda: not newest(shmcam)[2].flags & Flags.SETTLING, 20, "settled frames")
    assert newest(shmcam)[2].flags & Flags.NIGHT
    assert "STATUS=NIGHT" in shmcam.text("night_level cam0")
    switches.put("lux-0", 400)
    until(lambda: newest(shmcam)[2].exposure_us < 34_000, 60, "video mode again\n" + shmcam.text("night_level"))
    until(lambda: "STATUS=DAY" in shmcam.text("night_level cam0"), 20)
    assert "still" in shmcam.logs("capture")


def test_a_pulled_cable_is_reported_and_frames_return_with_it(shmcam, switches):
    other = shmcam.frames("cam1")
    switches.put("unplug-0")
    until(
        lambda: "stalled" in shmcam.text("status") or "no camera" in shmcam.text("status"), 15, "the status to say so"
    )
    until(lambda: "imx708@10 is gone" in shmcam.logs("capture"), 20, "the log to say so")
    switches.remove("unplug-0")
    last = shmcam.frames()
    until(lambda: shmcam.frames() > last + 10, 20, "frames again")
    until(lambda: newest(shmcam)[1] is not None, 5)
    assert shmcam.frames("cam1") > other + 60, "the other camera never noticed"


def test_a_stop_that_hangs_costs_one_restart(shmcam, switches):
    """Retirement of the camera hangs in libcamera; the process ends itself and supervisord brings a new one."""
    pid = shmcam.pid("capture")
    switches.put("hangstop-0")
    assert shmcam.text("set cameras.cam0.width 640").startswith("OK")
    until(lambda: shmcam.pid("capture") not in (0, pid), 30, "a new process")
    switches.remove("hangstop-0")
    until(lambda: "close_camera" in shmcam.logs("capture"), 10, "the traceback of the call that hung")
    assert shmcam.text("set cameras.cam0.width 1280").startswith("OK")
    until(lambda: (now := newest(shmcam)) and now[3].width == 1280, 30, "frames again")


def test_capture_killed_outright_is_back_with_its_history(shmcam):
    before = newest(shmcam)[0]
    shmcam.kill("capture", signal.SIGKILL)
    until(lambda: (now := newest(shmcam)) and now[0] > before + 30 and now[1] < now[0], 30, "frames again")
