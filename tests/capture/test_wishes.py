"""Messages in, one request out; no process needed."""

import pytest

from capture.desired_request import DesiredRequest, ExposureMode, Pressure
from shmcam.config.settings import Settings
from shmcam.control.messages import ModeRequested, NightBegan, NightEnded, SettingChanged

CONFIG = """
[camera]
width = 640
height = 480
[cameras.cam0]
[cameras.cam1]
framerate = 10.0
"""


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return Settings.load(file, environ={})


def test_a_setting_for_all_changes_those_that_have_not_their_own(settings):
    both = [DesiredRequest(settings, name) for name in ("cam0", "cam1")]
    for wishes in both:
        wishes.take_event(SettingChanged(key="camera.framerate", old=30.0, new=20.0))
    assert [wishes.request.framerate for wishes in both] == [20.0, 10.0]


def test_a_setting_of_one_camera_is_ignored_by_the_other(settings):
    both = [DesiredRequest(settings, name) for name in ("cam0", "cam1")]
    for wishes in both:
        wishes.take_event(SettingChanged(key="camera.width", old=640, new=320, camera="cam1"))
        wishes.take_event(SettingChanged(key="cameras.cam1.height", old=480, new=240, camera="cam1"))
    assert [(wishes.request.width, wishes.request.height) for wishes in both] == [(640, 480), (320, 240)]


def test_the_request_is_a_new_object_only_when_something_else_is_asked(settings):
    wishes = DesiredRequest(settings, "cam0")
    first = wishes.request
    for message in (
        SettingChanged(key="night.dark_threshold", old=40.0, new=30.0),
        SettingChanged(key="camera.framerate", old=30.0, new=30.0),
        NightBegan(camera="cam0"),
        ModeRequested(camera="cam1", mode="still"),
        ModeRequested(camera="cam0", mode="sideways"),
    ):
        wishes.take_event(message)
    assert wishes.request is first
    wishes.take_event(ModeRequested(camera="cam0", mode="still", exposure_us=1000, gain=2.0))
    assert wishes.request is not first


def test_still_mode_by_setting_and_exposure_live(settings):
    wishes = DesiredRequest(settings, "cam0")
    wishes.take_event(SettingChanged(key="camera.video_mode", old=True, new=False))
    assert wishes.mode == ExposureMode("still", 200_000, 1.0)
    wishes.take_event(SettingChanged(key="camera.exposure_us", old=200_000, new=5000))
    assert wishes.request.exposure_us == 5000


@pytest.mark.parametrize(("key", "new"), [("exposure_us", 5000), ("gain", 3.0), ("video_mode", False)])
def test_the_day_s_exposure_set_at_night_waits_for_the_day(settings, key, new):
    """It ended the night's mode but not the NIGHT flag, so the analyzer never asked for the night's mode again."""
    wishes = DesiredRequest(settings, "cam0")
    wishes.take_event(ModeRequested(camera="cam0", mode="still", exposure_us=1000, gain=2.0))
    wishes.take_event(SettingChanged(key=f"camera.{key}", old=None, new=new))
    assert (wishes.mode, wishes.night) == (ExposureMode("still", 1000, 2.0), True)
    wishes.take_event(ModeRequested(camera="cam0", mode="video"))
    assert (wishes.mode.name, wishes.night) == ("still" if key == "video_mode" else "video", False)


def test_another_setting_does_not_end_the_night_s_mode(settings):
    wishes = DesiredRequest(settings, "cam0")
    wishes.take_event(ModeRequested(camera="cam0", mode="still", exposure_us=1000, gain=2.0))
    wishes.take_event(SettingChanged(key="camera.framerate", old=30.0, new=20.0))
    assert wishes.mode == ExposureMode("still", 1000, 2.0)
    assert wishes.night


def test_night_comes_and_goes_for_the_camera_that_is_meant(settings):
    wishes = DesiredRequest(settings, "cam0")
    wishes.take_event(NightBegan(camera="cam1"))
    assert not wishes.night
    wishes.take_event(NightBegan(camera="cam0"))
    assert wishes.night
    wishes.take_event(NightEnded(camera="cam0"))
    assert not wishes.night


def test_a_setting_that_does_not_fit_is_refused_and_nothing_changes(settings, caplog):
    wishes = DesiredRequest(settings, "cam0")
    before = wishes.request
    wishes.take_event(SettingChanged(key="camera.width", old=640, new=-5))
    assert wishes.request is before
    assert "setting refused" in caplog.text


def test_pressure_is_part_of_the_request(settings):
    wishes = DesiredRequest(settings, "cam0")
    wishes.set_pressure(Pressure.SLOW)
    assert (wishes.request.framerate, wishes.request.every) == (15, 2)
    wishes.set_pressure(Pressure.NONE)
    assert wishes.request.framerate == 30


def test_controls_may_be_set_one_by_one(settings):
    wishes = DesiredRequest(settings, "cam0")
    wishes.take_event(SettingChanged(key="camera.controls.Brightness", old=None, new=0.3))
    wishes.take_event(SettingChanged(key="camera.controls.ColourGains", old=None, new=[1.5, 2.0]))
    assert wishes.request.controls == {"Brightness": 0.3, "ColourGains": (1.5, 2.0)}
