"""The lock file that makes a ring's writer the only one, and remembers its counters when the segment is gone.

An OFD lock (fcntl(2)) belongs to the open file: it vanishes with the process, whatever kills it. Never fork after
taking it: the child would hold it too.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from shm_ring.errors import RingBusy

_WRITE_LOCK = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock: the whole file


class Memory(NamedTuple):
    """What a writer leaves behind for the next: one line of text in the lock file."""

    pid: int = 0
    next_frame_id: int = 0
    generation: int = 0


class WriterLock:
    """Held from `take` to `close`."""

    def __init__(self, fd: int, left: Memory) -> None:
        self._fd = fd
        self.left = left
        """What the previous writer wrote."""

    @classmethod
    def take(cls, path: Path, ring: str) -> WriterLock:
        """Take the lock, or raise RingBusy naming the pid that has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        left = _parse(os.pread(fd, 128, 0))
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WRITE_LOCK)
        except BlockingIOError:
            os.close(fd)
            raise RingBusy(f"ring {ring}: pid {left.pid} is writing it already (lock {path})") from None
        return cls(fd, _parse(os.pread(fd, 128, 0)))

    def remember(self, memory: Memory) -> None:
        """Write one line in place; a reader of the file never sees it empty."""
        os.pwrite(self._fd, f"{memory.pid} {memory.next_frame_id} {memory.generation}\n".ljust(64).encode(), 0)

    def close(self) -> None:
        """Let go. The file stays: unlinking it would let two writers lock two files of one name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parse(line: bytes) -> Memory:
    """Read what `remember` wrote; anything else counts as nothing."""
    with suppress(ValueError, TypeError):
        return Memory(*(int(word) for word in line.split()))
    return Memory()
