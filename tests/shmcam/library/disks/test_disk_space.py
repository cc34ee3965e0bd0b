"""Room on a disk: inodes, the largest file, and what says that there is none."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest

from shmcam.library.disks import disk_space
from shmcam.library.disks.disk_space import FAT_MAX_BYTES, DiskRoom, is_limit_unseen, max_file_bytes_of, measure_room
from shmcam.library.settings import LibrarySettings
from streamer.monitoring.health import DiskHealth, ProcessHealth, find_reasons
from tests.mounts import can_mount


def test_the_largest_file_follows_from_the_file_system_and_the_limit_of_the_process(tmp_path, monkeypatch):
    device = tmp_path.stat().st_dev
    table = tmp_path / "mountinfo"
    line = "36 35 {}:{} / /mnt rw,noatime master:1 - {} /dev/sda1 rw\n"
    monkeypatch.setattr(disk_space, "MOUNTS", table)
    fat = ("vfat", "fuse.fusefat", "cifs", "nfs4")  # the last three may have a FAT behind them
    for file_system, limit in (*((name, FAT_MAX_BYTES) for name in fat), ("ext4", 0), ("exfat", 0)):
        table.write_text("1 2 0:5 / /x rw - vfat x rw\n" + line.format(os.major(device), os.minor(device), file_system))
        assert max_file_bytes_of(tmp_path / "not made yet") == limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, hard))
    try:
        assert max_file_bytes_of(tmp_path) == 1 << 30
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    table.unlink()
    assert max_file_bytes_of(tmp_path) == 0


@pytest.mark.parametrize(
    ("free", "total", "missing", "low"),
    [(0, 0, 0, False), (100_000, 1_000_000, -98_996, False), (400, 1_000_000, 604, True), (3, 200, 5, True)],
)
def test_a_disk_without_inodes_is_low(free, total, missing, low):
    room = DiskRoom(10**12, 10**12, 0, free, total)
    assert room.missing_files == missing and bool(room.low) == low


def test_a_disk_that_does_not_tell_its_size_has_room_until_a_write_says_otherwise(tmp_path, monkeypatch):
    """fusefat and others in user space: statvfs gives zeros, which looked like a full disk, and nothing was saved."""
    monkeypatch.setattr(os, "statvfs", lambda place: os.statvfs_result([1024, 1024, 0, 0, 0, 0, 0, 0, 0, 255]))
    room = measure_room(tmp_path, LibrarySettings())
    assert room.missing_bytes(10**9) == 0 and room.missing_files == 0 and not room.low


def test_a_disk_without_inodes_makes_the_service_not_ready():
    """/healthz looked at bytes only."""
    disk = DiskHealth("/", 10**12, 10**12, 0, free_files=3, total_files=10**6)
    assert find_reasons({}, disk, hub=True, processes=[]) == ["disk /: 3 inodes free"]


def test_retention_that_cannot_delete_makes_the_service_not_ready():
    figures = {"retention": "3 files cannot be deleted, such as /x: read-only"}
    process = ProcessHealth("recorder", "cam0", 1, "recording", "", 30.0, 0, 0, 0, 0, figures)
    reasons = find_reasons({}, DiskHealth("/", 10**9, 10**9, 0), hub=True, processes=[process])
    assert reasons == ["recorder: 3 files cannot be deleted, such as /x: read-only"]


INODES = """
import sys
from pathlib import Path
from shmcam.library import Catalogue, NoRoom
from shmcam.library.retention import make_room
from shmcam.config.settings import Settings
from tests.shmcam.library.conftest import on_disk
import subprocess
settings = Settings.load(Path(sys.argv[1]), environ={})
recordings = settings.paths.recordings
recordings.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=64", "disk", recordings], check=True)
with Catalogue.of(settings) as catalogue:
    saved = []
    for number in range(60):
        make_room(settings, catalogue, 1000, recordings, kind="clip")
        saved.append(catalogue.add(on_disk(settings, f"{number}.mp4", number=number)))
    left = {entry.path for entry in catalogue.find()}
    assert saved[-1].path in left and saved[0].path not in left and 20 < len(left) < 32, len(left)
    for number in range(60):
        try:
            (recordings / f"mine{number}").touch()
        except OSError:
            break
    before = len(catalogue.find())
    try:
        make_room(settings, catalogue, 1000, recordings, kind="clip")
    except NoRoom as problem:
        assert "inodes short" in str(problem)
"""


@pytest.mark.skipif(not can_mount(), reason="user namespaces are forbidden here")
def test_a_disk_of_few_inodes_keeps_the_newest_files(tmp_path):
    (tmp_path / "config.toml").write_text("[library]\nfree_reserve_mb = 1\n")
    command = ["unshare", "-Urm", sys.executable, "-c", INODES, str(tmp_path / "config.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_a_disk_refuses_although_it_shows_room_is_a_limit_of_its_own_only_where_that_is_certain(
    tmp_path, monkeypatch
):
    """Files were deleted for an ENOSPC that had another cause: the disk showed room for all of them."""
    assert is_limit_unseen(errno.EDQUOT, tmp_path / "not made yet")
    assert not is_limit_unseen(errno.ENOSPC, tmp_path) and not is_limit_unseen(errno.EIO, tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda place: os.statvfs_result([1024, 1024, 0, 0, 0, 0, 0, 0, 0, 255]))
    assert is_limit_unseen(errno.ENOSPC, tmp_path) and not is_limit_unseen(errno.EIO, tmp_path)
