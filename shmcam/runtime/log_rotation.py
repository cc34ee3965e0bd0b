"""A log file of limited size that never blocks on, nor breaks through, a full disk.

supervisord's own rotation loses the log for ever when it meets a full disk (shared/faults.md 0.1); this one counts
what it could not write, says so when it can again, and re-creates a file that somebody deleted.

How much all logs of the service may take together; every process sees to it while it writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CHECK_BYTES = 1_000_000
"""So much one process writes before it looks again (less where whole logs are smaller)."""


class Quota:
    """`limit_bytes` for the files in `folder` whose names, without .1 or .2, match the pattern `family`.

    The oldest rotated logs go first, whoever wrote them; a running one never does. Nothing else in the folder is
    touched, were it /var/log itself.
    """

    def __init__(self, folder: Path, family: str, limit_bytes: int, file_bytes: int) -> None:
        """`file_bytes` is where a running log is rotated."""
        self._folder, self._limit_bytes = folder, limit_bytes
        self._names = re.compile(rf"(?:{family})(?P<rotated>\.\d+)?")
        self._look_bytes = min(CHECK_BYTES, file_bytes)
        self._unlooked_bytes = 0

    def wrote(self, size: int) -> None:
        """Count what was written, and look at the folder now and then. Raises: OSError of the folder."""
        self._unlooked_bytes += size
        if self._unlooked_bytes < self._look_bytes:
            return
        self._unlooked_bytes = 0
        room, rotated = self._limit_bytes, []
        for path in self._folder.iterdir():
            match = self._names.fullmatch(path.name)
            if match and match["rotated"]:
                rotated.append(_stat_of(path))
            elif match:
                room -= _stat_of(path)[1] + self._look_bytes  # what its process may write until it looks
        for _, size_bytes, path in sorted(rotated, reverse=True):
            room -= size_bytes
            if room < 0:
                path.unlink(missing_ok=True)


def _stat_of(path: Path) -> tuple[int, int, Path]:
    """When a file was last written, its size, itself; zeros where it has just gone."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size, path
    return 0, 0, path


class RotatingFile:
    """`name.log`, `name.log.1`, `name.log.2`: at most `files` times `max_bytes`."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        files: int,
        opened: Callable[[int], None] = lambda _descriptor: None,
        quota: Quota | None = None,
    ) -> None:
        """`opened` is told the descriptor of each new file; `quota` of what was written."""
        self.path = path
        self._opened = opened
        self._quota = quota
        self.dropped_lines = 0
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor = -1

    def write(self, block: bytes) -> None:
        """Append whole lines; what the disk refuses is counted in `dropped_lines`, never raised."""
        try:
            self._make_ready(len(block))
            if self.dropped_lines:
                self._append(b"-- %d lines dropped: disk full or not writable\n" % self.dropped_lines)
                self.dropped_lines = 0
            self._append(block)
            if self._quota:
                self._quota.wrote(len(block))
        except OSError:
            self.dropped_lines += block.count(b"\n")

    def descriptor(self) -> int:
        """For faulthandler, which must not depend on threads; opens the file if needed. Raises: OSError."""
        self._make_ready(0)
        return self._descriptor

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, block: bytes) -> None:
        written = os.write(self._descriptor, block)
        if written < len(block):  # a short write is the first sign of a full disk; take the half line back
            size = os.fstat(self._descriptor).st_size
            os.ftruncate(self._descriptor, size - written)
            raise OSError("short write")

    def _make_ready(self, wanted: int) -> None:
        if self._descriptor >= 0:
            status = os.fstat(self._descriptor)
            if status.st_nlink == 0:
                self.close()
            elif status.st_size and status.st_size + wanted > self._max_bytes:
                self._rotate()
        if self._descriptor < 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o640)
            self._opened(self._descriptor)

    def _rotate(self) -> None:
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, self._files))]
        try:
            for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
                with suppress(FileNotFoundError):
                    newer.replace(older)
        except OSError:  # cannot rename here: the bound matters more than the history
            os.ftruncate(self._descriptor, 0)
            return
        if len(names) == 1:
            os.ftruncate(self._descriptor, 0)
            return
        self.close()
