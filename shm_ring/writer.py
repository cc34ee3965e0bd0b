"""The one writer of a ring: becomes it, publishes frames, gives signs of life, ends.

A frame gets into its slot and is announced by the stores W1 to W4 of layout.py, and nothing else. After a copy of
megabytes, or a sleep, neither code nor data is in the caches: the cost of a frame is how much of both it touches.
Hence few calls, and everything that can be computed once is. A slot can be lent to a source, which then writes into
shared memory itself.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shm_ring import layout, segment
from shm_ring.errors import MetadataOutOfRange
from shm_ring.formats import Geometry
from shm_ring.frame import Pixels
from shm_ring.layout import FRAME_STRUCT, HEAD_WORD, HEARTBEAT_WORD, PID_WORD, STATE_WORD, WORD_MASK, RingShape
from shm_ring.machine.sync import Futex, around_copy, fences
from shm_ring.metadata import FrameMeta, pack_geometry
from shm_ring.ownership import Claim, WriterLock, WriterRecord, claim, lock_path_of

Payload = NDArray[Any] | bytes | bytearray | memoryview


class SlotOffsets(NamedTuple):
    """The offsets of one slot's parts, computed once."""

    word: int
    """Index of its sequence word among the segment's words."""
    trailer: int
    """Index of its trailer among them."""
    fields: int
    """Byte offset of the frame's fields."""
    published: int
    """Index of its published_ns among the segment's 64-bit words."""
    payload: memoryview

    @classmethod
    def of(cls, shape: RingShape, slot: int, segment: memoryview) -> SlotOffsets:
        """Works them out."""
        header, start = shape.slot_header(slot), shape.payload(slot)
        payload = segment[start : start + shape.payload_bytes]
        fields = header + layout.FRAME_OFFSET
        published = (fields + layout.offset_of(layout.FRAME_FIELDS, "published_ns")) // 8
        return cls(header // 4, shape.trailer(slot) // 4, fields, published, payload)


def as_bytes(payload: Payload) -> NDArray[Any] | memoryview:
    """Looks at any contiguous buffer as a row of bytes."""
    if not isinstance(payload, np.ndarray):
        return memoryview(payload).cast("B")
    if not payload.flags.c_contiguous:
        raise ValueError(f"payload of shape {payload.shape} is not contiguous: copy it, or fill writer.slot()")
    return payload.reshape(-1).view(np.uint8)


class Slot:
    """The next slot's memory, lent to a source: fill `payload`, set `meta` (and `geometry`), leave the block.

    `used_bytes` defaults to the geometry's, or to the whole slot. A block that leaves without `meta` publishes nothing.
    """

    __slots__ = ("_writer", "geometry", "meta", "payload", "used_bytes")

    def __init__(self, writer: RingWriter, payload: NDArray[np.uint8]) -> None:
        self._writer = writer
        self.payload = payload
        """Writable 1-D uint8, payload_bytes long."""
        self.meta: FrameMeta | None = None
        self.geometry: Geometry | None = None
        self.used_bytes: int | None = None

    def __enter__(self) -> Slot:
        self._writer.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self.meta is None:
            return  # the slot stays odd: abandoned, and overwritten by the next frame
        used = self.used_bytes
        if used is None:
            used = self._writer.payload_bytes if self.geometry is None else self.geometry.payload_bytes
        if not 0 <= used <= self._writer.payload_bytes:
            raise ValueError(f"ring {self._writer.name}: {used} bytes used of {self._writer.payload_bytes}")
        self._writer.commit(used, self.meta, self.geometry)


_UNKNOWN = object()  # the geometry bytes of a slot that this writer has not written yet


class RingWriter:
    """Make one with `RingWriter.create(...)`; a context manager.

    Leaving the `with` block cleanly retires and unlinks the ring; leaving it by an error (or being killed) leaves it
    for the next writer of the same geometry to carry on, and for readers as a black box.
    """

    def __init__(self, name: str, lock: WriterLock, claimed: Claim, *, force_fences: bool = False) -> None:
        mapping, shape = claimed.mapping, claimed.shape
        self.name, self.slots, self.payload_bytes = name, shape.slots, shape.payload_bytes
        self.next_frame_id = claimed.next_frame_id
        """One more than the newest frame's id, also of former writers."""
        self._head, self._release = claimed.head, fences(force=force_fences).release
        self._before_copy, self._after_copy = around_copy(self._release)
        self._bytes = memoryview(mapping)
        self._words, self._times = self._bytes.cast("I"), self._bytes.cast("q")
        array = np.frombuffer(mapping, np.uint8)
        starts = [shape.payload(slot) for slot in range(shape.slots)]
        self._arrays: list[Pixels] = [array[start : start + shape.payload_bytes] for start in starts]
        self._places = [SlotOffsets.of(shape, slot, self._bytes) for slot in range(shape.slots)]
        self._geometries: list[object] = [_UNKNOWN] * shape.slots
        self._wake = Futex(array.ctypes.data + HEAD_WORD * 4).wake
        self.generation = claimed.generation
        """The number of this segment among those of its name, counted over restarts."""
        self.took_over = claimed.took_over
        """True if a dead writer's frames are still in the ring."""
        self.knows_next_id = claimed.knows_next_id
        """True if frames of a former writer gave next_frame_id; the lock file may be older than the last of them."""
        self.account = claimed.account
        """The memory that was taken, in words, for the log."""
        self._lock = lock
        self._open = True
        self._fixed = self._copy_fixed()
        self._inode = segment.inode_of(name)
        lock.remember(WriterRecord(os.getpid(), self.next_frame_id, self.generation))
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
        """Becomes the writer of a ring.

        A segment of the same geometry whose writer is dead is taken over: its frames stay and its readers notice
        nothing. One of another geometry is retired and unlinked, and a new generation begins.
        Raises: RingBusy naming the pid of the living writer, RingTooLarge, RingMismatch (not our segment), ValueError.
        """
        shape = RingShape(slots, payload_bytes)
        if problem := shape.problem():
            raise ValueError(f"ring {name}: {problem}")
        fences(force=force_fences)  # where they are missing, say so before anything is touched
        lock = WriterLock.take(lock_path_of(lock_dir, camera, stream), name)
        try:
            return cls(
                name, lock, claim(name, shape, lock.left, (camera, stream), first_sequence), force_fences=force_fences
            )
        except BaseException:
            lock.close()
            raise

    @property
    def head(self) -> int:
        """The number of frames published: the sequence of the next one."""
        return self._head

    def publish(self, payload: Payload, meta: FrameMeta, geometry: Geometry | None = None) -> None:
        """Copies one frame in. `payload`: any C-contiguous buffer, at most payload_bytes long.

        Raises: ValueError when it is longer or not contiguous; nothing is published then.
        """
        target = self.begin()
        try:
            used = len(payload)
            target[:used] = payload  # type: ignore[assignment] # numpy's stubs: 3.12
        except (ValueError, TypeError):  # not a row of bytes, or too long: look again
            payload = as_bytes(payload)
            used = len(payload)
            if used > self.payload_bytes:
                raise ValueError(f"ring {self.name}: payload of {used} bytes, limit {self.payload_bytes}") from None
            target[:used] = payload  # type: ignore[assignment] # numpy's stubs: 3.12
        self.commit(used, meta, geometry)

    def slot(self) -> Slot:
        """Lends the next slot's memory for a `with` block; committed at its end, abandoned on an exception."""
        return Slot(self, self._arrays[self._head % self.slots])

    def begin(self) -> memoryview:
        """Says that the next slot's old frame is gone. Returns: the slot's memory."""
        sequence = self._head
        word_at, _, _, _, payload = self._places[sequence % self.slots]
        self._words[word_at] = (2 * sequence + 1) & WORD_MASK
        # SYNC POINT A: a reader that sees one new byte of this slot also sees the odd word.
        self._before_copy()
        return payload

    def commit(self, used_bytes: int, meta: FrameMeta, geometry: Geometry | None) -> None:
        """Writes what travels with the payload, then makes the frame visible and wakes all readers."""
        sequence, words, release = self._head, self._words, self._release
        slot = sequence % self.slots
        word_at, trailer_at, fields_at, published_at, _ = self._places[slot]
        try:
            FRAME_STRUCT.pack_into(
                self._bytes,
                fields_at,
                sequence,
                meta.frame_id,
                meta.captured_ns,
                meta.captured_utc_ns,
                0,  # published_ns: below, when all else is done
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
            raise MetadataOutOfRange(f"ring {self.name}: {meta}: {error}") from None
        if geometry is not self._geometries[slot]:
            self._write_geometry(slot, geometry)
        word = (2 * sequence + 2) & WORD_MASK
        words[trailer_at] = word
        self._times[published_at] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # SYNC POINT B: a reader that sees the even word also sees every byte stored before it.
        self._after_copy()
        words[word_at] = word
        # SYNC POINT E: a reader that sees the new head also sees the even word.
        if release is not None:
            release()
        self._head = sequence = sequence + 1
        words[HEAD_WORD] = sequence & WORD_MASK
        self._wake()
        self.next_frame_id = meta.frame_id + 1

    def _write_geometry(self, slot: int, geometry: Geometry | None) -> None:
        """Stores a geometry in a slot header; done once per slot and change, not once per frame."""
        start = self._places[slot].fields + layout.GEOMETRY_OFFSET - layout.FRAME_OFFSET
        self._bytes[start : start + layout.GEOMETRY.itemsize] = pack_geometry(geometry)
        self._geometries[slot] = geometry

    @property
    def named(self) -> bool:
        """True while the ring's name leads to it; else no new reader can find it, and its writer should begin anew."""
        return segment.inode_of(self.name) == self._inode

    @property
    def intact(self) -> bool:
        """True while the ring is `named` and its header is as it was written.

        Another program may have written into it; readers refuse such a ring, so its writer should begin anew.
        """
        return self.named and self._copy_fixed() == self._fixed

    def _copy_fixed(self) -> tuple[bytes, bytes]:
        """Copies the fields of the header that stay the same while this writer lives: all but head and heartbeat."""
        head, after = HEAD_WORD * 4, HEARTBEAT_WORD * 4 + 4
        return bytes(self._bytes[:head]), bytes(self._bytes[after : layout.SEGMENT_HEADER.itemsize])

    def heartbeat(self) -> None:
        """Says that the writer lives although it has no frame to publish."""
        self._words[HEARTBEAT_WORD] = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 & WORD_MASK

    def retire(self) -> None:
        """Ends this generation: marks it for readers and removes the name. Mapped frames stay readable."""
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
        """Stops writing but leaves the ring, for the next writer or as a black box."""
        if not self._open:
            return
        self._open = False
        self._lock.remember(WriterRecord(0, self.next_frame_id, self.generation))
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
