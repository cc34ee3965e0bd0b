"""The capture process as other processes see it: through its rings, its socket and its exit code."""

import itertools
import signal
import time

import numpy as np
import psutil
import pytest

from shm_ring import Flags, LiveRing, RingError
from shmcam.control.messages import ModeRequested, NightBegan, NightEnded
from shmcam.imaging import frame_number_code
from tests.capture.harness import Processes
from tests.capture.sources.test_video import BIKES
from tests.machine import anonymous_bytes, until


def newest(world, camera="cam0", stream="main"):
    with world.reader(camera, stream) as ring:
        return ring.copy(ring.latest())


def width(world):
    """The newest frame's; 0 while the old ring is gone and the next one has none."""
    try:
        with world.reader() as ring:
            sequence = ring.latest()
            return 0 if sequence is None else ring.copy(sequence).geometry.width
    except RingError:
        return 0


def follow(world, count, start="new"):
    """The next `count` frames of the ring, copied."""
    live = LiveRing(world.name())
    frames = []
    for found in live.sequences(start=start):
        if found is not None:
            frames.append(found[0].copy(found[1]))
        if len(frames) == count:
            return frames
    raise AssertionError("the ring ended")


LIBCAMERA = """
import ctypes
from pathlib import Path
getenv = ctypes.CDLL(None).getenv  # as libcamera reads it, in C
getenv.restype = ctypes.c_char_p
Path(__file__).with_name("levels").write_text(str(getenv(b"LIBCAMERA_LOG_LEVELS").decode()))
raise ImportError("only a test")
"""


@pytest.mark.parametrize(("environ", "levels"), [({}, "*:ERROR"), ({"LIBCAMERA_LOG_LEVELS": "RPI:DEBUG"}, "RPI:DEBUG")])
def test_libcamera_s_log_is_as_loud_as_the_settings_say(tmp_path, monkeypatch, environ, levels):
    """No code read the key."""
    (tmp_path / "picamera2.py").write_text(LIBCAMERA)
    monkeypatch.delenv("LIBCAMERA_LOG_LEVELS", raising=False)
    for name, value in {**environ, "PYTHONPATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with Processes(camera={"source": "picamera2"}, logging={"libcamera": "ERROR"}) as world:
        world.start_capture(frames=False)
        until(lambda: (tmp_path / "levels").exists() and "only a test" in world.log(), 20, "libcamera is imported")
        assert (tmp_path / "levels").read_text() == levels


def test_frames_bear_their_number_in_the_pixels_and_everything_is_told_of_them():
    with Processes() as world:
        capture = world.start_capture()
        frames = follow(world, 40)
        assert [frame_number_code.read(frame.luma) for frame in frames] == [frame.frame_id for frame in frames]
        for one, two in itertools.pairwise(frames):
            assert two.frame_id == one.frame_id + 1
            assert two.captured_ns > one.captured_ns
            assert two.meta.total_dropped - one.meta.total_dropped == two.meta.dropped_before
        meta = frames[-1].meta
        assert meta.exposure_us > 0 and meta.analogue_gain >= 1 and meta.lux > 0
        assert abs(meta.frame_duration_us - 33_333) <= 1
        assert abs(meta.captured_utc_ns - time.time_ns()) < 60e9
        assert not meta.flags & (Flags.NIGHT | Flags.MASKED)
        assert world.stop(capture) == 0
        assert world.segments() == []


def test_frame_ids_go_on_over_kill_9_and_the_old_frames_are_still_there():
    with Processes() as world:
        capture = world.start_capture()
        until(lambda: world.head() > 10, 20)
        assert world.stop(capture, signal.SIGKILL) == -signal.SIGKILL
        before = newest(world)
        world.start_capture(frames=False)
        until(lambda: world.head() > before.sequence + 3, 20)
        with world.reader() as ring:
            assert ring.copy(before.sequence).frame_id == before.frame_id
            after = ring.copy(before.sequence + 1)
        assert after.frame_id == before.frame_id + 1
        assert frame_number_code.read(after.luma) == after.frame_id


def test_a_second_capture_of_the_same_camera_waits_and_names_the_first():
    with Processes() as world:
        world.start_hub()
        first = world.start_capture()
        second = world.start("capture")
        until(lambda: f"pid {first.pid} is writing it" in world.log(), 20)
        head = world.head()
        until(lambda: world.head() > head + 5, 20)
        assert second.poll() is None
        world.stop(first)
        until(lambda: world.head() > 3, 20, "the second to take over")


@pytest.fixture(scope="module")
def running():
    """A hub and a capture for the tests that leave it as it was."""
    with Processes() as world:
        world.start_hub()
        world.start_capture()
        yield world


def test_size_changes_make_a_new_generation_that_readers_follow(running):
    live, sizes = LiveRing(running.name()), []
    for found in live.sequences(idle_s=0.2):
        if found is None:
            continue
        with found[0].borrow(found[1]) as frame:
            size = (frame.geometry.width, frame.geometry.height)
            assert frame.payload.size == frame.geometry.payload_bytes
        if size not in sizes:
            sizes.append(size)
            if len(sizes) == 1:
                assert running.ask("set camera.width 176").ok
            elif size == (176, 240):
                assert running.ask("set camera.preset 7").ok
                sizes.remove((320, 240))
            else:
                break
    assert sizes == [(176, 240), (320, 240)]
    assert "changed width 320 → 176" in running.log()


def test_mode_changes_are_obeyed_announced_and_logged_old_to_new():
    with Processes(camera={"framerate": 60}) as world:
        world.start_hub()
        world.start_capture()
        with world.client(subscribe=("mode_changed",)) as analyzer:
            until(lambda: analyzer.is_connected, 10)
            analyzer.announce(ModeRequested(camera="cam0", mode="still", exposure_us=90_000, gain=4.0))
            heard = until(lambda: [r.message for r in analyzer.receive()], 10)[0]
            assert (heard.old, heard.new) == ("video", "still")
            assert heard.changes["exposure_us"] == [0, 90_000]
            until(lambda: newest(world).meta.exposure_us == 90_000, 10)
            frames = follow(world, 30, start="oldest")
            asked = [abs(f.meta.exposure_us * f.meta.analogue_gain / 360_000 - 1) < 0.1 for f in frames]
            settling = [bool(f.meta.flags & Flags.SETTLING) for f in frames]
            first = asked.index(True)
            assert first > 0 and settling[first - 1], "frames exposed the old way are marked"
            assert not any(settling[first:]), "frames exposed as asked are not"
            for one, two in itertools.pairwise(frames[first:]):
                in_time = two.captured_ns - one.captured_ns < 1.5 * 90e6  # or this machine was busy
                assert two.meta.dropped_before == 0 or not in_time, "long frames are no drops"
            assert frames[-1].meta.flags & Flags.NIGHT
            analyzer.announce(ModeRequested(camera="cam0", mode="still", exposure_us=60_000, gain=4.0))
            until(lambda: newest(world).meta.exposure_us == 60_000, 10)
            analyzer.announce(ModeRequested(camera="cam0", mode="video"))
            heard = until(lambda: [r.message for r in analyzer.receive()], 10)
            assert [(event.old, event.new) for event in heard] == [("still", "video")], "a longer exposure is no mode"
            until(lambda: newest(world).meta.exposure_us < 17_000, 10)
        assert "changed mode video → still" in world.log()
        assert "changed exposure_us 90000 → 60000" in world.log()
        assert "changed exposure_us 60000 → 0" in world.log()


def test_controls_act_live_and_only_on_the_camera_that_was_meant():
    with Processes(cameras={"cam0": {}, "cam1": {"synthetic": {"seed": 9}}}) as world:
        world.start_hub()
        world.start_capture()
        world.start_capture(camera="cam1")
        for camera in ("cam0", "cam1"):
            until(lambda camera=camera: not newest(world, camera).meta.flags & Flags.SETTLING, 20, "auto exposure")
        before = [float(newest(world, camera).luma[60:].mean()) for camera in ("cam0", "cam1")]
        assert world.ask("set cameras.cam1.controls.Brightness 0.3").ok
        until(lambda: newest(world, "cam1").luma[60:].mean() > before[1] + 30, 10)
        assert abs(newest(world, "cam0").luma[60:].mean() - before[0]) < 10
        assert world.ask("set camera.framerate 12").ok
        until(lambda: newest(world).meta.frame_duration_us > 80_000, 10)


def test_night_is_a_flag_on_every_frame_while_it_lasts(running):
    with running.client() as analyzer:
        analyzer.announce(NightBegan(camera="cam0"))
        until(lambda: newest(running).meta.flags & Flags.NIGHT, 10)
        analyzer.announce(NightEnded(camera="cam0"))
        until(lambda: not newest(running).meta.flags & Flags.NIGHT, 10)


@pytest.mark.parametrize("codec", ["yuv420", "nv12", "rgb888"])
def test_the_small_ring_has_the_same_frames_smaller(codec):
    with Processes(camera={"codec": codec}, ring={"downscale": {"enable": True, "width": 160, "height": 120}}) as world:
        world.start_capture()
        until(lambda: world.head(stream="lores") > 20, 20)
        with world.reader() as full, world.reader(stream="lores") as small:
            for sequence in small.last(5):
                little = small.copy(sequence)
                large = full.copy(sequence)
                assert (little.geometry.width, little.geometry.height) == (160, 120)
                assert (little.frame_id, little.captured_ns) == (large.frame_id, large.captured_ns)
                shrunk = large.bgr.reshape(120, 2, 160, 2, 3).mean((1, 3))
                assert np.abs(little.bgr[20:].astype(float) - shrunk[20:]).mean() < 4


def test_masked_pixels_never_reach_the_ring():
    polygons = [[[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]]
    with Processes(privacy={"enable": True, "polygons": polygons}) as world:
        world.start_hub()
        world.start_capture()
        for frame in follow(world, 30, start="oldest"):
            assert frame.meta.flags & Flags.MASKED
            bright, *chroma = frame.planes
            assert not bright[120:, 160:].any()
            assert all((plane[60:, 80:] == 128).all() for plane in chroma)
            assert bright[60:110, :150].any()
        assert world.ask("set privacy.enable false").ok
        until(lambda: newest(world).luma[120:, 160:].any(), 10)


def test_above_its_memory_limit_capture_exits_42_and_leaves_the_ring_for_the_next():
    with Processes(camera={"memory_limit_mb": 1}) as world:
        capture = world.start_capture(frames=False)
        assert capture.wait(60) == 42
        assert "memory limit reached" in world.log()
        assert len(world.segments()) == 1


def test_a_wrong_configuration_exits_78_with_one_line():
    with Processes() as world:
        world.config.write_text(world.config.read_text().replace("width = 320", "widht = 320"))
        assert world.start("capture").wait(60) == 78
        line = (world.folder / "out").read_text()
        assert line.count("\n") == 1 and "did you mean width" in line


def test_auto_runs_without_a_camera_and_says_why():
    with Processes(camera={"source": "auto"}) as world:
        world.start_capture()
        assert "auto: picamera2: " in world.log()


def test_detect_lists_what_this_machine_can_see_while_frames_go_on(running):
    head = running.head()
    reply = running.ask("detect")
    assert reply.ok, reply.text
    assert "synthetic 0: simulated sensor" in reply.text
    until(lambda: running.head() > head, 10)


def test_frames_go_on_without_a_hub():
    with Processes() as world:
        hub = world.start_hub()
        world.start_capture()
        world.stop(hub, signal.SIGKILL)
        frames = follow(world, 30)
        assert all(b.frame_id == a.frame_id + 1 for a, b in itertools.pairwise(frames))


def test_slow_video_exposes_as_long_as_it_is_allowed_and_no_longer():
    with Processes(camera={"synthetic": {"scene": "night"}, "framerate": 60}) as world:
        world.start_hub()
        world.start_capture()
        with world.client() as analyzer:
            analyzer.announce(ModeRequested(camera="cam0", mode="slow_video", exposure_us=100_000))
            until(lambda: newest(world).meta.exposure_us == 100_000, 10)
            until(lambda: newest(world).meta.analogue_gain > 7.99, 10, "gain only after exposure")
        assert newest(world).meta.frame_duration_us == 100_000


@pytest.mark.parametrize(
    ("source", "frames"),
    [("synthetic", 10_000), ("file", 2000), pytest.param("file", 10_000, marks=pytest.mark.slow)],
)
def test_thousands_of_frames_cost_no_memory_and_no_descriptors(source, frames):
    camera = {"framerate": 0, "realtime": False, "synthetic": {"noise": False}}
    with Processes(camera={**camera, "source": source, "path": str(BIKES)}, ring={"size": 16}) as world:
        process = psutil.Process(world.start_capture().pid)

        def settled(frames):
            until(lambda: world.head() > frames or not process.is_running(), 60, world.log)
            return anonymous_bytes(process.pid), process.num_fds()

        before, after = settled(1500), settled(1500 + frames)
        assert after[0] - before[0] < 3_000_000, f"{before} → {after}"
        assert after[1] <= before[1] + 1, "one reopening file may be caught in the act"


def test_a_restart_keeps_what_was_set_live_and_the_frames_of_that_size():
    with Processes() as world:
        world.start_hub()
        capture = world.start_capture()
        assert world.ask("set camera.width 176").ok
        until(lambda: width(world) == 176, 10)
        until(lambda: world.head() > 5, 10)
        world.stop(capture, signal.SIGKILL)
        with world.reader() as ring:
            head = ring.head
            world.start_capture(frames=False)
            until(lambda: ring.head > head + 3, 20)
            assert not ring.retired
            with ring.borrow(head - 1) as frame:
                assert frame.geometry.width == 176
