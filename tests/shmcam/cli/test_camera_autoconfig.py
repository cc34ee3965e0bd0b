"""Without [cameras] every connected camera is used: cam0, cam1, … and a config.toml that names some is obeyed."""

import json
import sys

import pytest

from shmcam.cli import camera_autoconfig
from shmcam.cli.camera_autoconfig import choose_cameras, note_connected_cameras
from shmcam.config.settings import CONNECTED, Settings
from shmcam.hub.live_settings import LiveSettings
from shmcam.runtime.supervisord_programs import TEMPLATE, render_programs

SENSORS = [{"source": "picamera2", "index": 0}, {"source": "picamera2", "index": 1}]
WEBCAM = {"source": "v4l2", "index": 0}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two sensors and a webcam, and the number of times that it was asked."""
    sysfs = tmp_path / "sys"
    for node, name in {"video4linux/video0": "unicam", "video4linux/video1": "C920", "media/media0": ""}.items():
        (sysfs / node).mkdir(parents=True)
        (sysfs / node / "name").write_text(f"{name}\n")
    (tmp_path / "run").mkdir()
    asked = []
    monkeypatch.setattr(camera_autoconfig, "_ask", lambda: asked.append(1) or [*SENSORS, WEBCAM])

    def load(text):
        (tmp_path / "config.toml").write_text(text)
        return note_connected_cameras(Settings.load(tmp_path / "config.toml", environ={}), sysfs)

    load.asked, load.sysfs, load.folder = asked, sysfs, tmp_path
    return load


def test_every_connected_camera_is_used_and_asked_for_once(machine):
    settings = machine("")
    assert settings.cameras == ("cam0", "cam1", "cam2")
    places = [
        (settings.value(f"cameras.{name}.source"), settings.value(f"cameras.{name}.index")) for name in settings.cameras
    ]
    assert places == [("picamera2", 0), ("picamera2", 1), ("v4l2", 0)]
    again = Settings.load(machine.folder / "config.toml", environ={})
    assert again.cameras == settings.cameras, "every process sees them"
    programs = render_programs(again, TEMPLATE.read_text(), "/here")
    assert set(programs) == {"cam1.conf", "cam2.conf"}
    machine("")
    assert len(machine.asked) == 1, "the devices are the same"
    (machine.sysfs / "media/media1").mkdir()
    machine("")
    assert len(machine.asked) == 2


def test_a_look_that_failed_is_not_remembered(machine, monkeypatch):
    """Once libcamera had taken too long, the one camera was used at every later start, too."""
    with monkeypatch.context() as context:
        context.setattr(camera_autoconfig, "_ask", lambda: None)
        assert machine("").cameras == ("cam0",)
    assert machine("").cameras == ("cam0", "cam1", "cam2")


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "print('no json')", "import time; time.sleep(60)"])
def test_a_look_without_an_answer_is_told_from_no_camera(monkeypatch, tmp_path, code):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(camera_autoconfig, "ANSWER_S", 1.0)
    assert camera_autoconfig._ask() is None


@pytest.mark.parametrize(
    ("text", "cameras"),
    [
        ("[cameras.front]\nwidth = 640\n", ("front",)),
        ('[camera]\nsource = "synthetic"\n', ("cam0",)),
        ("[camera]\nindex = 1\n", ("cam0",)),
        ('[camera]\ndevice = "C920"\n', ("cam0",)),
        ('[camera]\nsource = "picamera2"\n', ("cam0", "cam1")),
        ('[camera]\nsource = "v4l2"\n', ("cam0",)),
    ],
)
def test_what_the_file_says_is_obeyed(machine, text, cameras):
    machine("")
    (machine.sysfs / "media/media2").mkdir()
    assert machine(text).cameras == cameras


def test_a_single_camera_is_found_by_auto_as_ever():
    assert choose_cameras([], "auto") == choose_cameras([WEBCAM], "auto") == {}


@pytest.mark.parametrize(
    "note", ["", "[]", '{"cameras": 5}', '{"cameras": {"a/b": {}}}', '{"cameras": {"cam0": {"x": 1}}}', "[" * 9999]
)
def test_a_note_that_cannot_be_used_is_no_reason_not_to_start(machine, note):
    (machine.folder / "config.toml").write_text("")
    (machine.folder / "run" / CONNECTED).write_text(note)
    assert Settings.load(machine.folder / "config.toml", environ={}).cameras == ("cam0",)


def test_a_saved_setting_of_one_camera_does_not_make_it_the_only_one(machine):
    settings = machine("")
    live = LiveSettings(settings, machine.folder / "run/changes.json", "run")
    live.change({"cameras.cam1.night.dark_threshold": 33})
    live.overwrite()
    saved = Settings.load(machine.folder / "config.toml", environ={})
    assert saved.cameras == ("cam0", "cam1", "cam2") and saved.value("cameras.cam1.night.dark_threshold") == 33
    assert json.loads((machine.folder / "run" / CONNECTED).read_text())["cameras"]["cam1"] == SENSORS[1]
