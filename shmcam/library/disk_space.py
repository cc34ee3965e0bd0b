"""How much room the disk of a folder has, and how much of it is never taken."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shmcam.library.settings import LibrarySettings
from shmcam.runtime.atomic_files import existing_parent_of

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """One disk at one moment."""

    free_bytes: int
    """What may be written without being root."""
    total_bytes: int
    reserve_bytes: int
    """What retention keeps free."""

    @property
    def is_low(self) -> bool:
        """Whether somebody else takes the reserve."""
        return is_low(self.free_bytes, self.reserve_bytes)

    def missing_bytes(self, need_bytes: int) -> int:
        """Bytes that are missing for so many more above the reserve; 0 or less: they fit."""
        return need_bytes + self.reserve_bytes - self.free_bytes


def measure_room(folder: Path, settings: LibrarySettings) -> DiskRoom:
    """Look at the disk of a folder, which need not exist yet. Raises: OSError."""
    disk = os.statvfs(existing_parent_of(folder))
    total = disk.f_blocks * disk.f_frsize
    return DiskRoom(disk.f_bavail * disk.f_frsize, total, reserve_bytes_of(settings, total))


def reserve_bytes_of(settings: LibrarySettings, disk_bytes: int) -> int:
    """Free space that is never taken: the smaller of the two keys, but a 0 in either switches only that one off."""
    by_size = settings.free_reserve_mb * MB
    by_share = int(disk_bytes * settings.free_reserve_percent / 100)
    return min(by_size, by_share) if by_size and by_share else max(by_size, by_share)


def is_low(free_bytes: int, reserve_bytes: int) -> bool:
    """Whether somebody else takes the room: retention alone goes only a little below the reserve between two files."""
    return free_bytes < max(1, reserve_bytes // 2)
