"""What of [paths] cannot be used, why, and what to type: found before a process meets it."""

import os
import subprocess
import sys

import pytest

from shmcam.config.settings import Settings
from shmcam.runtime.folder_checks import explain_unusable, find_folder_problems, make_folders

IS_ROOT = os.getuid() == 0


def settings_of(folder, text=""):
    (folder / "config.toml").write_text(text)
    return Settings.load(folder / "config.toml", environ={})


def test_all_folders_are_made_and_nothing_is_wrong(tmp_path):
    settings = settings_of(tmp_path)
    assert make_folders(settings) == []
    assert all((tmp_path / name).is_dir() for name in ("run", "logs", "captures", "recordings", "archives"))


def test_a_link_to_a_disk_that_is_away_is_named_and_the_rest_made(tmp_path):
    (tmp_path / "captures").symlink_to("/mnt/usb-not-there/captures")
    [problem] = make_folders(settings_of(tmp_path))
    assert str(problem) == f"captures: {tmp_path}/captures is a link to /mnt/usb-not-there/captures, which is not there"
    assert (tmp_path / "recordings").is_dir() and not problem.type_this


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "disk").touch()
    problem, library = find_folder_problems(
        settings_of(tmp_path, '[paths]\nrecordings = "disk/rec"\nlibrary = "disk/library.sqlite3"')
    )
    assert str(problem) == f"recordings: {tmp_path}/disk/rec cannot be made, because {tmp_path}/disk is no folder"
    assert library.name == "library"


AS_NOBODY = """
import os, sys
from pathlib import Path
from shmcam.config.settings import Settings
from shmcam.runtime.folder_checks import find_folder_problems
settings = Settings.load(Path(sys.argv[1]), environ={})
settings.paths
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for problem in find_folder_problems(settings):
    print(problem.name, problem.type_this, sep="|")
"""


def problems_of_nobody(config):
    """Imports as root, who may read this checkout, then looks as nobody."""
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, config], capture_output=True, text=True, check=True)
    return dict(line.split("|") for line in done.stdout.splitlines())


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to be another user")
def test_what_a_run_with_sudo_left_is_found_wherever_it_lies_and_the_lines_to_type_mend_it(tmp_path):
    """After doctor's four lines library and archives were still root's: pictures got no row, nothing was deleted."""
    for parent in (tmp_path, *(parent for parent in tmp_path.parents if "pytest-of" in str(parent))):
        parent.chmod(0o755)
    settings = settings_of(tmp_path)
    make_folders(settings)
    for folder in (tmp_path, *(p for p in tmp_path.iterdir() if p.is_dir())):
        os.chown(folder, 65534, 65534)
    assert problems_of_nobody(settings.path) == {}
    (tmp_path / "recordings/session_1").mkdir(mode=0o755)
    (tmp_path / "logs/hub.log").touch()
    for name in ("library.sqlite3", "library.sqlite3-wal", "library.cam0.frame_id"):
        (tmp_path / name).touch()
    os.chown(tmp_path / "archives", 0, 0)
    found = problems_of_nobody(settings.path)
    assert found.keys() == {"archives", "recordings", "logs", "library"}
    for line in found.values():
        assert line.startswith("sudo chown ")
        subprocess.run(["sh", "-c", line.removeprefix("sudo ")], check=True)
    assert problems_of_nobody(settings.path) == {}


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to mount")
def test_a_read_only_disk_is_named(tmp_path):
    look = "from pathlib import Path; from shmcam.runtime.folder_checks import explain_unusable as look; "
    look += f"print(look(Path({str(tmp_path)!r}))); print(look(Path({str(tmp_path / 'rec')!r})))"
    script = f'mount -t tmpfs -o ro tmpfs {tmp_path} && {sys.executable} -c "{look}"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr}")
    assert done.stdout.splitlines() == [
        "is mounted read-only",
        f"cannot be made, because {tmp_path} is mounted read-only",
    ]
    assert explain_unusable(tmp_path) == ""


def test_a_run_folder_of_ours_is_private_and_the_mode_of_one_that_was_there_is_kept(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o777)
    for run, mode in {"theirs": 0o777, "new/ours": 0o750}.items():
        (tmp_path / "config.toml").write_text(f'[paths]\nrun = "{run}"\n')
        make_folders(Settings.load(tmp_path / "config.toml", environ={}))
        assert (tmp_path / run).stat().st_mode & 0o7777 == mode
