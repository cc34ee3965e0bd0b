"""`shmcam view` in a real X server: pictures, lines of text, keys, its end."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from shmcam.cli.run import command as run
from tests.machine import needs, until
from tests.pipeline import Pipeline

WINDOW = ("search", "--sync", "--name", "^shmcam: cam0")

pytest.importorskip("tkinter", reason="python3-tk is not installed")


@pytest.fixture
def display():
    """An X server of its own; the kernel's pipe tells which number it got."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x800x24", "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        with os.fdopen(reading) as lines:
            number = lines.readline().strip()
        yield f":{number}"
        server.terminate()


def screenshot(display, file=None):
    """What the screen shows, (800, 1280, 3) BGR."""
    done = subprocess.run(["import", "-display", display, "-window", "root", "png:-"], capture_output=True, check=True)
    if file:
        Path(file).write_bytes(done.stdout)
    return cv2.imdecode(np.frombuffer(done.stdout, np.uint8), cv2.IMREAD_COLOR)


@needs("Xvfb", "xdotool", "import")
def test_a_window_shows_every_camera_and_obeys_keys(display):
    cameras = {"cam0": {"width": 320, "height": 240}, "cam1": {"width": 256, "height": 192}}
    with Pipeline(cameras=cameras) as shmcam:
        command = [sys.executable, "-m", "shmcam.cli.main", "--config", str(shmcam.config), "view"]
        environ = {**os.environ, "DISPLAY": display}
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as view:

            def press(key, *, check=True):
                subprocess.run(["xdotool", *WINDOW, "windowfocus", "key", key], env=environ, check=check)

            until(lambda: _bright(screenshot(display)) == [True, True], 30, "both pictures")
            press("s")
            until(lambda: len(list(shmcam.folder.glob("captures/**/snapshot_cam*.jpg"))) == 2, 30, "the snapshot")
            press("r")
            until(lambda: list(shmcam.folder.glob("recordings/session_*/cam0_*")), 30, "the recording")
            press("r")
            screenshot(display, os.environ.get("SHMCAM_VIEW_PNG"))
            press("q", check=False)  # the window may go while xdotool still looks at it
            assert view.wait(20) == 0, view.stderr.read()
        assert shmcam.states()["capture"] in ("RUNNING", "STARTING"), (
            "it did not start the service, so it does not stop it"
        )


def _bright(picture):
    """Whether there is a picture in the left and in the right half of the window."""
    return [bool(half.std() > 20) for half in (picture[:300, :360], picture[:300, 360:720])]


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [(["cam7"], {}, "no camera 'cam7'; cameras: cam0"), ([], {"DISPLAY": ""}, "without a display: shmcam console")],
)
def test_what_it_cannot_show_is_said(tmp_path, words, environ, expected):
    (tmp_path / "config.toml").write_text("")
    command = [sys.executable, "-m", "shmcam.cli.main", "--config", str(tmp_path / "config.toml"), "view", *words]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)
    assert done.returncode and expected in done.stderr


@pytest.mark.parametrize("mode", ["slave", "headless", ""])
def test_preview_opens_the_window_beside_each_mode_where_there_is_a_display(monkeypatch, capsys, mode):
    started = []
    monkeypatch.setattr(run, "_start_beside", lambda _environ, _config, *words: started.append(words))
    options = run.build_parser().parse_args(["--preview", *(["--mode", mode] if mode else [])])
    monkeypatch.setenv("DISPLAY", ":7")
    run._start_what_goes_beside(options, Path("config.toml"), {})
    assert started == [("view",)]
    monkeypatch.delenv("DISPLAY")
    run._start_what_goes_beside(options, Path("config.toml"), {})
    assert started == [("view",)] and "no display" in capsys.readouterr().err
