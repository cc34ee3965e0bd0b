"""A ring's one writer: how it becomes it, lives and goes. How it writes frames is publisher.py's part."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from shm_ring import layout, segment
from shm_ring.fence import fences
from shm_ring.layout import HEARTBEAT_WORD, PID_WORD, STATE_WORD, WORD_MASK
from shm_ring.lock import Memory, WriterLock
from shm_ring.publisher import Publisher
from shm_ring.shape import Shape
from shm_ring.takeover import Claim, claim


class RingWriter(Publisher):
    """Make one with `RingWriter.create(...)`; a context manager.

    Leaving the `with` block cleanly retires and unlinks the ring; leaving it by an error (or being killed) leaves it
    for the next writer of the same geometry to carry on, and for readers as a black box.
    """

    def __init__(self, name: str, lock: WriterLock, claimed: Claim, *, force_fences: bool = False) -> None:
        super().__init__(name, claimed, fences(force=force_fences).release)
        self.generation = claimed.generation
        """Which segment of this name, counted over restarts."""
        self.took_over = claimed.took_over
        """Whether a dead writer's frames are still in the ring."""
        self.knows_next_id = claimed.knows_next_id
        """Whether frames of a former writer told next_frame_id; the lock file may be older than the last of them."""
        self.account = claimed.account
        """What memory was taken, in words, for the log."""
        self._lock = lock
        self._open = True
        self._inode = segment.inode(name)
        lock.remember(Memory(os.getpid(), self.next_frame_id, self.generation))
        self.heartbeat()

    @classmethod
    def create(
        cls,
        name: str,
        *,
        slots: int,
        payload_bytes: int,
        lock_dir: Path,
        camera: str,
        stream: str,
        first_sequence: int = 0,
        force_fences: bool = False,
    ) -> RingWriter:
        """Become the writer of a ring.

        A segment of the same geometry whose writer is dead is taken over: its frames stay and its readers notice
        nothing. One of another geometry is retired and unlinked, and a new generation begins.
        Raises: RingBusy naming the pid of the living writer, RingTooLarge, RingMismatch (not our segment), ValueError.
        """
        shape = Shape(slots, payload_bytes)
        if problem := shape.problem():
            raise ValueError(f"ring {name}: {problem}")
        fences(force=force_fences)  # where they are missing, say so before anything is touched
        lock = WriterLock.take(lock_dir / f"{camera}.{stream}.lock", name)
        try:
            return cls(
                name, lock, claim(name, shape, lock.left, (camera, stream), first_sequence), force_fences=force_fences
            )
        except BaseException:
            lock.close()
            raise

    @property
    def named(self) -> bool:
        """Whether the ring's name still leads to it; else nobody new can find it, and its writer should begin anew."""
        return segment.inode(self.name) == self._inode

    def heartbeat(self) -> None:
        """Say that the writer lives although it has no frame to publish."""
        self._words[HEARTBEAT_WORD] = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 & WORD_MASK

    def retire(self) -> None:
        """End this generation: readers are told, the name is taken away. Mapped frames stay readable."""
        if self._open:
            # SYNC POINT F: a reader that sees the end also sees the last head.
            if self._release is not None:
                self._release()
            self._words[STATE_WORD] = layout.RETIRED
            if self.named:  # else somebody took the name away, and another ring may bear it now
                segment.unlink(self.name)
            self._wake()
            self.close()

    def close(self) -> None:
        """Stop writing but leave the ring, for the next writer or as a black box."""
        if not self._open:
            return
        self._open = False
        self._lock.remember(Memory(0, self.next_frame_id, self.generation))
        self._words[PID_WORD] = 0
        # Views lent by slot() may still live; the mapping goes when the last of them does.
        del self._bytes, self._words, self._times, self._arrays, self._places
        self._lock.close()

    def __enter__(self) -> RingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.close()
        else:  # a clean end, SystemExit or KeyboardInterrupt: somebody wanted this
            self.retire()
