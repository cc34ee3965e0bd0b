"""Opening, running for long, several cameras, and giving everything back."""

from __future__ import annotations

import gc
import os
import threading
import time

import pytest

from capture.sources.picamera2.device import list_cameras
from shmcam.imaging import frame_number_code
from shmcam.runtime.stop import Stop
from tests.machine import until
from tests.picamera2.camera import Camera, descriptors, rss_kb

pytestmark = pytest.mark.picamera2


def test_all_cameras_are_found_with_model_place_and_sizes():
    first, second = list_cameras()
    assert (first.index, first.model, first.usb) == (0, "imx708", False)
    assert first.id == "/base/soc/i2c0mux/i2c@1/imx708@10"
    assert first.sizes == ((4608, 2592), (2304, 1296), (1536, 864))
    assert (second.model, second.sizes) == ("imx296", ((1456, 1088),))


def test_two_cameras_at_once(camera):
    pair = [camera(index=0), camera(index=1, width=1456, height=1088, framerate=60.0)]
    for number, one in enumerate(pair):
        for _ in range(5):
            one.frame()
            assert frame_number_code.read_camera(one.luma) == number
    assert [one.source.description for one in pair] == ["imx708 (picamera2 0)", "imx296 (picamera2 1)"]


def test_close_and_reopen_gives_everything_back(camera):
    def once():
        one = camera(width=1280, height=720)
        one.frames(3)
        one.close()
        one.close()

    once()
    gc.collect()
    before = descriptors(), threading.active_count()
    for _ in range(5):
        once()
    gc.collect()
    assert (descriptors(), threading.active_count()) == before


def test_a_closed_camera_says_so(camera):
    one = camera()
    one.close()
    with pytest.raises(OSError, match="is closed"):
        one.source.wait(0.1)


@pytest.mark.parametrize("buffers", [2, 3, 8])
def test_any_number_of_buffers_will_do(camera, buffers):
    one = camera(buffers=buffers)
    numbers = [number for number, _ in one.frames(20)]
    assert numbers == sorted(set(numbers))


def test_request_goes_back_with_the_write(camera):
    one = camera()
    taken = []
    take = one.source._arrivals.take
    one.source._arrivals.take = lambda: taken.append(take()) or taken[-1]
    for _ in range(10):
        one.frame()
        assert taken[-1].request is None, "released before write returned"


def test_no_buffer_starvation_at_full_rate(camera):
    one = camera(width=1536, height=864, framerate=0.0)
    assert one.opened.framerate == pytest.approx(120.1, abs=0.1)

    def lost_share():
        numbers = [number for number, _ in one.frames(120)]
        return 1 - (len(numbers) - 1) / (numbers[-1] - numbers[0])

    shares = []
    while not shares or (shares[-1] > 0.02 and len(shares) < 8):  # two cores shared with others lose a few now and then
        shares.append(lost_share())
    assert shares[-1] <= 0.02, f"buffers held too long lose most frames, always: {shares}"


def test_a_late_reader_loses_old_frames_and_gets_new_ones(camera):
    one = camera()
    first = one.frame()
    time.sleep(1.0)  # the lateness that is tested
    one.frames(2)
    number = one.frame()
    assert number > first + 20, "the camera ran on"
    assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) - one.shot.captured_ns < 500_000_000
    assert one.source._arrivals.dropped > 20
    assert one.frame() == number + 1


def test_wait_ends_when_stop_is_requested(camera, rig):
    stop = Stop()
    one = camera(stop=stop)
    rig.put("stall-0")
    threading.Timer(0.3, stop.request).start()
    began = time.monotonic()
    while one.source.wait(30):
        one.source.write(one.payload)
    assert stop.wait(5)
    assert time.monotonic() - began < 25


def test_ten_thousand_frames_without_growth(camera, rig):
    """As fast as it goes: the rig's sensor runs at eight times its real rate."""
    rig.set(fps_scale=8, motion=0)
    one: Camera = camera(width=320, height=240, framerate=500.0)
    for _ in range(200):
        one.frame()
    gc.collect()
    before = descriptors(), rss_kb()
    for _ in range(10_000):
        one.frame()
    gc.collect()
    assert descriptors() == before[0]
    assert rss_kb() - before[1] < 3000, "KB; libcamera's and Python's heaps breathe a little"


def test_process_ends_at_once_with_a_camera_open(rig):
    """Picamera2's own atexit hook stops a camera left open; nothing of ours may hinder it."""
    pid = os.fork()
    if pid == 0:
        os.execv("/opt/venv/bin/python", ["python", "-c", LEFT_OPEN])
    assert until(lambda: os.waitpid(pid, os.WNOHANG)[0], 20) == pid


LEFT_OPEN = """
from tests.picamera2.camera import Camera
Camera().frames(3)
"""
