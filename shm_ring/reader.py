"""The reader of one generation of a ring: maps it read-only, waits, searches by time, borrows and verifies.

The protocol is in layout.py.
"""

from __future__ import annotations

import bisect
import os
import sys
import time
from types import TracebackType
from typing import Self

import numpy as np

from shm_ring import formats, layout, segment
from shm_ring.errors import FrameDamaged, FrameOverwritten, RingMismatch, RingNotReady, ViewOutlivedRing
from shm_ring.formats import Geometry
from shm_ring.frame import Frame, Pixels
from shm_ring.layout import (
    HEAD_WORD,
    HEARTBEAT_WORD,
    PID_WORD,
    SLOT_HEADER_BYTES,
    START_QUAD,
    STATE_WORD,
    TAKEOVERS_WORD,
    WORD_MASK,
)
from shm_ring.machine.sync import Futex, fences
from shm_ring.metadata import FrameMeta

HEARTBEAT_FRESH_S = 2.0  # a writer in another container has no pid here; its heartbeat counts then


_TABLE = layout.PAGE_BYTES // 4
_SLOT_WORDS = SLOT_HEADER_BYTES // 4
_USED_AT = layout.FRAME_OFFSET + layout.offset_of(layout.FRAME_FIELDS, "used_bytes")
_USED = slice(_USED_AT, _USED_AT + 8)
HEAD_TRIES = 100  # to find the newest frame's full sequence while a fast writer moves on


class RingReader:
    """Open with `RingReader.open(name)`; a context manager. One thread at a time reads; any may wait."""

    def __init__(self, name: str, *, force_fences: bool = False) -> None:
        self.name = name
        self._fd = segment.open_segment(name)
        header = segment.read_header(self._fd, name)
        self.shape = header.shape
        """The sizes from which all offsets follow."""
        self.slots, self.payload_bytes = header.shape
        self.generation = header.generation
        """The number of this segment among those of its name, counted over restarts."""
        self.first_sequence = header.first_sequence
        """Sequence of the generation's first frame."""
        self.camera, self.stream = header.camera, header.stream
        self._acquire = fences(force=force_fences).acquire
        mapping = segment.map_segment(self._fd, header.shape.total_bytes, writable=False)
        self._mapping, self._bytes = mapping, memoryview(mapping)
        self._words = self._bytes.cast("I")
        self._array = np.frombuffer(mapping, np.uint8)
        self._futex = Futex(self._array.ctypes.data + HEAD_WORD * 4)
        self._views: list[tuple[bytes, Pixels] | None] = [None] * self.slots
        self._planes: list[tuple[Geometry, tuple[Pixels, ...]] | None] = [None] * self.slots
        self._head = self._find_head()
        self.laps = 0
        """Times that this reader fell so far behind that its next frame was gone; its user counts them."""
        self.overwritten = 0
        """Borrows and copies that were refused because the writer came round."""

    @classmethod
    def open(cls, name: str, *, force_fences: bool = False) -> Self:
        """Opens the current generation. Raises: RingNotReady (retry), RingMismatch (a person must act)."""
        return cls(name, force_fences=force_fences)

    def _find_head(self) -> int:
        """Extends the 32-bit head to the full count: the newest frame's slot header holds its sequence in full."""
        table = np.frombuffer(self._mapping, layout.SLOT_HEADER, self.slots, layout.PAGE_BYTES)
        moved = False
        for _ in range(HEAD_TRIES):
            head = self._words[HEAD_WORD]
            if self._acquire is not None:
                self._acquire()
            sequences = table["frame"]["sequence"].copy()
            newest = (table["word"] == (2 * sequences + 2) & WORD_MASK) & ((sequences + 1) & WORD_MASK == head)
            if newest.any():
                return int(sequences[newest][0]) + 1
            if head == self.first_sequence & WORD_MASK:
                return self.first_sequence  # no frame yet
            moved |= self._words[HEAD_WORD] != head
        if moved:
            raise RingNotReady(f"ring {self.name}: the writer is faster than a look at its {self.slots} slots")
        raise RingMismatch(f"ring {self.name}: head {self._words[HEAD_WORD]} and slot headers contradict each other")

    @property
    def head(self) -> int:
        """The number of frames published: the newest is head - 1."""
        known = self._head  # before the word: another thread that waits may move it meanwhile, only ever forward
        word = self._words[HEAD_WORD]
        # SYNC POINT E: who sees head = n + 1 must also see frame n's sequence word.
        if self._acquire is not None:
            self._acquire()
        self._head = head = known + ((word - known) & WORD_MASK)
        return head

    @property
    def oldest(self) -> int:
        """The oldest sequence that is not the next to be overwritten (equals head when there is none)."""
        return max(self.first_sequence, self.head - self.slots + 1)

    def wait(self, sequence: int, timeout_s: float) -> bool:
        """Sleeps until head > sequence, at most `timeout_s`. May return False early, after a signal or a wake-up."""
        head = self.head
        if head <= sequence:
            self._futex.wait(head & WORD_MASK, timeout_s)
            head = self.head
        return head > sequence

    def latest(self) -> int | None:
        """Returns the newest sequence; None before the first frame."""
        head = self.head
        return head - 1 if head > self.first_sequence else None

    def since(self, sequence: int) -> range:
        """Returns the sequences after `sequence` that are still there, oldest first."""
        return range(max(sequence + 1, self.oldest), self.head)

    def last(self, count: int) -> range:
        """Returns the newest `count` sequences, oldest first; fewer when there are fewer."""
        return range(max(self.oldest, self.head - count), self.head)

    def last_seconds(self, seconds: float) -> range:
        """Returns the sequences captured within `seconds` before the newest one, oldest first."""
        newest = self.latest()
        if newest is None:
            return range(self._head, self._head)
        end_ns = self.captured_ns(newest)
        return self.window(end_ns - round(seconds * 1e9), end_ns)

    def window(self, start_ns: int, end_ns: int) -> range:
        """Returns the sequences with start_ns <= captured_ns <= end_ns, oldest first; by time, never by count."""
        every = range(self.oldest, self.head)
        low = bisect.bisect_left(every, start_ns, key=self.captured_ns)
        return every[low : bisect.bisect_right(every, end_ns, lo=low, key=self.captured_ns)]

    def captured_ns(self, sequence: int) -> int:
        """Returns when a frame was captured (sensor clock); one that is gone counts as older than everything."""
        try:
            return self.borrow(sequence).captured_ns
        except FrameOverwritten:
            return -1 << 63

    def meta(self, sequence: int) -> FrameMeta:
        """Returns a frame's metadata. Raises: FrameOverwritten, RingNotReady (not published yet)."""
        return self.borrow(sequence).meta

    def copy(self, sequence: int) -> Frame:
        """Returns an owned, verified copy. Raises: FrameOverwritten, FrameDamaged, RingNotReady (not published yet)."""
        with self.borrow(sequence) as frame:
            _ = frame.geometry  # a damaged slot is refused here, where overwritten ones are, and not at its first use
            return frame.copy()

    def borrow(self, sequence: int) -> Frame:
        """Lends a frame for a `with` block, at whose end it is verified.

        Raises: FrameOverwritten (also when the block ends), RingNotReady (not published yet).
        """
        if not self.first_sequence <= sequence < self._head and not self.first_sequence <= sequence < self.head:
            raise RingNotReady(f"ring {self.name}: sequence {sequence} is not there yet (head {self._head})")
        start = layout.PAGE_BYTES + (sequence % self.slots) * SLOT_HEADER_BYTES
        word = (2 * sequence + 2) & WORD_MASK
        words, at, acquire = self._words, start // 4, self._acquire
        if words[at] == word:
            # SYNC POINT C: nothing of the frame is read before its sequence word.
            if acquire is not None:
                acquire()
            header = self._mapping[start : start + SLOT_HEADER_BYTES]
            # SYNC POINT D: the header is believed only if the word still stands after it was read.
            if acquire is not None:
                acquire()
            if words[at] == word:
                return Frame(self, sequence, header)
        self.overwritten += 1
        raise FrameOverwritten(f"ring {self.name}: sequence {sequence} is gone (head {self.head})")

    def intact(self, sequence: int) -> bool:
        """Tells whether the slot still holds this frame, so that all that was read before this call belongs to it."""
        # SYNC POINT D: what was read from the slot is ordered before this second look at its word.
        if self._acquire is not None:
            self._acquire()
        word = self._words[_TABLE + (sequence % self.slots) * _SLOT_WORDS]
        if word == (2 * sequence + 2) & WORD_MASK:
            return True
        self.overwritten += 1
        return False

    def view(self, sequence: int, header: bytes) -> Pixels:
        """Returns the payload where it lies. Raises: FrameDamaged when the slot claims more than it has."""
        slot, used = sequence % self.slots, header[_USED]  # compared as bytes: mostly as many as last time
        known = self._views[slot]
        if known is None or known[0] != used:
            used_bytes = int.from_bytes(used, sys.byteorder)
            if used_bytes > self.payload_bytes:
                raise FrameDamaged(f"ring {self.name}: {used_bytes} bytes used of {self.payload_bytes}")
            start = self.shape.payload(slot)
            known = self._views[slot] = (used, self._array[start : start + used_bytes])
        return known[1]

    def plane_views(self, sequence: int, header: bytes, geometry: Geometry) -> tuple[Pixels, ...]:
        """Returns the planes where they lie; made once per slot, because they do not move."""
        slot = sequence % self.slots
        known = self._planes[slot]
        if known is None or known[0] is not geometry:
            known = self._planes[slot] = (geometry, formats.planes(self.view(sequence, header), geometry))
        return known[1]

    def trailer(self, sequence: int) -> int:
        """Returns the word after the payload: it equals the sequence word of a frame that was written to its end."""
        return self._words[self.shape.trailer(sequence % self.slots) // 4]

    @property
    def writer_age_s(self) -> float:
        """Seconds since the writer last gave a sign of life, a frame or a heartbeat."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        heartbeat_s = ((now_ns // 1_000_000 - self._words[HEARTBEAT_WORD]) & WORD_MASK) / 1000
        newest = self.latest()
        if newest is None:
            return heartbeat_s
        try:
            published_ns = self.borrow(newest).published_ns
        except FrameOverwritten:
            return 0.0  # overwritten this moment: it lives
        return min(heartbeat_s, (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - published_ns) / 1e9)

    @property
    def retired(self) -> bool:
        """True once this generation has ended: retired by its writer, or unlinked. Its frames can still be read."""
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
        """The number of writers that have carried this generation on after the death of another."""
        return self._words[TAKEOVERS_WORD]

    @property
    def writer_pid(self) -> int:
        """Process that writes, 0 = none."""
        return self._words[PID_WORD]

    @property
    def writer_alive(self) -> bool:
        """True while the writer lives. A dead one is no reason to leave: its successor carries this segment on."""
        pid = self.writer_pid
        started, space = np.frombuffer(self._bytes[START_QUAD * 8 : START_QUAD * 8 + 16].tobytes(), "u8")
        if int(space) != segment.pid_namespace():
            return pid != 0 and self.writer_age_s < HEARTBEAT_FRESH_S
        return segment.is_alive(pid, int(started))

    def close(self) -> None:
        """Unmaps. Raises: ViewOutlivedRing while a view is held (the memory then stays until it is gone)."""
        self._views, self._planes = [], []
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
