"""A ring's segment as a reader has it: mapped read-only, with what its header says and whether it still counts."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Self

import numpy as np

from shm_ring import layout, process, segment
from shm_ring.errors import ViewOutlivedRing
from shm_ring.fence import fences
from shm_ring.futex import Futex
from shm_ring.layout import (
    HEAD_WORD,
    HEARTBEAT_WORD,
    PID_WORD,
    START_QUAD,
    STATE_WORD,
    TAKEOVERS_WORD,
    WORD_MASK,
)

HEARTBEAT_FRESH_S = 2.0  # a writer in another container has no pid here; its heartbeat counts then


class RingMapping:
    """One generation's memory; a context manager."""

    def __init__(self, name: str, *, force_fences: bool = False) -> None:
        self.name = name
        self._fd = segment.open_segment(name)
        header = segment.read_header(self._fd, name)
        self.shape = header.shape
        """The sizes from which all offsets follow."""
        self.slots, self.payload_bytes = header.shape
        self.generation = header.generation
        """Which segment of this name, counted over restarts."""
        self.first_sequence = header.first_sequence
        """Sequence of the generation's first frame."""
        self.camera, self.stream = header.camera, header.stream
        self._acquire = fences(force=force_fences).acquire
        mapping = segment.map_segment(self._fd, header.shape.total_bytes, writable=False)
        self._mapping, self._bytes = mapping, memoryview(mapping)
        self._words = self._bytes.cast("I")
        self._array = np.frombuffer(mapping, np.uint8)
        self._futex = Futex(self._array.ctypes.data + HEAD_WORD * 4)

    @classmethod
    def open(cls, name: str, *, force_fences: bool = False) -> Self:
        """Open the current generation. Raises: RingNotReady (retry), RingMismatch (a person must act)."""
        return cls(name, force_fences=force_fences)

    @property
    def retired(self) -> bool:
        """Whether this generation has ended: retired by its writer, or unlinked. Its frames can still be read."""
        ended = self._words[STATE_WORD] == layout.RETIRED or os.fstat(self._fd).st_nlink == 0
        # SYNC POINT F: who sees the end also sees the last head, and reads the generation to its last frame.
        if ended and self._acquire is not None:
            self._acquire()
        return ended

    @property
    def state(self) -> str:
        """The header's state word: starting, live, retired."""
        return dict(enumerate(layout.STATE_NAMES)).get(self._words[STATE_WORD], "damaged")

    @property
    def takeovers(self) -> int:
        """How many writers have carried this generation on after the death of another."""
        return self._words[TAKEOVERS_WORD]

    @property
    def writer_pid(self) -> int:
        """Process that writes, 0 = none."""
        return self._words[PID_WORD]

    @property
    def writer_alive(self) -> bool:
        """Whether the writer lives. A dead one is no reason to leave: its successor carries this segment on."""
        pid = self.writer_pid
        started, space = np.frombuffer(self._bytes[START_QUAD * 8 : START_QUAD * 8 + 16].tobytes(), "u8")
        if int(space) != process.pid_space():
            return pid != 0 and self.writer_age_s < HEARTBEAT_FRESH_S
        return process.alive(pid, int(started))

    @property
    def writer_age_s(self) -> float:
        """Seconds since the writer's last heartbeat."""
        now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
        return ((now_ms - self._words[HEARTBEAT_WORD]) & WORD_MASK) / 1000

    def close(self) -> None:
        """Unmap. Raises: ViewOutlivedRing while somebody holds a view (the memory then stays until it is gone)."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        self._array = np.empty(0, np.uint8)
        self._words.release()
        self._bytes.release()
        try:
            self._mapping.close()
        except BufferError:
            raise ViewOutlivedRing(
                f"ring {self.name}: a frame view outlived its ring; use Frame.copy() for pixels you keep"
            ) from None

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ViewOutlivedRing:
            if kind is None:  # else an error is on its way already, and its traceback holds frames
                raise
