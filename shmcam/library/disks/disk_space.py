"""The free space of a folder's disk, in bytes and in files (inodes), and the reserve that is never taken."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from pathlib import Path

from msgspec import Struct

from shmcam.library.settings import LibrarySettings
from shmcam.runtime.atomic_files import existing_parent_of

MB = 1_000_000
RESERVE_FILES = 1000
"""Inodes kept free; on a small file system a fiftieth of all."""
NEEDED_FILES = 4
"""Inodes that saving one file takes: the file, its sidecar, its CSV, a folder."""
MAY_BE_FAT = ("vfat", "msdos", "fuse", "cifs", "smb", "nfs", "9p")
"""The beginnings of file systems that are FAT, or may have one behind them: a NAS with a stick, a FUSE driver."""
FAT_MAX_BYTES = (1 << 32) - 1
"""The largest file of FAT32."""
MOUNTS = Path("/proc/self/mountinfo")


class DiskRoom(Struct, frozen=True):
    """The space on one disk at one moment."""

    free_bytes: int
    """Bytes that may be written without being root."""
    total_bytes: int
    """0: this file system does not tell its size, as some in user space; a write tells when it is full."""
    reserve_bytes: int
    """Bytes that retention keeps free."""
    free_files: int = 0
    total_files: int = 0
    """Inodes; 0: this file system has no fixed number."""

    @property
    def low(self) -> str:
        """What is left while another program takes the reserve, in words; empty: it does not."""
        # retention alone goes only a little below the reserve
        if self.total_bytes > 0 and self.free_bytes < max(1, self.reserve_bytes // 2):
            return f"{self.free_bytes // MB} MB free"
        few_files = self.total_files > 0 and self.free_files < max(NEEDED_FILES, self.reserve_files // 2)
        return f"{self.free_files} inodes free" if few_files else ""

    @property
    def reserve_files(self) -> int:
        """Inodes that retention keeps free."""
        return min(RESERVE_FILES, self.total_files // 50)

    @property
    def missing_files(self) -> int:
        """Inodes that are missing for one more file above the reserve; 0 or less: it fits."""
        return NEEDED_FILES + self.reserve_files - self.free_files if self.total_files else 0

    def missing_bytes(self, need_bytes: int) -> int:
        """Returns the bytes that are missing for `need_bytes` above the reserve; 0 or less: they fit."""
        return need_bytes + self.reserve_bytes - self.free_bytes if self.total_bytes else 0


def measure_room(folder: Path, settings: LibrarySettings) -> DiskRoom:
    """Looks at the disk of a folder, which need not exist yet. Raises: OSError."""
    disk = os.statvfs(existing_parent_of(folder))
    total = disk.f_blocks * disk.f_frsize
    reserve = reserve_bytes_of(settings, total) if total else 0
    return DiskRoom(disk.f_bavail * disk.f_frsize, total, reserve, disk.f_favail, disk.f_files)


def sync_disk(folder: Path) -> None:
    """Writes out what the disk of a folder still holds back (syncfs(2)): btrfs gives room back with a commit only."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)


def is_limit_unseen(code: int, folder: Path) -> bool:
    """Tells whether a write that failed with this errno met a limit that free space does not show.

    That is a quota, or a disk that does not tell its size. Else free space decides what is deleted: an error that has
    another cause would be no reason to delete anything.
    """
    return code == errno.EDQUOT or (code == errno.ENOSPC and os.statvfs(existing_parent_of(folder)).f_blocks == 0)


def max_file_bytes_of(folder: Path) -> int:
    """Returns the largest size of a file there, by file system and by the limit of this process; 0: unknown."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = [FAT_MAX_BYTES] if _read_file_system(existing_parent_of(folder)).startswith(MAY_BE_FAT) else []
    limits += [] if soft == resource.RLIM_INFINITY else [soft]
    return min(limits, default=0)


def _read_file_system(folder: Path) -> str:
    """Returns the kernel's name of a folder's file system; empty if it is unknown."""
    try:
        device = folder.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in MOUNTS.read_text(errors="replace").splitlines():
            if line.split()[2] == wanted:
                return line.partition(" - ")[2].split()[0]
    except (OSError, IndexError):
        pass
    return ""


def reserve_bytes_of(settings: LibrarySettings, disk_bytes: int) -> int:
    """Returns the free space that is never used: the smaller of the two keys; a 0 in one switches only that one off."""
    by_size = settings.free_reserve_mb * MB
    by_share = int(disk_bytes * settings.free_reserve_percent / 100)
    return min(by_size, by_share) if by_size and by_share else max(by_size, by_share)
