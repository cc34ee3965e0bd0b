"""Disks of a test's own in a mount namespace: no root is needed, and nothing is left to be unmounted."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from shmcam.library import database

_MOUNTED = """
mount -t tmpfs -o size=64m tmpfs "$1" && cp -R "$2/." "$1" && mount -o "remount,$3" "$1" && shift 3 && exec "$@"
"""


def with_disk(folder: Path, contents: Path, how: str, *command: str) -> list[str]:
    """A command that finds a disk of its own at `folder`, with a copy of `contents`, mounted `how` (rw, ro)."""
    return ["unshare", "-Urm", "sh", "-c", _MOUNTED, "sh", str(folder), str(contents), how, *command]


def remount(pid: int, folder: Path, how: str) -> bool:
    """Remount the disk of a process. Returns: whether that was possible; somebody may be writing a file."""
    command = ["nsenter", "-t", str(pid), "-U", "-m", "--preserve-credentials", "mount", "-o", f"remount,{how}", folder]
    return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def closed(error: int = errno.EROFS) -> Iterator[None]:
    """While it lasts this process can write no library: the disk is read-only, or has the error that is given."""
    with mock.patch.object(database, "open_lock", side_effect=OSError(error, os.strerror(error))):
        yield


def can_mount() -> bool:
    """Whether this machine lets an ordinary user mount something in a namespace of its own."""
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        return False
    with tempfile.TemporaryDirectory() as contents, tempfile.TemporaryDirectory() as folder:
        command = with_disk(Path(folder), Path(contents), "ro", "true")
        return subprocess.run(command, capture_output=True).returncode == 0


mounts = pytest.mark.skipif(not can_mount(), reason="user namespaces are forbidden here")
"""For tests that need it."""
