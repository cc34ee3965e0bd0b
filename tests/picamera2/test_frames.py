"""What arrives in a slot is what the sensor saw: every format, size and stride, in the right colours."""

from __future__ import annotations

import time

import numpy as np
import pytest

from capture.sources.base import CameraError
from shm_ring.color import luma
from shm_ring.formats import planes
from shmcam.imaging import frame_number_code
from tests.picamera2.camera import BARS, bar_colours

pytestmark = pytest.mark.picamera2

COLOUR_ERROR = 6
"""Of 255, for a colour that went through 8-bit YUV and back."""


def test_frames_come_one_after_the_other_from_the_first_on(camera):
    one = camera()
    numbers = [number for number, _ in one.frames(20)]
    assert numbers == list(range(numbers[0], numbers[0] + 20))


def test_main_stream_is_yuv420_in_jpeg_colours(camera):
    one = camera(width=1280, height=720)
    one.frame()
    shape = one.geometry
    assert (shape.pixel_format, shape.width, shape.height) == ("yuv420p", 1280, 720)
    assert (shape.color_space, shape.color_range) == ("smpte170m", "pc")
    assert np.abs(bar_colours(one.bgr) - BARS).max() <= COLOUR_ERROR


@pytest.mark.parametrize("platform", ["vc4", "pisp"])
@pytest.mark.parametrize(
    ("width", "height", "vc4", "pisp"),
    [(1456, 1088, 1472, 1536), (1296, 972, 1344, 1408), (1280, 720, 1280, 1280), (334, 250, 384, 384)],
)
def test_padded_rows_are_copied_as_they_lie_and_described(camera, rig, platform, width, height, vc4, pisp):
    rig.set(platform=platform)
    one = camera(width=width, height=height)
    one.frame()
    stride = {"vc4": vc4, "pisp": pisp}[platform]
    assert one.geometry.strides == (stride, stride // 2, stride // 2)
    assert one.geometry.payload_bytes == stride * height * 3 // 2
    assert np.abs(bar_colours(one.bgr) - BARS).max() <= COLOUR_ERROR
    bright, blue, red = planes(one.payload, one.geometry)
    assert bright.shape == (height, width)
    assert np.abs(bright[height // 3, -8:].astype(int) - 24).max() <= 1, "the last bar is dark up to the last column"
    assert np.abs(blue[height // 6, -4:].astype(int) - 128).max() <= 1
    assert np.abs(red[-1, -4:].astype(int) - 128).max() <= 1


@pytest.mark.parametrize("platform", ["vc4", "pisp"])
@pytest.mark.parametrize(
    ("codec", "expected"),
    [("yuv420", "yuv420p"), ("nv12", "nv12"), ("rgb888", "bgr24"), ("bgr888", "rgb24"), ("xrgb8888", "bgr24")],
)
def test_every_format_shows_the_same_picture(camera, rig, platform, codec, expected):
    rig.set(platform=platform)
    one = camera(width=1000, height=600, codec=codec)  # no multiple of 32 bytes in any format
    one.frames(2)
    assert one.geometry.pixel_format == expected
    assert np.abs(bar_colours(one.bgr) - BARS).max() <= COLOUR_ERROR


@pytest.mark.parametrize(
    ("offered", "expected"),
    [("NV12", "nv12"), ("RGB888,XRGB8888", "bgr24"), ("BGR888", "rgb24"), ("XBGR8888", "rgb24")],
)
def test_auto_takes_what_the_camera_has(camera, rig, offered, expected):
    rig.set(formats=offered)
    one = camera()
    one.frame()
    assert one.geometry.pixel_format == expected
    assert np.abs(bar_colours(one.bgr) - BARS).max() <= COLOUR_ERROR


def test_a_format_the_camera_does_not_have_is_refused_by_name(camera, rig):
    rig.set(formats="YUYV")
    with pytest.raises(CameraError, match="delivers YUYV; known are YUV420, NV12"):
        camera()


def test_a_codec_that_picamera2_does_not_know_is_refused_by_name(camera):
    with pytest.raises(CameraError, match="codec 'mjpeg': with Picamera2 it must be auto or yuv420"):
        camera(codec="mjpeg")


def test_odd_sizes_become_even(camera):
    one = camera(width=641, height=481)
    one.frame()
    assert (one.geometry.width, one.geometry.height) == (640, 480)


@pytest.mark.parametrize("codec", ["yuv420", "nv12"])
def test_lores_stream_shows_the_same_frame(camera, codec):
    one = camera(width=1280, height=720, lores=(640, 360), codec=codec)
    assert (one.opened.lores.width, one.opened.lores.height) == (640, 360)
    for _ in range(5):
        number = one.frame()
        assert frame_number_code.read(luma(one.lores, one.opened.lores)) == number


def test_no_lores_stream_where_the_camera_cannot_make_one(camera):
    assert camera(width=320, height=240, lores=(640, 480)).opened.lores is None
    assert camera(index=1, width=640, height=480, lores=(320, 240), codec="rgb888").opened.lores is None


def test_metadata_says_when_and_how_the_frame_was_taken(camera, rig):
    rig.put("lux-0", 100)
    one = camera()
    one.until(lambda shot: abs(shot.lux - 100) < 5)
    shot = one.shot
    now_ns, wall_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
    assert 0 < now_ns - shot.captured_ns < 2_000_000_000
    assert abs((wall_ns - shot.captured_utc_ns) - (now_ns - shot.captured_ns)) < 50_000_000
    assert shot.frame_duration_us == pytest.approx(33_333, abs=2)
    assert shot.exposure_us > 0
    assert shot.analogue_gain >= 1
    assert shot.digital_gain >= 1
    assert shot.colour_temperature_k == 4500


def test_timestamps_are_the_sensors_and_exact(camera):
    one = camera()
    stamps = [shot.captured_ns for _, shot in one.frames(20)]
    assert all(abs(gap - 33_333_000) < 1000 for gap in np.diff(stamps))
