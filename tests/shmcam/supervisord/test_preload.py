"""Decides which programs run in the fork, and sees that the loaded code is that of the files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shmcam.supervisord.fork_options import ForkOptions, SignalPoller
from shmcam.supervisord.preload import LoadedFiles, find_module
from shmcam.supervisord.supervisor_loop import RETRIES_S

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ([PYTHON, "-m", "capture"], "capture"),
        ([PYTHON, "-m", "recorder", "--camera", "cam1"], "recorder"),
        ([PYTHON, "-m", "shmcam.hub"], "shmcam.hub"),
        ([f"{Path(PYTHON).parent}/../bin/{Path(PYTHON).name}", "-m", "capture"], "capture"),
        ([PYTHON, "-m", "capture2"], ""),
        ([PYTHON, "-m", "http.server"], ""),
        ([PYTHON, "-O", "-m", "capture"], ""),
        ([PYTHON, "-u", "-m", "capture"], ""),
        ([PYTHON, "-m"], ""),
        ([PYTHON, "capture/__main__.py"], ""),
        ([], ""),
        (["/usr/bin/env", "-m", "capture"], ""),
        ([os.path.realpath(PYTHON), "-m", "capture"], ""),  # not of this virtual environment
        (["/opt/other/.venv/bin/python", "-m", "capture"], ""),
    ],
)
def test_only_a_module_of_ours_with_this_interpreter_runs_in_the_fork(line, module):
    if line and line[0] == os.path.realpath(PYTHON) == PYTHON:
        pytest.skip("no virtual environment")
    assert find_module(line) == module


def test_what_has_threads_of_its_own_is_not_loaded_before_they_are_limited():
    code = "import shmcam.supervisord.__main__, sys; print(*sys.modules)"
    loaded = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert "shmcam.supervisord.preload" in loaded
    assert not {"numpy", "cv2", "av", "shm_ring"} & set(loaded)


def test_an_edited_module_is_noticed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "edited_module.py"
    module.write_text("")
    __import__("edited_module")
    loaded = LoadedFiles()
    assert loaded.find_changed() == ""
    os.utime(module, ns=(1, 1))
    assert loaded.find_changed() == str(module)
    module.unlink()
    assert loaded.find_changed() == str(module)


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ForkOptions()
    options.preloaded = LoadedFiles()
    return options


def test_what_a_fork_cannot_give_is_left_to_a_new_interpreter(options, tmp_path):
    import capture  # noqa: F401 - loaded, as in a parent that preloads

    same = dict(os.environ)
    assert options._find_hindrance("capture", same) == ""
    assert options._find_hindrance("capture", {**same, "SHMCAM_CONFIG": "/other.toml", "TZ": "UTC"}) == ""
    for name in ("PYTHONMALLOC", "LD_PRELOAD", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"):
        assert options._find_hindrance("capture", {**same, name: "7"}) == f"its environment has another {name}"
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture/__init__.py").write_text("")
    assert options._find_hindrance("capture", same) == "its folder has another capture"


def test_a_poll_ends_with_a_signal_and_looks_once_more(options):
    poller = SignalPoller(options)
    assert poller.poll(0) == ([], []), "at once, for the first start"
    poller.wake_on_signals()
    os.write(poller._write, b"\x11")  # as CPython does when a signal comes
    assert poller.poll(30) == ([], [])
    assert poller.poll(30) == ([], []), "what was reaped in between is started now"
    poller.look_again_in(0.01)
    assert poller.poll(30) == ([], [])
    poller.close()


def test_retries_take_as_long_as_those_of_supervisord():
    """5 s to import more than we do on a slow card: a broken program is given up no sooner than before."""
    assert RETRIES_S[0] == 0 and sorted(RETRIES_S) == list(RETRIES_S)
    assert abs(sum(RETRIES_S) - sum(range(1, 6))) < 1
