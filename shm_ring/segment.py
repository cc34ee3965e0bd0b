"""The segment of a ring: opened, checked, made and mapped. A header is believed only after this module.

Before a segment is reserved, its size is compared with the memory of this machine, so that a refusal is a sentence
and not a bus error. A writer is alive when the process that wrote its pid and start time is still the one with this
pid.
"""

from __future__ import annotations

import errno
import mmap
import os
import pwd
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import posix_ipc

from shm_ring import layout
from shm_ring.errors import RingMismatch, RingNotReady, RingTooLarge
from shm_ring.layout import (
    MAX_SEGMENT_BYTES,
    MAX_SLOTS,
    MIN_SLOTS,
    PAGE_BYTES,
    SEGMENT_HEADER,
    SLOT_HEADER_BYTES,
    RingShape,
)
from shm_ring.machine.available_memory import MEMORY_SHARE, SHM_FOLDER, MemoryRoom, available_room

MEGABYTE = 1_000_000


def memory_account(shape: RingShape, room: MemoryRoom) -> str:
    """Writes the sum out in full, for the log and for a refusal."""
    return (
        f"{shape.slots} slots of {shape.payload_bytes / MEGABYTE:.3f} MB need {shape.total_bytes / MEGABYTE:.1f} MB; "
        f"{SHM_FOLDER} has {room.shm_bytes / MEGABYTE:.1f} MB free, "
        f"memory {room.memory_bytes / MEGABYTE:.1f} MB available (of which {MEMORY_SHARE:.0%} may be used)"
    )


def fitting_slots(shape: RingShape, room: MemoryRoom) -> int:
    """Returns how many slots of this size fit; 0 when not even the least ring does."""
    usable_bytes = min(room.usable_bytes, MAX_SEGMENT_BYTES)
    if shape.slots <= MAX_SLOTS and shape.total_bytes <= usable_bytes:
        return shape.slots
    # Fewer slots need a shorter table of headers, too; it is rounded up to whole pages.
    slots = (usable_bytes - PAGE_BYTES) // (shape.slot_stride + SLOT_HEADER_BYTES)
    while slots >= MIN_SLOTS and shape._replace(slots=slots).total_bytes > usable_bytes:
        slots -= 1
    return min(slots, shape.slots, MAX_SLOTS) if slots >= MIN_SLOTS else 0


def check_fits(name: str, shape: RingShape, room: MemoryRoom) -> str:
    """Returns the account, or raises RingTooLarge with the largest number of slots that would fit."""
    text = memory_account(shape, room)
    if shape.total_bytes <= room.usable_bytes:
        return text
    slots = fitting_slots(shape, room)
    advice = f"try slots = {slots}" if slots else "not even 2 slots fit: use smaller frames or enlarge /dev/shm"
    raise RingTooLarge(f"ring {name}: {text}; {advice}")


_NAME = re.compile(r"/[^/\0]{1,250}")
MODE = 0o640  # owner writes, group reads; set by fchmod because the umask would cut it


class Header(NamedTuple):
    """The header of a segment, checked."""

    shape: RingShape
    state: int
    generation: int
    takeovers: int
    first_sequence: int
    writer_pid: int
    writer_start: int
    writer_pid_space: int
    heartbeat_ms: int
    camera: str
    stream: str


_NUMBERS = (
    "state",
    "generation",
    "takeovers",
    "first_sequence",
    "writer_pid",
    "writer_start",
    "writer_pid_space",
    "heartbeat_ms",
)


def open_segment(name: str, *, writable: bool = False) -> int:
    """Opens an existing segment. Returns: a file descriptor, the caller closes it.

    Raises: RingNotReady when there is none; RingMismatch when it is another user's, or the name cannot be one.
    """
    if not _NAME.fullmatch(name):  # posix_ipc crashes on a NUL
        raise RingMismatch(f"ring {name!r}: no segment bears such a name; one looks like /shmcam.cam0.main")
    try:
        return int(posix_ipc.SharedMemory(name, read_only=not writable).fd)
    except posix_ipc.ExistentialError:
        raise RingNotReady(f"ring {name}: no such segment; is its writer running?") from None
    except (PermissionError, posix_ipc.PermissionsError):
        raise RingMismatch(f"ring {name}: no permission; {_describe_owner(name)}") from None
    except OSError as error:  # a symbolic link (refused by shm_open), a folder, too many open files
        raise RingMismatch(f"ring {name}: cannot be opened: {error}") from None


def _describe_owner(name: str) -> str:
    """Says whose segment it is and what its mode is."""
    try:
        stat = (SHM_FOLDER / name[1:]).stat()
    except OSError as error:
        return str(error)
    try:
        user = pwd.getpwuid(stat.st_uid).pw_name
    except KeyError:
        user = f"uid {stat.st_uid}"
    return f"it belongs to {user}, mode {stat.st_mode & 0o777:04o}"


def read_header(fd: int, name: str) -> Header:
    """Climbs the ladder: too short → no magic yet → not a ring → other version → impossible sizes → understood.

    Raises: RingNotReady on the first two rungs (it is being made), RingMismatch on the others.
    """
    size = os.fstat(fd).st_size
    if size < layout.PAGE_BYTES:
        raise RingNotReady(f"ring {name}: segment of {size} bytes, it is just being made")
    magic = int(np.frombuffer(os.pread(fd, 4, 0), "u4")[0])  # before the rest: it is stored after the rest
    if magic == 0:
        raise RingNotReady(f"ring {name}: no magic yet, it is just being made")
    if magic != layout.MAGIC:
        raise RingMismatch(
            f"ring {name}: magic {magic:#010x}, expected {layout.MAGIC:#010x}: not a ring of this machine"
        )
    record = np.frombuffer(os.pread(fd, layout.PAGE_BYTES, 0), SEGMENT_HEADER)[0]
    if record["version"] != layout.VERSION:
        raise RingMismatch(
            f"ring {name}: layout version {record['version']}, this program reads {layout.VERSION}: "
            "restart writer and readers with the same release"
        )
    shape = RingShape(int(record["slots"]), int(record["payload_bytes"]))
    problem = shape.problem() or _find_contradiction(record, shape, size)
    if problem:
        raise RingMismatch(f"ring {name}: {problem}: the header is damaged")
    numbers = {field: int(record[field]) for field in _NUMBERS}
    camera, stream = (record[field].decode("ascii", "replace") for field in ("camera", "stream"))
    return Header(shape=shape, camera=camera, stream=stream, **numbers)


def _find_contradiction(record: np.void, shape: RingShape, size: int) -> str:
    """Compares what the header claims with what follows from its own sizes and the file's length."""
    claims = {
        "header_bytes": layout.PAGE_BYTES,
        "slot_header_bytes": layout.SLOT_HEADER_BYTES,
        "slot_stride": shape.slot_stride,
        "payload_offset": shape.payload_offset,
    }
    for field, expected in claims.items():
        if record[field] != expected:
            return f"{field} = {record[field]}, expected {expected}"
    if size != shape.total_bytes:
        return f"segment of {size} bytes, expected {shape.total_bytes}"
    return f"state = {record['state']}" if record["state"] > layout.RETIRED else ""


def create_segment(name: str, shape: RingShape) -> tuple[int, str]:
    """Reserves a new segment, all of it: ftruncate alone would succeed and kill the first write with SIGBUS later.

    Returns: file descriptor (the caller closes it) and the account of the memory taken.
    Raises: RingTooLarge.
    """
    account = check_fits(name, shape, available_room())
    fd = int(posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=MODE).fd)
    try:
        os.fchmod(fd, MODE)
        os.posix_fallocate(fd, 0, shape.total_bytes)
    except OSError as error:
        os.close(fd)
        unlink(name)
        if error.errno != errno.ENOSPC:
            raise
        # Somebody was faster than us between the look and the reservation: the second look tells what is left.
        available = available_room()
        left = available._replace(shm_bytes=min(available.shm_bytes, shape.total_bytes - 1))
        account = check_fits(name, shape, left)
    return fd, account


def map_segment(fd: int, length: int, *, writable: bool) -> mmap.mmap:
    """Maps it with its pages present, so that no frame pays for page faults. MAP_SHARED also for readers: futexes."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, length, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=protection)


def inode_of(name: str) -> int:
    """Returns which segment bears the name now; 0 when there is none."""
    try:
        return (SHM_FOLDER / name[1:]).stat().st_ino
    except FileNotFoundError:
        return 0


def unlink(name: str) -> None:
    """Takes the name away; who has the segment mapped keeps it."""
    try:
        posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        return
    except (PermissionError, posix_ipc.PermissionsError):
        raise RingMismatch(f"ring {name}: cannot remove the segment; {_describe_owner(name)}") from None


def start_time_of(pid: int) -> int:
    """Returns when a process started, in clock ticks since boot; 0 when there is none (proc(5), stat field 22)."""
    try:
        stat = Path(f"/proc/{pid}/task/{pid}/stat").read_bytes()  # qemu-user invents /proc/<own pid>/stat, not this
    except OSError:
        return 0
    fields = stat[stat.rfind(b")") + 2 :].split()  # the name before may hold spaces and brackets
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def pid_namespace() -> int:
    """Returns the inode of this process's pid namespace (namespaces(7)); pids of another one mean nothing here."""
    return Path("/proc/self/ns/pid").stat().st_ino


def is_alive(pid: int, started: int) -> bool:
    """Tells whether the process with this pid is the one that started then."""
    return pid > 0 and started > 0 and start_time_of(pid) == started
