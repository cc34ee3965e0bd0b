"""Modes and controls: asked for by libcamera's names, seen in the frames' own metadata and in the picture."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytestmark = pytest.mark.picamera2

BUFFERS, PIPELINE = 6, 4
"""Frames until a control acts (picamera2 issue 1278: buffers + 3 to 4)."""


def exposed(exposure_us, gain):
    return lambda shot: shot.exposure_us == exposure_us and abs(shot.analogue_gain - gain) < 0.01


def test_still_mode_exposes_as_asked_and_no_frame_is_lost(camera):
    one = camera()
    first = one.frames(5)[-1][0]
    one.apply(mode="still", exposure_us=20_000, gain=4.0)
    taken = one.until(exposed(20_000, 4.0))
    assert taken <= BUFFERS + PIPELINE
    assert one.frame() == first + taken + 1, "a change of mode costs no frame"
    assert one.shot.frame_duration_us == pytest.approx(33_333, abs=2)


def test_still_mode_makes_frames_as_long_as_the_exposure(camera):
    one = camera(mode="still", exposure_us=200_000, gain=2.0)
    one.frames(3)
    assert exposed(200_000, 2.0)(one.shot)
    assert 200_000 < one.shot.frame_duration_us < 210_000


def test_leaving_long_exposures_starts_the_camera_anew_instead_of_waiting_for_its_buffers(camera):
    one = camera(mode="still", exposure_us=250_000, gain=2.0)
    one.frames(2)
    one.apply(mode="video", exposure_us=0, gain=0.0)
    one.frame()
    assert one.shot.exposure_us < 33_333
    assert one.shot.frame_duration_us == pytest.approx(33_333, abs=2)


def test_video_to_still_and_back_many_times(camera):
    one = camera()
    for _ in range(4):
        one.apply(mode="still", exposure_us=30_000, gain=8.0)
        one.until(exposed(30_000, 8.0))
        one.apply(mode="video", exposure_us=0, gain=0.0)
        one.until(lambda shot: shot.analogue_gain < 2 and shot.exposure_us <= 10_100)


def test_slow_video_lets_auto_exposure_use_long_frames(camera, rig):
    rig.put("lux-0", 2)
    one = camera(mode="slow_video", exposure_us=66_000)
    one.until(lambda shot: shot.exposure_us > 60_000)
    assert one.shot.frame_duration_us > 60_000
    rig.put("lux-0", 4000)
    one.until(lambda shot: shot.frame_duration_us < 34_000)


def test_auto_exposure_follows_the_light(camera, rig):
    one = camera()
    one.frames(3)
    by_day = one.brightness
    rig.put("lux-0", 40)
    one.until(lambda shot: abs(shot.lux - 40) < 4)
    assert one.brightness < 0.6 * by_day, "the first dark frame is dark"
    one.until(lambda shot: one.brightness > 0.9 * by_day)
    rig.put("lux-0", 400)
    one.until(lambda shot: abs(shot.lux - 400) < 40 and abs(one.brightness / by_day - 1) < 0.05)


def test_brightness_follows_fixed_exposure_and_gain(camera):
    one = camera(mode="still", exposure_us=10_000, gain=1.5)
    one.frames(2)
    full = one.brightness
    one.apply(exposure_us=2_500)
    one.until(exposed(2_500, 1.5))
    quarter = one.brightness
    one.apply(exposure_us=1_250, gain=3.0)
    one.until(exposed(1_250, 3.0))
    assert 0.35 * full < quarter < 0.65 * full  # a quarter of the light is 0.54 in sRGB
    assert one.brightness == pytest.approx(quarter, rel=0.02), "half the exposure, twice the gain"


def test_frame_rate_changes_while_running(camera):
    one = camera(index=1, framerate=30.0)
    one.frames(2)
    for rate in (60.0, 12.5, 1000.0, 30.0):
        one.apply(framerate=rate)
        period_us = max(1e6 / rate, 1e6 / 60.38)
        one.until(lambda shot, period_us=period_us: abs(shot.frame_duration_us / period_us - 1) < 0.001)


def test_rate_zero_is_as_fast_as_the_sensor_mode_goes(camera):
    one = camera(index=1, framerate=0.0)
    one.frame()
    assert one.shot.frame_duration_us == pytest.approx(1e6 / 60.38, abs=2)
    assert one.opened.framerate == pytest.approx(60.38, abs=0.1)


def test_controls_act_live_and_unsetting_them_restores_the_default(camera):
    one = camera(framerate=60.0, index=1)
    one.frames(2)
    plain = one.brightness
    one.apply(controls={"Brightness": 0.3})
    one.until(lambda shot: one.brightness > plain + 20)
    one.apply(controls={"ExposureTime": 4000, "AnalogueGain": 1.0})
    one.until(exposed(4000, 1.0))
    assert one.brightness < plain
    one.apply(controls={})
    one.until(lambda shot: abs(one.brightness / plain - 1) < 0.05)
    one.apply(controls={"ColourGains": (3.6, 1.6)})
    one.until(lambda shot: one.bgr[200:, :, 2].mean() > one.bgr[200:, :, 0].mean())


def test_exposure_value_makes_auto_exposure_brighter(camera):
    one = camera(controls={"ExposureValue": -1.0})
    one.until(lambda shot: shot.exposure_us * shot.analogue_gain == pytest.approx(7500, rel=0.03))
    one.apply(controls={"ExposureValue": 1.0})
    one.until(lambda shot: shot.exposure_us * shot.analogue_gain == pytest.approx(30_000, rel=0.1))


def test_ae_turned_off_freezes_exposure(camera, rig):
    one = camera()
    one.frames(3)
    one.apply(controls={"AeEnable": False})
    one.frames(BUFFERS + PIPELINE)
    frozen = one.shot.exposure_us, one.shot.analogue_gain
    rig.put("lux-0", 10)
    one.until(lambda shot: abs(shot.lux - 10) < 1)
    one.frames(BUFFERS + PIPELINE)
    assert (one.shot.exposure_us, one.shot.analogue_gain) == frozen
    one.apply(controls={})
    one.until(lambda shot: (shot.exposure_us, shot.analogue_gain) != frozen)


def test_every_control_the_camera_advertises_can_be_set_to_both_ends_of_its_range(camera):
    one = camera()
    ranges = one.source._camera.camera_controls
    tried = {}
    for end in (0, 1):
        for name, values in ranges.items():
            if isinstance(values[end], bool | int | float) and name not in ("FrameDurationLimits", "ExposureTime"):
                tried[name] = (values[end],) * 2 if name == "ColourGains" else values[end]
        assert one.source.apply(type(one.request)(640, 480, 30.0, controls=tried))
        one.frames(BUFFERS + PIPELINE)
    assert len(tried) > 20


def test_controls_out_of_range_or_unknown_are_refused_with_the_range(camera):
    one = camera(controls={"Contrast": 99.0, "Zoom": 2, "ScalerCrop": (0, 0, 9999, 9999), "Sharpness": 2.0})
    assert one.opened.refused == {
        "Contrast": "99.0: must be 0.0..32.0",
        "Zoom": "this camera does not have it",
        "ScalerCrop": "(0, 0, 9999, 9999): must be (768, 432, 64, 64)..(768, 432, 3072, 1728)",
    }
    one.frame()


def test_an_exposure_beyond_the_camera_is_cut_to_its_limit_and_said(camera):
    one = camera(mode="still", exposure_us=20_000, gain=50.0)
    assert one.opened.refused == {"AnalogueGain": "50.0: must be 1.0..16.0; 16.0 is used"}
    one.frame()
    assert one.shot.analogue_gain == 16


def test_sync_mode_brings_two_cameras_in_step(camera):
    server, client = camera(index=0, sync_mode="server"), camera(index=1, sync_mode="client")

    def in_step():
        stamps = [shot.captured_ns for _, shot in (*server.frames(3), *client.frames(3))]
        return min(abs(a - b) for a in stamps[:3] for b in stamps[3:]) < 200_000

    assert any(in_step() for _ in range(30))
    for a, b in pairwise([shot.captured_ns for _, shot in client.frames(10)]):
        assert abs((b - a + 1_000_000) % 33_333_000 - 1_000_000) < 300_000, "whole periods, once in step"


def test_sync_mode_where_there_is_none_is_refused(camera, monkeypatch):
    from capture.sources.picamera2 import controls

    monkeypatch.setitem(controls.SYNC_MODES, "server", 7)
    assert camera(sync_mode="server").opened.refused == {"SyncMode": "7: must be 0..2"}
