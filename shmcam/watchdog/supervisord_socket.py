"""Makes supervisord's socket again when a tidy-up removed it, which supervisord itself does not notice."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from shmcam.runtime.supervisord import is_listening

log = logging.getLogger(__name__)

KEPT = "supervisor.kept"
"""The second name of the socket, beside it; without .sock, which is what tmpreaper and careful people remove."""


class SocketKeeper:
    """Keeps a second name (a hard link) of a listening socket, from which the first one is made again."""

    def __init__(self, path: Path) -> None:
        self._path, self._kept = path, path.with_name(KEPT)

    def check(self) -> None:
        """Makes the socket again if it is gone, else sees to it that the second name is of this socket."""
        wanted, kept = _inode_of(self._path), _inode_of(self._kept)
        with suppress(OSError):  # another program changes the folder; the next check sees how it ended
            if wanted and wanted != kept:
                fresh = self._kept.with_suffix(".part")
                fresh.unlink(missing_ok=True)
                fresh.hardlink_to(self._path)
                fresh.replace(self._kept)
            elif not wanted and kept and is_listening(self._kept):
                self._path.hardlink_to(self._kept)
                log.warning("socket file was deleted, made anew path=%s", self._path)

    def close(self) -> None:
        """Removes the second name."""
        with suppress(OSError):
            self._kept.unlink()


def _inode_of(path: Path) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0
