"""The one writer of a ring: it takes over, replaces or leaves alone the segment that bears its name.

The lock file that makes a ring's writer the only one, and remembers its counters when the segment is gone.

An OFD lock (fcntl(2)) belongs to the open file: it vanishes with the process, whatever kills it. Never fork after
taking it: the child would hold it too.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shm_ring import layout, segment
from shm_ring.errors import RingBusy, RingMismatch, RingNotReady
from shm_ring.layout import (
    FRAME_FIELDS,
    FRAME_OFFSET,
    HEAD_WORD,
    PAGE_BYTES,
    PID_SPACE_QUAD,
    PID_WORD,
    SEGMENT_HEADER,
    SLOT_HEADER_BYTES,
    START_QUAD,
    STATE_WORD,
    TAKEOVERS_WORD,
    WORD_MASK,
    RingShape,
)
from shm_ring.machine.sync import Futex, fences
from shm_ring.reader import HEARTBEAT_FRESH_S
from shm_ring.segment import Header

_WRITE_LOCK = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock: the whole file


LOCK = ".lock"
ID_LIMIT = 1 << 62
"""Frame ids are below it, or damage: a camera of 240 frames a second needs 600 million years."""


class WriterRecord(NamedTuple):
    """The line of text that a writer leaves in the lock file for the next."""

    pid: int = 0
    next_frame_id: int = 0
    generation: int = 0


class WriterLock:
    """Held from `take` to `close`."""

    def __init__(self, fd: int, left: WriterRecord) -> None:
        self._fd = fd
        self.left = left
        """The record of the previous writer."""

    @classmethod
    def take(cls, path: Path, ring: str) -> WriterLock:
        """Takes the lock, or raises RingBusy naming the pid that has it, or what is in its place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = _open_lock(path, ring)
        left = _parse(os.pread(fd, 128, 0))
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WRITE_LOCK)
        except BlockingIOError:
            os.close(fd)
            raise RingBusy(f"ring {ring}: pid {left.pid} is writing it already (lock {path})") from None
        return cls(fd, _parse(os.pread(fd, 128, 0)))

    def remember(self, memory: WriterRecord) -> None:
        """Writes one line in place; a reader of the file never sees it empty."""
        os.pwrite(self._fd, f"{memory.pid} {memory.next_frame_id} {memory.generation}\n".ljust(64).encode(), 0)

    def close(self) -> None:
        """Lets go. The file stays: unlinking it would let two writers lock two files of one name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lock_path_of(lock_dir: Path, camera: str, stream: str) -> Path:
    """Returns the lock file of the writer of one ring."""
    return lock_dir / f"{camera}.{stream}{LOCK}"


def list_locks(lock_dir: Path) -> list[tuple[str, str]]:
    """Returns camera and stream of each lock file, whether its writer lives or not."""
    parts = (path.name.removesuffix(LOCK).rpartition(".") for path in lock_dir.glob(f"*.*{LOCK}"))
    return [(camera, stream) for camera, _, stream in parts]


def _open_lock(path: Path, ring: str) -> int:
    """Opens the lock file, and waits for nobody. Raises: RingBusy where something else has its place, OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENXIO, errno.ELOOP):
            raise
    raise RingBusy(f"ring {ring}: {path} is no file and cannot be locked; remove it")


def _parse(line: bytes) -> WriterRecord:
    """Reads what `remember` wrote; anything else counts as nothing."""
    with suppress(ValueError, TypeError):
        record = WriterRecord(*(int(word) for word in line.split()))
        if record.pid >= 0 and 0 <= record.next_frame_id < ID_LIMIT and 0 <= record.generation <= WORD_MASK:
            return record
    return WriterRecord()


@dataclass(frozen=True, slots=True)
class Claim:
    """A segment that is ours to write, and where to go on."""

    mapping: mmap.mmap
    shape: RingShape
    generation: int
    head: int
    next_frame_id: int
    took_over: bool
    knows_next_id: bool
    account: str


class _Found(NamedTuple):
    """A segment left by a former writer: its mapping and the position of its newest frame."""

    mapping: mmap.mmap
    header: Header
    head: int
    next_frame_id: int


def claim(name: str, shape: RingShape, left: WriterRecord, names: tuple[str, str], first_sequence: int) -> Claim:
    """Takes over, replaces or makes the segment; the caller holds the lock. See RingWriter.create for what it raises.

    `left`: what the former writer left in the lock file; `names`: camera and stream.
    """
    found = _find_segment(name)
    next_id, generation = left.next_frame_id, left.generation
    known = found is not None and found.head > found.header.first_sequence
    if found is not None:
        next_id, generation = max(next_id, found.next_frame_id), max(generation, found.header.generation)
        is_same = found.header.shape == shape and (found.header.camera, found.header.stream) == names
        if is_same and found.header.state == layout.LIVE:
            _take_over(found)
            text = f"{shape.slots} slots taken over with their frames, head {found.head}"
            return Claim(found.mapping, shape, found.header.generation, found.head, next_id, True, known, text)
        _retire(found.mapping)
        del found  # with its mapping: else the old ring's memory would be missing for the new one
    segment.unlink(name)
    generation = (generation + 1) & WORD_MASK
    fd, account = segment.create_segment(name, shape)
    try:
        mapping = segment.map_segment(fd, shape.total_bytes, writable=True)
    finally:
        os.close(fd)
    _write_header(mapping, shape, generation, names, first_sequence)
    return Claim(mapping, shape, generation, first_sequence, next_id, False, known, account)


def discard(name: str, lock_dir: Path, camera: str, stream: str) -> bool:
    """Retires and unlinks a ring that its writer left behind; one whose writer lives, or that is no ring, stays.

    Returns: whether there was one. Raises: RingMismatch when the segment is another user's.
    """
    try:
        lock = WriterLock.take(lock_path_of(lock_dir, camera, stream), name)
    except RingBusy:
        return False
    try:
        found = _find_segment(name)
        if found is None:
            return False
        _retire(found.mapping)
        segment.unlink(name)
        next_frame_id = max(lock.left.next_frame_id, found.next_frame_id)
        lock.remember(WriterRecord(0, next_frame_id, max(lock.left.generation, found.header.generation)))
        return True
    except RingBusy:
        return False
    finally:
        lock.close()


def _find_segment(name: str) -> _Found | None:
    """Maps what is there, if it can be understood; None when there is nothing to save.

    Raises: RingBusy, RingMismatch when the segment is another user's.
    """
    try:
        fd = segment.open_segment(name, writable=True)
    except RingNotReady:
        return None
    try:
        header = segment.read_header(fd, name)
        if _writer_lives(header):
            raise RingBusy(f"ring {name}: pid {header.writer_pid} is writing it already")
        mapping = segment.map_segment(fd, header.shape.total_bytes, writable=True)
        return _Found(mapping, header, *_find_head(mapping, header))
    except (RingNotReady, RingMismatch):
        return None  # half made, damaged or of another release: nothing in it can be carried on
    finally:
        os.close(fd)


def _writer_lives(header: Header) -> bool:
    """Tells whether another process writes this segment, although it did not hold our lock file."""
    if header.writer_pid_space == segment.pid_namespace():
        return header.writer_pid != os.getpid() and segment.is_alive(header.writer_pid, header.writer_start)
    age_ms = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 - header.heartbeat_ms) & WORD_MASK
    return header.writer_pid != 0 and age_ms < HEARTBEAT_FRESH_S * 1000  # in another container: only its heart tells


def _find_head(mapping: mmap.mmap, header: Header) -> tuple[int, int]:
    """Finds head in full and the next frame id. A frame that was whole when its writer died just before W4 counts."""
    words = memoryview(mapping).cast("I")
    head, next_frame_id = header.first_sequence, 0
    for slot in range(header.shape.slots):
        start = PAGE_BYTES + slot * SLOT_HEADER_BYTES
        fields = np.frombuffer(mapping, FRAME_FIELDS, 1, start + FRAME_OFFSET)[0]
        sequence = int(fields["sequence"])
        frame_id = int(fields["frame_id"])
        whole = (
            frame_id < ID_LIMIT
            and words[start // 4] == (2 * sequence + 2) & WORD_MASK
            and sequence % header.shape.slots == slot
        )
        if whole and sequence >= head:
            head, next_frame_id = sequence + 1, frame_id + 1
    if words[HEAD_WORD] not in (head & WORD_MASK, (head - 1) & WORD_MASK):
        raise RingMismatch(f"head {words[HEAD_WORD]} does not belong to sequence {head - 1}")
    return head, next_frame_id


def _take_over(found: _Found) -> None:
    """Makes a dead writer's segment ours."""
    words = memoryview(found.mapping).cast("I")
    # SYNC POINT E: who sees this head also sees the even word that the dead writer stored, and that we have read.
    _release_fence()
    words[HEAD_WORD] = found.head & WORD_MASK
    words[TAKEOVERS_WORD] = words[TAKEOVERS_WORD] + 1 & WORD_MASK
    _write_owner(found.mapping)
    _wake(found.mapping)


def _write_owner(mapping: mmap.mmap) -> None:
    """Enters our pid, start time and pid namespace."""
    numbers = memoryview(mapping).cast("Q")
    numbers[START_QUAD], numbers[PID_SPACE_QUAD] = segment.start_time_of(os.getpid()), segment.pid_namespace()
    memoryview(mapping).cast("I")[PID_WORD] = os.getpid()


def _retire(mapping: mmap.mmap) -> None:
    """Tells the readers of an old generation that it has ended."""
    _release_fence()  # SYNC POINT F: as in RingWriter.retire
    memoryview(mapping).cast("I")[STATE_WORD] = layout.RETIRED
    _wake(mapping)


def _wake(mapping: mmap.mmap) -> None:
    """Wakes all readers that sleep on head."""
    Futex(int(np.frombuffer(mapping, np.uint8).ctypes.data) + HEAD_WORD * 4).wake()


def _write_header(
    mapping: mmap.mmap, shape: RingShape, generation: int, names: tuple[str, str], first_sequence: int
) -> None:
    """Fills in the header of a new, zeroed segment; the magic goes last, because it says that the rest is there."""
    record = np.frombuffer(mapping, SEGMENT_HEADER, 1)[0]
    record["version"] = layout.VERSION
    record["header_bytes"], record["slot_header_bytes"] = PAGE_BYTES, SLOT_HEADER_BYTES
    record["slots"], record["payload_bytes"] = shape
    record["slot_stride"], record["payload_offset"] = shape.slot_stride, shape.payload_offset
    record["generation"], record["state"] = generation, layout.LIVE
    record["first_sequence"], record["head"] = first_sequence, first_sequence & WORD_MASK
    record["camera"], record["stream"] = (name.encode() for name in names)
    _write_owner(mapping)
    # SYNC POINT: who reads the magic must also read the rest of the header.
    _release_fence()
    memoryview(mapping).cast("I")[0] = layout.MAGIC


def _release_fence() -> None:
    """Orders all stores so far before the next, where the CPU does not by itself."""
    release = fences().release
    if release is not None:
        release()
