"""Writes a log file of limited size, and limits the size of all logs together; a full disk does no harm.

supervisord's own rotation loses the log for ever when it meets a full disk. This one counts
the lines that it could not write, logs their number when it can write again, and creates a deleted file anew. Every
process checks the limit of all logs while it writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CHECK_BYTES = 1_000_000
"""Bytes that one process writes between two checks (fewer if whole logs are smaller)."""


class Quota:
    """A limit for the files in `folder` whose names, without .1 or .2, match the pattern `names`.

    The oldest rotated logs are deleted first, those of other processes, too; a log in use never is. No other file of
    the folder is touched, so that it may be /var/log itself.
    """

    def __init__(self, folder: Path, names: str, limit_bytes: int, file_bytes: int) -> None:
        """`file_bytes`: the size at which a log is rotated."""
        self._folder, self._limit_bytes = folder, limit_bytes
        self._names = rf"(?:{names})(?P<rotated>\.\d+)?"
        self._check_bytes = min(CHECK_BYTES, file_bytes)
        self._unchecked_bytes = 0

    def add(self, size: int) -> None:
        """Counts the bytes written, and checks the folder now and then. Raises: OSError of the folder."""
        self._unchecked_bytes += size
        if self._unchecked_bytes < self._check_bytes:
            return
        self._unchecked_bytes = 0
        room, rotated = self._limit_bytes, []
        for path in self._folder.iterdir():
            match = re.fullmatch(self._names, path.name)  # compiled here: in most processes never
            if match and match["rotated"]:
                rotated.append(_stat_of(path))
            elif match:
                room -= _stat_of(path)[1] + self._check_bytes  # its process may write so much before its next check
        for _, size_bytes, path in sorted(rotated, reverse=True):
            room -= size_bytes
            if room < 0:
                path.unlink(missing_ok=True)


def _stat_of(path: Path) -> tuple[int, int, Path]:
    """Returns the time of a file's last change, its size, and itself; zeros if it has just been deleted."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size, path
    return 0, 0, path


class RotatingFile:
    """The files `name.log`, `name.log.1`, `name.log.2`: at most `files` times `max_bytes`."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        files: int,
        opened: Callable[[int], None] = lambda _descriptor: None,
        quota: Quota | None = None,
    ) -> None:
        """`opened` takes the descriptor of each new file; `quota` counts the bytes written."""
        self.path = path
        self._opened = opened
        self._quota = quota
        self.dropped_lines = 0
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor = -1

    def write(self, block: bytes) -> None:
        """Appends whole lines; those that the disk refuses are counted in `dropped_lines`, no error is raised."""
        try:
            self._make_ready(len(block))
            if self.dropped_lines:
                self._append(b"-- %d lines dropped: disk full or not writable\n" % self.dropped_lines)
                self.dropped_lines = 0
            self._append(block)
            if self._quota:
                self._quota.add(len(block))
        except OSError:
            self.dropped_lines += block.count(b"\n")

    def descriptor(self) -> int:
        """Returns the descriptor for faulthandler, which must not depend on threads. Raises: OSError."""
        self._make_ready(0)
        return self._descriptor

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, block: bytes) -> None:
        written = os.write(self._descriptor, block)
        if written < len(block):  # a short write is the first sign of a full disk: remove the half line
            size = os.fstat(self._descriptor).st_size
            os.ftruncate(self._descriptor, size - written)
            raise OSError("short write")

    def _make_ready(self, wanted: int) -> None:
        if self._descriptor >= 0:
            status = os.fstat(self._descriptor)
            if not self._has_name(status):  # removed, or renamed by logrotate, which expects a new file
                self.close()
            elif status.st_size and status.st_size + wanted > self._max_bytes:
                self._rotate()
        if self._descriptor < 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o640)
            self._opened(self._descriptor)

    def _has_name(self, status: os.stat_result) -> bool:
        """Returns whether the open file is the one that the path names."""
        try:
            return os.path.samestat(status, self.path.lstat())
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, self._files))]
        try:
            for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
                with suppress(FileNotFoundError):
                    newer.replace(older)
        except OSError:  # renaming is impossible: the limit matters more than old lines
            os.ftruncate(self._descriptor, 0)
            return
        if len(names) == 1:
            os.ftruncate(self._descriptor, 0)
            return
        self.close()
