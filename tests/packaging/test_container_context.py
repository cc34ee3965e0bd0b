"""The image of packaging/Containerfile is built from the program alone, not from what its owner keeps in the clone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path, PurePath

import pytest

from tests.packaging.test_wheel import OURS

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def is_let_in(path: str) -> bool:
    """Returns whether `.dockerignore` lets a file in: the last line that names it or a folder above it wins."""
    file = PurePath(path)
    above = [str(place) for place in (file, *file.parents)][:-1]
    is_in = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        names = [PurePath(place).name for place in above] if pattern.startswith("**/") else above
        if not line.startswith("#") and any(fnmatch(name, pattern.removeprefix("**/")) for name in names):
            is_in = line.startswith("!")
    return is_in


@pytest.mark.parametrize(
    "path",
    [
        "config.toml",
        "config.toml.shipped",
        "other/config.toml",
        "tls/key.pem",
        "key.pem",
        "library.sqlite3",
        "library.sqlite3-wal",
        "library.cam0.frame_id",
        "library.id",
        "captures/a.jpg",
        "recordings/a.mp4",
        "archives/trial/a.mp4",
        "logs/hub.log",
        "run/changes.json",
        ".git/config",
        ".env",
        "shmcam/__pycache__/a.pyc",
    ],
)
def test_what_the_owner_keeps_in_the_clone_stays_out_of_the_image(path):
    assert not is_let_in(path)


@pytest.mark.parametrize(
    "path",
    [
        "library.sqlite3-shm",
        "library.sqlite3.lock",
        "library.cam0.frame_id",
        "library.cam0.frame_id.unreadable",
        "library.id",
        ".library.id.4711.part",
        ".config.toml.4711.part",
        "run/changes.json",
        "run/supervisord.conf",
        "logs/capture.log.1",
        "captures/a.jpg.json",
        "recordings/session_1/a.mp4",
        "archives/trial/manifest.json",
        "tls/key.pem",
    ],
)
def test_git_does_not_offer_what_a_running_clone_writes(path):
    """`git add .` put library.id into the repository, and with it every clone took the other's files for its own."""
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0


def test_the_program_is_in_the_image():
    assert [name for name in LISTED if name.split("/")[0] in OURS and not is_let_in(name)] == []


def test_the_image_installs_from_what_is_let_in_and_sets_nothing(tmp_path):
    source = tmp_path / "source"
    for name in filter(is_let_in, LISTED):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    recipe = (ROOT / "packaging/Containerfile").read_text()
    [line] = re.findall(r"^RUN (echo .*)$", recipe, re.MULTILINE)
    subprocess.run(["sh", "-c", line.replace("/usr/src/shmcam", str(source))], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True, timeout=280)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        [config] = [name for name in wheel.namelist() if name.endswith("share/shmcam/config.toml")]
        assert all(row.startswith("#") for row in wheel.read(config).decode().splitlines())
        assert any(name.endswith("streamer/static/library.js") for name in wheel.namelist())
