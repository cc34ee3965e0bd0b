"""Whether a ring fits into this machine; asked before anything is reserved, so that the answer is a sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from shm_ring.errors import RingTooLarge
from shm_ring.layout import MIN_SLOTS
from shm_ring.shape import Shape

SHM_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
MEMORY_SHARE = 0.8  # of available memory: the rest is for encoders and the page cache
MEGABYTE = 1_000_000


class Room(NamedTuple):
    """What may be taken, in bytes."""

    memory_bytes: int
    """Available memory (proc(5), MemAvailable), or what the control group leaves if that is less."""
    shm_bytes: int
    """Free in /dev/shm."""

    @property
    def usable_bytes(self) -> int:
        """The smaller of the two limits."""
        return min(int(self.memory_bytes * MEMORY_SHARE), self.shm_bytes)


def available_room() -> Room:
    """Look at this machine."""
    disk = os.statvfs(SHM_FOLDER)
    lines = Path("/proc/meminfo").read_text().splitlines()
    memory = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return Room(min(memory, _group_bytes()), disk.f_bavail * disk.f_frsize)


def _group_bytes(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what a container's memory limit still leaves; no limit: a very large number."""
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2 here, or "max"
        return 1 << 62


def memory_account(shape: Shape, room: Room) -> str:
    """Write the sum out in full, for the log and for a refusal."""
    return (
        f"{shape.slots} slots of {shape.payload_bytes / MEGABYTE:.3f} MB need {shape.total_bytes / MEGABYTE:.1f} MB; "
        f"{SHM_FOLDER} has {room.shm_bytes / MEGABYTE:.1f} MB free, "
        f"memory {room.memory_bytes / MEGABYTE:.1f} MB available (of which {MEMORY_SHARE:.0%} may be used)"
    )


def fitting_slots(shape: Shape, room: Room) -> int:
    """Return how many slots of this size fit; 0 when not even the least ring does."""
    slots = min(shape.slots, max(0, (room.usable_bytes - shape.payload_offset) // shape.slot_stride))
    return slots if slots >= MIN_SLOTS else 0


def check_fits(name: str, shape: Shape, room: Room) -> str:
    """Return the account, or raise RingTooLarge with the largest number of slots that would fit."""
    text = memory_account(shape, room)
    if shape.total_bytes <= room.usable_bytes:
        return text
    slots = fitting_slots(shape, room)
    advice = f"try slots = {slots}" if slots else "not even 2 slots fit: use smaller frames or enlarge /dev/shm"
    raise RingTooLarge(f"ring {name}: {text}; {advice}")
