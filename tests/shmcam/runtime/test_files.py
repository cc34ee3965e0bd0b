"""Whole files: there after a clean exit, absent or unchanged after anything else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from shmcam.runtime import atomic_files
from shmcam.runtime.atomic_files import find_unused_path, open_atomic, sweep


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "a.bin"
    with open_atomic(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" whole")
    assert path.read_bytes() == b"half whole"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), open_atomic(tmp_path / "a") as file:
        file.write(b"x")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_refused_and_kept_unless_it_shall_be_replaced(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), open_atomic(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    with open_atomic(path, replace=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_leaves_the_old_file(tmp_path):
    class Full:
        def __init__(self, descriptor):
            self.inner = os.fdopen(descriptor, "wb")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.inner.close()

        def write(self, _block):
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"), open_atomic(path, replace=True, opener=Full) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_kill_at_any_moment_leaves_old_or_new_never_a_mixture(tmp_path):
    path = tmp_path / "config"
    old, new = b"o" * 200_000, b"n" * 200_000
    code = (
        "import sys, itertools\nfrom pathlib import Path\nfrom shmcam.runtime.atomic_files import open_atomic\n"
        "print('go', flush=True)\n"
        "for n in itertools.count():\n"
        "    with open_atomic(Path(sys.argv[1]), replace=True) as f:\n"
        "        f.write((b'n' if n % 2 else b'o') * 100_000)\n"
        "        f.write((b'n' if n % 2 else b'o') * 100_000)\n"
    )
    for round_ in range(8):
        path.write_bytes(old)
        child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.01 + 0.013 * round_)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert path.read_bytes() in (old, new)


def test_a_planted_symlink_is_not_followed(tmp_path):
    target = tmp_path / "elsewhere"
    target.write_bytes(b"precious")
    link = tmp_path / f".a.{os.getpid()}.part"
    link.symlink_to(target)
    with open_atomic(tmp_path / "a") as file:
        file.write(b"mine")
    assert target.read_bytes() == b"precious"


def test_unused_counts_up(tmp_path):
    path = tmp_path / "p.jpg"
    assert find_unused_path(path) == path
    path.touch()
    (tmp_path / "p_2.jpg").touch()
    assert find_unused_path(path).name == "p_3.jpg"


def test_a_file_is_not_swept_on_the_way_to_its_name(tmp_path, monkeypatch):
    link = os.link

    def sweeping(source, target):
        assert sweep(tmp_path) == []
        link(source, target)

    monkeypatch.setattr(os, "link", sweeping)
    before = psutil.Process().num_fds()
    with open_atomic(tmp_path / "a") as file:
        file.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole" and psutil.Process().num_fds() == before


def test_sweep_removes_what_killed_writers_left_and_nothing_else(tmp_path):
    """Also where the number of the killed writer has a new owner: here our own."""
    (tmp_path / f".config.toml.{os.getpid()}.part").write_bytes(b"half")
    (tmp_path / ".old.jpg.999999999.part").write_bytes(b"half")
    for other in ("film.mp4.part", ".hidden.part", ".x.12.part.txt", "y.jpg"):
        (tmp_path / other).write_bytes(b"theirs")
    (tmp_path / ".link.1.part").symlink_to(tmp_path / "y.jpg")
    with open_atomic(tmp_path / "new.jpg") as file:
        file.write(b"whole")
        assert sorted(path.name for path in sweep(tmp_path)) == [
            f".config.toml.{os.getpid()}.part",
            ".old.jpg.999999999.part",
        ]
    left = {"film.mp4.part", ".hidden.part", ".x.12.part.txt", "y.jpg", ".link.1.part", "new.jpg"}
    assert {path.name for path in tmp_path.iterdir()} == left and (tmp_path / "new.jpg").read_bytes() == b"whole"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK])
@pytest.mark.parametrize("has_flag", [True, False])
def test_a_disk_without_hard_links_gets_the_file_whole_and_nothing_is_replaced(tmp_path, monkeypatch, number, has_flag):
    """SMB (EOPNOTSUPP), sshfs (ENOSYS), mergerfs (EXDEV): no picture was saved; only FAT's EPERM was known."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    if not has_flag:
        monkeypatch.setattr(atomic_files, "_RENAME_NOREPLACE", 1 << 20)  # EINVAL, as where the file system knows none
    with open_atomic(tmp_path / "a") as file:
        file.write(b"new")
    with pytest.raises(FileExistsError), open_atomic(tmp_path / "a") as file:
        file.write(b"newer")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


def test_a_disk_without_locks_gets_the_file_and_its_leftovers_go_by_age(tmp_path, monkeypatch):
    """NFS without lockd: ENOLCK, and an empty temporary file stayed behind for each picture."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(atomic_files.fcntl, "flock", refuse)
    with open_atomic(tmp_path / "a") as file:
        file.write(b"new")
    with pytest.raises(OSError, match="No locks"):
        atomic_files.create_locked(tmp_path / "b", os.O_RDWR)
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "nothing leaks"
    young, old = (tmp_path / f".x{n}.4711.part" for n in range(2))
    young.touch()
    old.touch()
    os.utime(old, (time.time() - 2 * 86_400,) * 2)
    assert sweep(tmp_path) == [old]
