"""`pip install .` beside other people's packages: no name taken but the six of the card and shmcam's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"shm_ring", "shmcam", "capture", "analyzer", "exporter", "recorder", "streamer"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from what git knows, so that a `build/` of an earlier day does not count."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    (folder / "source").mkdir()
    subprocess.run(["tar", "--null", "-T", "-", "-cf", folder / "source.tar"], cwd=ROOT, input=listed, check=True)
    subprocess.run(["tar", "-xf", folder / "source.tar", "-C", folder / "source"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, folder / "source"], check=True, timeout=280)
    return next(folder.glob("*.whl"))


def test_the_wheel_takes_no_other_top_level_name(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.startswith("shmcam-")} == OURS


def test_the_wheel_holds_every_module_the_page_and_the_shipped_configuration(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", *sorted(OURS)], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not {name for name in listed.stdout.split() if name not in inside}
    data = {name.partition(".data/data/share/shmcam/")[2] for name in inside}
    assert {"config.toml", "supervisord.conf"} <= data
    assert any(name.endswith("share/doc/shmcam/commands.md") for name in inside)


def test_the_source_distribution_is_the_repository(wheel):
    """What a packager builds, reads and tests; no link and nothing that only git has."""
    source = wheel.parent / "source"
    code = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, wheel.parent], cwd=source, check=True, capture_output=True, timeout=280)
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    missing = {name for name in listed if name not in inside and not (ROOT / name).is_symlink()}
    assert missing <= {".dockerignore", ".git-blame-ignore-revs", ".gitignore"}


BESIDE = """
import control, shm_ring
from importlib.metadata import packages_distributions
from shm_ring import attach
print(sorted(set(packages_distributions()["control"])), callable(attach), control.tf([1], [1, 1]).poles()[0].real)
"""


@pytest.mark.slow  # installs scipy and matplotlib
def test_python_control_keeps_its_name_in_the_same_venv(wheel, tmp_path):
    """Its import name is `control`, as one of our folders was called before the rooms of docs/architecture.md."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "-q", "--no-warn-script-location"]
    done = subprocess.run([*pip, "control"], capture_output=True, text=True, timeout=280, check=False)
    if done.returncode:
        pytest.skip(f"python-control cannot be had: {done.stderr.strip().splitlines()[-1]}")
    subprocess.run([*pip, "--no-deps", wheel], check=True, timeout=100)
    # What shm_ring needs besides numpy; the whole service's packages would take minutes.
    subprocess.run([*pip, "--no-deps", "posix_ipc"], check=True, timeout=100)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [venv / "bin/python", "-c", BESIDE], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["['control']", "True", "-1.0"], done.stderr


@pytest.fixture(scope="module")
def reader_wheel(tmp_path_factory):
    """shmcam-ring, built in a copy: setuptools leaves a build folder behind."""
    folder = tmp_path_factory.mktemp("ring")
    shutil.copytree(ROOT / "packaging/shmcam-ring", folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, folder / "source"], check=True, timeout=280)
    return next(folder.glob("*.whl"))


def test_the_reader_s_wheel_is_shm_ring_of_this_version_and_nothing_else(wheel, reader_wheel):
    inside = {name for name in zipfile.ZipFile(reader_wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(["git", "ls-files", "shm_ring"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert inside == set(listed.stdout.split())
    assert wheel.name.split("-")[1] == reader_wheel.name.split("-")[1]


READING = """
import sys
sys.modules["cv2"] = None  # as if it were not installed
import numpy as np
import shm_ring
from shm_ring import RingReader, SharedCapture, attach
from shm_ring.records import packets, scores
assert ".whl" in shm_ring.__file__ and "shmcam" not in sys.modules
"""


def test_a_reader_without_opencv_has_all_but_bgr(reader_wheel):
    """A detector elsewhere had to install the whole service: aiohttp, PyAV, supervisor and 90 MB of OpenCV."""
    code = READING + (
        "from shm_ring.color import to_bgr\n"
        "try: to_bgr(np.zeros(96 * 64 * 3 // 2, np.uint8), None)\n"
        "except ImportError as error: print(error)\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(reader_wheel)!r})" + code],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("frame.bgr needs OpenCV, such as: pip install 'shmcam-ring[bgr]'"), done.stderr
