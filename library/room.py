"""How much room the disk of a folder has, and how much of it is never taken."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from library.limits import is_low, reserve_bytes
from library.settings import LibrarySettings
from service.files import existing


@dataclass(frozen=True, slots=True)
class Room:
    """One disk at one moment."""

    free_bytes: int
    """What may be written without being root."""
    total_bytes: int
    reserve_bytes: int
    """What retention keeps free."""

    @property
    def low(self) -> bool:
        """Whether somebody else takes the reserve."""
        return is_low(self.free_bytes, self.reserve_bytes)

    def short_bytes(self, need_bytes: int) -> int:
        """Bytes that are missing for so many more above the reserve; 0 or less: they fit."""
        return need_bytes + self.reserve_bytes - self.free_bytes


def room_at(folder: Path, settings: LibrarySettings) -> Room:
    """Look at the disk of a folder, which need not exist yet. Raises: OSError."""
    disk = os.statvfs(existing(folder))
    total = disk.f_blocks * disk.f_frsize
    return Room(disk.f_bavail * disk.f_frsize, total, reserve_bytes(settings, total))
