"""The free space of a folder's disk, and the reserve that is never taken."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shmcam.library.settings import LibrarySettings
from shmcam.runtime.atomic_files import existing_parent_of

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """The space on one disk at one moment."""

    free_bytes: int
    """Bytes that may be written without being root."""
    total_bytes: int
    reserve_bytes: int
    """Bytes that retention keeps free."""

    @property
    def is_low(self) -> bool:
        """True while another program takes the reserve."""
        return is_low(self.free_bytes, self.reserve_bytes)

    def missing_bytes(self, need_bytes: int) -> int:
        """Returns the bytes that are missing for `need_bytes` above the reserve; 0 or less: they fit."""
        return need_bytes + self.reserve_bytes - self.free_bytes


def measure_room(folder: Path, settings: LibrarySettings) -> DiskRoom:
    """Looks at the disk of a folder, which need not exist yet. Raises: OSError."""
    disk = os.statvfs(existing_parent_of(folder))
    total = disk.f_blocks * disk.f_frsize
    return DiskRoom(disk.f_bavail * disk.f_frsize, total, reserve_bytes_of(settings, total))


def reserve_bytes_of(settings: LibrarySettings, disk_bytes: int) -> int:
    """Returns the free space that is never used: the smaller of the two keys; a 0 in one switches only that one off."""
    by_size = settings.free_reserve_mb * MB
    by_share = int(disk_bytes * settings.free_reserve_percent / 100)
    return min(by_size, by_share) if by_size and by_share else max(by_size, by_share)


def is_low(free_bytes: int, reserve_bytes: int) -> bool:
    """Tells whether another program takes the space: retention alone goes only a little below the reserve."""
    return free_bytes < max(1, reserve_bytes // 2)
