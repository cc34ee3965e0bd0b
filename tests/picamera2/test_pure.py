"""The decisions of the Picamera2 source, which need neither Picamera2 nor the rig."""

from __future__ import annotations

import os
from math import isnan
from types import SimpleNamespace

import numpy as np
import pytest

from capture.sources.base import CameraError, CameraRequest
from capture.sources.picamera2.controls import controls_for, defaults_for, frame_durations_us, is_within
from capture.sources.picamera2.device import ConnectedCamera, choose_camera, list_cameras
from capture.sources.picamera2.formats import candidates, colours, layout, shot
from capture.sources.picamera2.source import Arrivals, PicameraSource
from shm_ring.formats import planes
from shmcam.runtime.stop import Stop

RANGES = {
    "FrameDurationLimits": (8_326, 115_722_000, 33_333),
    "ExposureTime": (14, 115_687_000, 20_000),
    "AnalogueGain": (1.0, 16.0, 1.0),
    "AeEnable": (False, True, True),
    "AwbEnable": (False, True, None),
    "Brightness": (-1.0, 1.0, 0.0),
    "ColourGains": (0.0, 32.0, None),
    "NoiseReductionMode": (0, 4, 0),
    "ScalerCrop": ((0, 0, 64, 64), (0, 0, 4608, 2592), (0, 0, 4608, 2592)),
}
SYCC = SimpleNamespace(ycbcrEncoding=SimpleNamespace(name="Rec601"), range=SimpleNamespace(name="Full"))
REC709 = SimpleNamespace(ycbcrEncoding=SimpleNamespace(name="Rec709"), range=SimpleNamespace(name="Limited"))


def asked(**wishes):
    return CameraRequest(**{"width": 640, "height": 480, "framerate": 30.0} | wishes)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, (33_333, 33_333)),
        ({"framerate": 0.0}, (8_326, 8_326)),
        ({"framerate": 1000.0}, (8_326, 8_326)),
        ({"framerate": 0.001}, (115_722_000, 115_722_000)),
        ({"mode": "still", "exposure_us": 5_000}, (33_333, 33_333)),
        ({"mode": "still", "exposure_us": 2_000_000}, (33_333, 2_042_000)),
        ({"mode": "still", "exposure_us": 300_000_000}, (33_333, 115_722_000)),
        ({"mode": "slow_video", "exposure_us": 200_000}, (33_333, 206_000)),
    ],
)
def test_frames_last_as_long_as_rate_and_exposure_need(wishes, expected):
    assert frame_durations_us(asked(**wishes), 8_326, 115_722_000) == expected


def test_video_hands_exposure_and_gain_to_the_camera():
    controls, refused = controls_for(asked(), RANGES)
    assert (controls["ExposureTime"], controls["AnalogueGain"], refused) == (0, 0, {})


def test_still_overrules_what_the_user_fixed_for_video():
    request = asked(mode="still", exposure_us=100_000, gain=2.0, controls={"ExposureTime": 5000, "AeEnable": True})
    controls, _ = controls_for(request, RANGES)
    assert (controls["ExposureTime"], controls["AnalogueGain"]) == (100_000, 2.0)
    assert "AeEnable" not in controls


def test_a_frozen_auto_exposure_is_not_woken_by_zeros():
    controls, _ = controls_for(asked(controls={"AeEnable": False}), RANGES)
    assert controls["AeEnable"] is False
    assert "ExposureTime" not in controls


def test_controls_a_camera_lacks_are_left_out():
    controls, refused = controls_for(asked(controls={"AfMode": 2}), {"Brightness": (-1.0, 1.0, 0.0)})
    assert (controls, refused) == ({}, {"AfMode": "this camera does not have it"})


def test_unset_controls_go_back_to_their_default_or_to_automatic():
    before = asked(controls={"Brightness": 0.5, "ColourGains": (2.0, 1.0), "ScalerCrop": (0, 0, 100, 100)})
    assert defaults_for(before, asked(), RANGES) == {
        "Brightness": 0.0,
        "AwbEnable": True,
        "ScalerCrop": (0, 0, 4608, 2592),
    }
    assert defaults_for(before, asked(controls={"AwbEnable": False}), RANGES).get("AwbEnable") is None


@pytest.mark.parametrize(
    ("crop", "good"),
    [((0, 0, 4608, 2592), True), ((4544, 2528, 64, 64), True), ((1, 0, 4608, 2592), False), ((0, 0, 32, 32), False)],
)
def test_a_crop_must_lie_on_the_sensor(crop, good):
    assert is_within("ScalerCrop", crop, *RANGES["ScalerCrop"][:2]) is good


def test_colour_spaces_are_named_as_ffmpeg_does():
    assert (colours(SYCC), colours(REC709), colours(None)) == (
        ("smpte170m", "pc"),
        ("bt709", "tv"),
        ("smpte170m", "pc"),
    )


def test_padded_planes_lie_where_libcamera_puts_them():
    stream = {"format": "YUV420", "size": (334, 250), "stride": 384}
    plan = layout(stream, SYCC)
    source = np.arange(384 * 250 * 3 // 2, dtype=np.uint32).astype(np.uint8)
    payload = np.zeros(plan.geometry.payload_bytes, np.uint8)
    plan.fill(source, payload)
    bright, blue, red = planes(payload, plan.geometry)
    assert np.shares_memory(bright, payload)
    np.testing.assert_array_equal(bright, source[: 384 * 250].reshape(250, 384)[:, :334])
    np.testing.assert_array_equal(blue, source[384 * 250 :][: 192 * 125].reshape(125, 192)[:, :167])
    np.testing.assert_array_equal(red, source[384 * 250 + 192 * 125 :][: 192 * 125].reshape(125, 192)[:, :167])


def test_a_fourth_byte_is_dropped_into_the_slot():
    plan = layout({"format": "XRGB8888", "size": (6, 4), "stride": 32}, SYCC)
    source = np.arange(128, dtype=np.uint8)
    payload = np.zeros(plan.geometry.payload_bytes, np.uint8)
    plan.fill(source, payload)
    assert payload[:6].tolist() == [0, 1, 2, 4, 5, 6]
    assert payload[18:21].tolist() == [32, 33, 34]


def test_a_buffer_too_short_is_refused_with_both_sizes():
    plan = layout({"format": "NV12", "size": (64, 64), "stride": 64}, SYCC)
    with pytest.raises(CameraError, match="short frame: 100 of 6144 bytes of NV12"):
        plan.fill(np.zeros(100, np.uint8), np.zeros(6144, np.uint8))


def test_formats_are_tried_best_first():
    assert candidates("auto")[:2] == ("YUV420", "NV12")
    assert candidates("rgb888") == ("RGB888",)
    with pytest.raises(CameraError, match="'yuyv': with Picamera2"):
        candidates("yuyv")


def test_metadata_that_is_missing_stays_unknown():
    unknown = shot({})
    assert (unknown.captured_ns, unknown.exposure_us, unknown.analogue_gain) == (0, 0, 0.0)
    assert isnan(unknown.lux)


def test_a_number_means_the_camera_it_meant_before():
    first, second = ConnectedCamera(0, "imx708", "/a", usb=False), ConnectedCamera(1, "imx296", "/b", usb=False)
    moved_up = ConnectedCamera(0, "imx296", "/b", usb=False)
    assert choose_camera(0, (first, second), None) is first
    assert choose_camera(2, (first, second), None) is None
    assert choose_camera(1, (moved_up,), "/b") is moved_up
    assert choose_camera(0, (moved_up,), "/a") is None, "never another camera's picture"


def test_without_picamera2_it_says_so():
    if "SHMCAM_IN_RIG" in os.environ:
        pytest.skip("it is installed here")
    with pytest.raises(CameraError, match="Picamera2 does not work here: No module named"):
        list_cameras()


class FakeRequest:
    def __init__(self, number):
        self.number, self.held = number, 0

    def acquire(self):
        self.held += 1

    def release(self):
        self.held -= 1


def test_arrivals_keep_the_newest_and_give_back_the_rest():
    arrivals = Arrivals(2, lambda request: request.number != 2, Stop())
    requests = [FakeRequest(number) for number in range(5)]
    assert not arrivals.wait(0)
    for request in requests:
        arrivals.on_frame(request)
    assert [request.held for request in requests] == [0, 0, 0, 1, 1], "0, 1: too old; 2: damaged"
    assert arrivals.dropped == 2
    assert arrivals.wait(5)
    assert arrivals.take() is requests[3]
    arrivals.close()
    assert [request.held for request in requests] == [0, 0, 0, 1, 0]


def test_arrivals_stop_waiting_when_asked_to():
    stop = Stop()
    arrivals = Arrivals(1, lambda request: True, stop)
    stop.request()
    assert not arrivals.wait(60)
    arrivals.close()


def test_a_camera_that_is_closed_has_a_callback_to_the_end():
    """Picamera2's thread calls what it finds a moment after it looked; were it None, stop() would wait for ever."""
    camera = SimpleNamespace(pre_callback=print, close=lambda: None)
    camera.stop = lambda: camera.pre_callback(object())
    source = PicameraSource()
    source._camera = camera
    source.close()
    assert camera.pre_callback is not print
