"""The memory that a ring may take: of this machine, of /dev/shm, and of the control groups that this process is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SHM_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
MEMORY_SHARE = 0.8  # of available memory: the rest is for encoders and the page cache

UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes "no limit" as a number of about 8 EiB."""


class MemoryRoom(NamedTuple):
    """The memory that a ring may take."""

    memory_bytes: int
    """Available memory (proc(5), MemAvailable), or what the control groups leave if that is less."""
    shm_bytes: int
    """Free in /dev/shm."""

    @property
    def usable_bytes(self) -> int:
        """The smaller of the two limits."""
        return min(int(self.memory_bytes * MEMORY_SHARE), self.shm_bytes)


class GroupLimit(NamedTuple):
    """The memory limit of one control group."""

    limit_bytes: int
    used_bytes: int
    """Without files that the kernel drops when memory is short."""


def available_room() -> MemoryRoom:
    """Measures this machine."""
    disk = os.statvfs(SHM_FOLDER)
    left = [group.limit_bytes - group.used_bytes for group in find_group_limits()]
    memory = min(read_meminfo("MemAvailable"), *left) if left else read_meminfo("MemAvailable")
    return MemoryRoom(max(0, memory), disk.f_bavail * disk.f_frsize)


def total_memory_bytes() -> int:
    """Returns the memory of this machine, or of the container if that is less."""
    return min([read_meminfo("MemTotal"), *(group.limit_bytes for group in find_group_limits())])


def read_meminfo(name: str, file: Path = Path("/proc/meminfo")) -> int:
    """Returns one line of proc_meminfo(5) in bytes."""
    return next(int(line.split()[1]) * 1024 for line in file.read_text().splitlines() if line.startswith(f"{name}:"))


def find_group_limits(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[GroupLimit]:
    """Yields the memory limits of this process's control groups and of those around them (cgroups(7)).

    cgroup v1 and v2, as systemd and Docker mount them; where none is mounted there is no limit to see.
    """
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                top, names = root, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                top = root / "memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            folder = top / path.lstrip("/")
            if not folder.is_dir():
                folder = top  # a container that has the host's path in its list, and only its own folder mounted
            for one in (folder, *folder.parents):
                if one.is_relative_to(top):
                    yield from _read_limit(one, *names)


def _read_limit(folder: Path, limit: str, used: str, droppable: str) -> Iterator[GroupLimit]:
    with suppress(OSError, ValueError):  # not a group of its own, or its limit is "max"
        limit_bytes = int((folder / limit).read_text())
        if limit_bytes < UNLIMITED_BYTES:
            lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            dropped = sum(int(number) for name, number in lines if name == droppable)
            yield GroupLimit(limit_bytes, max(0, int((folder / used).read_text()) - dropped))
