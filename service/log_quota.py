"""How much all logs of the service may take together; every process sees to it while it writes."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

LOOK_BYTES = 1_000_000
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
        self._look_bytes = min(LOOK_BYTES, file_bytes)
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
                rotated.append(_facts(path))
            elif match:
                room -= _facts(path)[1] + self._look_bytes  # what its process may write until it looks
        for _, size_bytes, path in sorted(rotated, reverse=True):
            room -= size_bytes
            if room < 0:
                path.unlink(missing_ok=True)


def _facts(path: Path) -> tuple[int, int, Path]:
    """When a file was last written, its size, itself; zeros where it has just gone."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size, path
    return 0, 0, path
