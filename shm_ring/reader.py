"""Reads one generation of a ring, through a mapping that cannot write. The protocol is told in layout.py."""

from __future__ import annotations

import bisect
import os
import time
from types import TracebackType

import numpy as np

from imaging import formats
from imaging.formats import Geometry
from shm_ring import layout, process, segment
from shm_ring.errors import FrameOverwritten, RingMismatch, RingNotReady, ViewOutlivedRing
from shm_ring.fence import fences
from shm_ring.frame import Frame, FrameMeta, Pixels
from shm_ring.futex import Futex
from shm_ring.layout import SEGMENT_HEADER, SLOT_HEADER_BYTES, WORD_MASK, offset_of

_HEAD = offset_of(SEGMENT_HEADER, "head") // 4
_STATE = offset_of(SEGMENT_HEADER, "state") // 4
_HEARTBEAT = offset_of(SEGMENT_HEADER, "heartbeat_ms") // 4
_PID = offset_of(SEGMENT_HEADER, "writer_pid") // 4
_START = offset_of(SEGMENT_HEADER, "writer_start") // 4
_TAKEOVERS = offset_of(SEGMENT_HEADER, "takeovers") // 4
_TABLE = layout.PAGE_BYTES // 4
_SLOT_WORDS = SLOT_HEADER_BYTES // 4
HEARTBEAT_FRESH_S = 2.0  # a writer in another container has no pid here; its heartbeat counts then
HEAD_TRIES = 100  # to find the newest frame's full sequence while a fast writer moves on


class RingReader:
    """Open with `RingReader.open(name)`; a context manager. One thread at a time reads; any may wait."""

    def __init__(self, name: str, fd: int, *, force_fences: bool = False) -> None:
        self.name = name
        header = segment.read_header(fd, name)
        self._shape = header.shape
        self.slots = header.shape.slots
        """Number of slots."""
        self.payload_bytes = header.shape.payload_bytes
        """Capacity of a slot, bytes."""
        self.generation = header.generation
        """Which segment of this name, counted over restarts."""
        self.first_sequence = header.first_sequence
        """Sequence of the generation's first frame."""
        self.camera, self.stream = header.camera, header.stream
        self._acquire = fences(force=force_fences).acquire
        mapping = segment.map_segment(fd, header.shape.total_bytes, writable=False)
        self._mapping, self._bytes = mapping, memoryview(mapping)
        self._words = self._bytes.cast("I")
        self._array = np.frombuffer(mapping, np.uint8)
        self._views: list[Pixels | None] = [None] * self.slots
        self._planes: list[tuple[Geometry, tuple[Pixels, ...]] | None] = [None] * self.slots
        self._futex = Futex(self._array.ctypes.data + _HEAD * 4)
        self._head = self._find_head()
        self.laps = 0
        """How often this reader fell so far behind that its next frame was gone (counted by who follows)."""
        self.overwritten = 0
        """How many borrows and copies were refused because the writer came round."""
        self._fd = fd  # ours from here on; before, whoever opened it closes it

    @classmethod
    def open(cls, name: str, *, force_fences: bool = False) -> RingReader:
        """Open the current generation. Raises: RingNotReady (retry), RingMismatch (a person must act)."""
        fd = segment.open_segment(name)
        try:
            return cls(name, fd, force_fences=force_fences)
        except BaseException:
            os.close(fd)
            raise

    def _find_head(self) -> int:
        """Extend the 32-bit head to the full count: the newest frame's slot header holds its sequence in full."""
        table = np.frombuffer(self._mapping, layout.SLOT_HEADER, self.slots, layout.PAGE_BYTES)
        for _ in range(HEAD_TRIES):
            head = self._words[_HEAD]
            if self._acquire is not None:
                self._acquire()
            sequences = table["frame"]["sequence"].copy()
            newest = (table["word"] == (2 * sequences + 2) & WORD_MASK) & ((sequences + 1) & WORD_MASK == head)
            if newest.any():
                return int(sequences[newest][0]) + 1
            if head == self.first_sequence & WORD_MASK:
                return self.first_sequence  # no frame yet
        raise RingMismatch(f"ring {self.name}: head {self._words[_HEAD]} and slot headers contradict each other")

    @property
    def head(self) -> int:
        """How many frames were published: the newest is head - 1."""
        word = self._words[_HEAD]
        # SYNC POINT E: who sees head = n + 1 must also see frame n's sequence word.
        if self._acquire is not None:
            self._acquire()
        head = self._head + ((word - self._head) & WORD_MASK)
        self._head = head
        return head

    @property
    def oldest(self) -> int:
        """The oldest sequence that is not the next to be overwritten (equals head when there is none)."""
        return max(self.first_sequence, self.head - self.slots + 1)

    def wait(self, sequence: int, timeout_s: float) -> bool:
        """Sleep until head > sequence, at most `timeout_s`. May return False early, after a signal or a wake-up."""
        if self.head > sequence:
            return True
        self._futex.wait(self._head & WORD_MASK, timeout_s)
        return self.head > sequence

    def latest(self) -> int | None:
        """Return the newest sequence; None before the first frame."""
        head = self.head
        return head - 1 if head > self.first_sequence else None

    def since(self, sequence: int) -> range:
        """Return the sequences after `sequence` that are still there, oldest first."""
        return range(max(sequence + 1, self.oldest), self.head)

    def last(self, count: int) -> range:
        """Return the newest `count` sequences, oldest first; fewer when there are fewer."""
        return range(max(self.oldest, self.head - count), self.head)

    def last_seconds(self, seconds: float) -> range:
        """Return the sequences captured within `seconds` before the newest one, oldest first."""
        newest = self.latest()
        if newest is None:
            return range(self._head, self._head)
        end_ns = self._captured_ns(newest)
        return self.window(end_ns - round(seconds * 1e9), end_ns)

    def window(self, start_ns: int, end_ns: int) -> range:
        """Return the sequences with start_ns <= captured_ns <= end_ns, oldest first; by time, never by count."""
        every = range(self.oldest, self.head)
        low = bisect.bisect_left(every, start_ns, key=self._captured_ns)
        return every[low : bisect.bisect_right(every, end_ns, lo=low, key=self._captured_ns)]

    def _captured_ns(self, sequence: int) -> int:
        """Return when a frame was captured; one that is gone already counts as older than everything."""
        try:
            return self.borrow(sequence).captured_ns
        except FrameOverwritten:
            return -1 << 63

    def meta(self, sequence: int) -> FrameMeta:
        """Return a frame's metadata. Raises: FrameOverwritten, RingNotReady (not published yet)."""
        return self.borrow(sequence).meta

    def copy(self, sequence: int) -> Frame:
        """Return an owned, verified copy. Raises: FrameOverwritten, RingNotReady (not published yet)."""
        with self.borrow(sequence) as frame:
            return frame.copy()

    def borrow(self, sequence: int) -> Frame:
        """Lend a frame for a `with` block, at whose end it is verified.

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
            header = self._bytes[start : start + SLOT_HEADER_BYTES].tobytes()
            # SYNC POINT D: the header is believed only if the word still stands after it was read.
            if acquire is not None:
                acquire()
            if words[at] == word:
                return Frame(self, sequence, header)
        self.overwritten += 1
        raise FrameOverwritten(f"ring {self.name}: sequence {sequence} is gone (head {self.head})")

    def intact(self, sequence: int) -> bool:
        """Tell whether the slot still holds this frame, so that all that was read before this call belongs to it."""
        # SYNC POINT D: what was read from the slot is ordered before this second look at its word.
        if self._acquire is not None:
            self._acquire()
        word = self._words[_TABLE + (sequence % self.slots) * _SLOT_WORDS]
        if word == (2 * sequence + 2) & WORD_MASK:
            return True
        self.overwritten += 1
        return False

    def view(self, sequence: int, used_bytes: int) -> Pixels:
        """Return the payload where it lies. Raises: RingMismatch when the slot claims more than it has."""
        slot = sequence % self.slots
        view = self._views[slot]
        if view is None or view.size != used_bytes:
            if used_bytes > self.payload_bytes:
                raise RingMismatch(f"ring {self.name}: {used_bytes} bytes used of {self.payload_bytes}")
            start = self._shape.payload(slot)
            view = self._views[slot] = self._array[start : start + used_bytes]
        return view

    def plane_views(self, sequence: int, used_bytes: int, geometry: Geometry) -> tuple[Pixels, ...]:
        """Return the planes where they lie; made once per slot, because they do not move."""
        slot = sequence % self.slots
        known = self._planes[slot]
        if known is None or known[0] is not geometry:
            known = self._planes[slot] = (geometry, formats.planes(self.view(sequence, used_bytes), geometry))
        return known[1]

    def trailer(self, sequence: int) -> int:
        """Return the word after the payload: it equals the sequence word of a frame that was written to its end."""
        return self._words[self._shape.trailer(sequence % self.slots) // 4]

    @property
    def retired(self) -> bool:
        """Whether this generation has ended: retired by its writer, or unlinked. Its frames can still be read."""
        return self._words[_STATE] == layout.RETIRED or os.fstat(self._fd).st_nlink == 0

    @property
    def takeovers(self) -> int:
        """How many writers have carried this generation on after the death of another."""
        return self._words[_TAKEOVERS]

    @property
    def writer_pid(self) -> int:
        """Process that writes, 0 = none."""
        return self._words[_PID]

    @property
    def writer_alive(self) -> bool:
        """Whether the writer lives. A dead one is no reason to leave: its successor carries this segment on."""
        pid = self.writer_pid
        started, space = np.frombuffer(self._bytes[_START * 4 : _START * 4 + 16].tobytes(), "u8")
        if int(space) != process.pid_space():
            return pid != 0 and self.writer_age_s < HEARTBEAT_FRESH_S
        return process.alive(pid, int(started))

    @property
    def writer_age_s(self) -> float:
        """Seconds since the writer last gave a sign of life, a frame or a heartbeat."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        age_s = ((now_ns // 1_000_000 - self._words[_HEARTBEAT]) & WORD_MASK) / 1000
        newest = self.latest()
        if newest is not None:
            try:
                return min(age_s, (now_ns - self.borrow(newest).published_ns) / 1e9)
            except FrameOverwritten:
                return 0.0
        return age_s

    def close(self) -> None:
        """Unmap. Raises: ViewOutlivedRing while somebody holds a view (the memory then stays until it is gone)."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        self._views, self._planes, self._array = [], [], np.empty(0, np.uint8)
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

    def __enter__(self) -> RingReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._drop()

    def _drop(self) -> None:
        """Let go without a complaint: an error is on its way already, and its traceback holds frames."""
        try:
            self.close()
        except ViewOutlivedRing:
            return
