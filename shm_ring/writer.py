"""Writes one ring: the only module that stores into a segment. The protocol is told in layout.py."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from types import TracebackType

import numpy as np

from imaging.formats import Geometry
from shm_ring import layout, segment
from shm_ring.fence import fences
from shm_ring.frame import Pixels
from shm_ring.futex import Futex
from shm_ring.layout import FRAME_STRUCT, SEGMENT_HEADER, WORD_MASK, offset_of
from shm_ring.lock import Memory, WriterLock
from shm_ring.meta import FrameMeta, pack_geometry
from shm_ring.shape import Shape
from shm_ring.slot import Payload, Place, Slot, flat
from shm_ring.takeover import Claim, claim

_HEAD = offset_of(SEGMENT_HEADER, "head") // 4
_STATE = offset_of(SEGMENT_HEADER, "state") // 4
_HEARTBEAT = offset_of(SEGMENT_HEADER, "heartbeat_ms") // 4
_PID = offset_of(SEGMENT_HEADER, "writer_pid") // 4
_BYTE = np.dtype(np.uint8)  # one object for all arrays of bytes, so `is` is enough on the fast path
_UNKNOWN = object()  # the geometry bytes of a slot that this writer has not written yet


class RingWriter:
    """Make one with `RingWriter.create(...)`; a context manager.

    Leaving the `with` block cleanly retires and unlinks the ring; leaving it by an error (or being killed) leaves it
    for the next writer of the same geometry to carry on, and for readers as a black box.
    """

    def __init__(self, name: str, lock: WriterLock, claimed: Claim, *, force_fences: bool = False) -> None:
        shape = claimed.shape
        self.name, self.slots, self.payload_bytes = name, shape.slots, shape.payload_bytes
        self.generation = claimed.generation
        """Which segment of this name, counted over restarts."""
        self.took_over = claimed.took_over
        """Whether a dead writer's frames are still in the ring."""
        self.account = claimed.account
        """What memory was taken, in words, for the log."""
        self.next_frame_id = claimed.next_frame_id
        """One more than the newest frame's id, also of former writers."""
        self._lock = lock
        self._head = claimed.head
        self._release = fences(force=force_fences).release
        mapping = claimed.mapping
        self._bytes = memoryview(mapping)
        self._words = self._bytes.cast("I")
        array = np.frombuffer(mapping, np.uint8)
        starts = [shape.payload(slot) for slot in range(shape.slots)]
        self._arrays: list[Pixels] = [array[start : start + shape.payload_bytes] for start in starts]
        self._places = [Place.of(shape, slot, self._bytes) for slot in range(shape.slots)]
        self._geometries: list[object] = [_UNKNOWN] * shape.slots
        self._wake = Futex(array.ctypes.data + _HEAD * 4).wake
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

    @property
    def head(self) -> int:
        """How many frames were published: the sequence of the next one."""
        return self._head

    def publish(self, payload: Payload, meta: FrameMeta, geometry: Geometry | None = None) -> None:
        """Copy one frame in. `payload`: any C-contiguous buffer, at most payload_bytes long.

        Raises: ValueError when it is longer or not contiguous; nothing is published then.
        """
        plain = isinstance(payload, np.ndarray) and payload.ndim == 1 and payload.dtype is _BYTE
        source = payload if plain else flat(payload)
        used = len(source)
        self.begin()
        self._places[self._head % self.slots].payload[:used] = source  # type: ignore[assignment] # numpy's stubs: 3.12
        self.commit(used, meta, geometry)

    def slot(self) -> Slot:
        """Lend the next slot's memory for a `with` block; committed at its end, abandoned on an exception."""
        return Slot(self, self._arrays[self._head % self.slots])

    def slot_memory(self, slot: int) -> Pixels:
        """Return a slot's memory outside the protocol: for benches that compare publish with a bare copy."""
        return self._arrays[slot]

    def begin(self) -> None:
        """Say that the next slot's old frame is gone."""
        self._words[self._places[self._head % self.slots].word] = (2 * self._head + 1) & WORD_MASK
        # SYNC POINT A: a reader that sees one new byte of this slot also sees the odd word.
        if self._release is not None:
            self._release()

    def commit(self, used_bytes: int, meta: FrameMeta, geometry: Geometry | None) -> None:
        """Write what travels with the payload, then make the frame visible and wake everybody."""
        sequence, words, release = self._head, self._words, self._release
        slot = sequence % self.slots
        word_at, trailer_at, fields_at, _ = self._places[slot]
        try:
            FRAME_STRUCT.pack_into(
                self._bytes,
                fields_at,
                sequence,
                meta.frame_id,
                meta.captured_ns,
                meta.captured_utc_ns,
                time.clock_gettime_ns(time.CLOCK_BOOTTIME),
                used_bytes,
                meta.analogue_gain,
                meta.digital_gain,
                meta.lux,
                meta.total_dropped,
                meta.exposure_us,
                meta.frame_duration_us,
                meta.colour_temperature_k,
                meta.flags,
                meta.dropped_before,
                0,
            )
        except struct.error as error:
            raise ValueError(f"ring {self.name}: {meta}: {error}") from None
        if geometry is not self._geometries[slot]:
            self._write_geometry(slot, geometry)
        word = (2 * sequence + 2) & WORD_MASK
        words[trailer_at] = word
        # SYNC POINT B: a reader that sees the even word also sees every byte stored before it.
        if release is not None:
            release()
        words[word_at] = word
        # SYNC POINT E: a reader that sees the new head also sees the even word.
        if release is not None:
            release()
        self._head = sequence = sequence + 1
        words[_HEAD] = sequence & WORD_MASK
        self._wake()
        self.next_frame_id = meta.frame_id + 1

    def _write_geometry(self, slot: int, geometry: Geometry | None) -> None:
        """Store a geometry in a slot header; done once per slot and change, not once per frame."""
        start = self._places[slot].fields + layout.GEOMETRY_OFFSET - layout.FRAME_OFFSET
        self._bytes[start : start + layout.GEOMETRY.itemsize] = pack_geometry(geometry)
        self._geometries[slot] = geometry

    def heartbeat(self) -> None:
        """Say that the writer lives although it has no frame to publish."""
        self._words[_HEARTBEAT] = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 & WORD_MASK

    def retire(self) -> None:
        """End this generation: readers are told, the name is taken away. Mapped frames stay readable."""
        if self._open:
            self._words[_STATE] = layout.RETIRED
            segment.unlink(self.name)
            self._wake()
            self.close()

    def close(self) -> None:
        """Stop writing but leave the ring, for the next writer or as a black box."""
        if not self._open:
            return
        self._open = False
        self._lock.remember(Memory(0, self.next_frame_id, self.generation))
        self._words[_PID] = 0
        # Views lent by slot() may still live; the mapping goes when the last of them does.
        del self._bytes, self._words, self._arrays, self._places
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
