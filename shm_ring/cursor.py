"""A place in a live ring that moves on: over what was lapped, and from one generation to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shm_ring.errors import RingNotReady

if TYPE_CHECKING:
    from shm_ring.live import LiveRing
    from shm_ring.reader import RingReader

MARGIN = 2  # a lapped reader resumes this much after the oldest frame, which is about to be overwritten


class Spot(NamedTuple):
    """One frame to be read."""

    reader: RingReader
    sequence: int


class Cursor:
    """One thread uses it; what is passed over is counted in the ring's `laps`, `lost` and `skipped`.

    An ended generation is read to its end, its successor from its first frame. Nothing of a ring that ended and was
    read is held meanwhile, so that its memory goes while nobody writes.
    """

    def __init__(self, ring: LiveRing, start: str | int = "new", *, newest_first: bool = False) -> None:
        """`start`, `newest_first`: see LiveRing.sequences."""
        self._ring = ring
        self._newest_first = newest_first
        self._start = start
        self._reader: RingReader | None = None
        self.position = 0
        """The next sequence of `attach()`."""

    def attach(self) -> RingReader | None:
        """Return the generation to read from; None while there is none, or none that holds anything new."""
        try:
            current = self._ring.reader()
        except RingNotReady:
            current = None
        if self._reader is not None and self._reader is not current:
            if not self._newest_first and self.position < self._reader.head:
                return self._reader
            self._reader, self._start = None, "first"
        if self._reader is None and current is not None:
            self._reader, self.position = current, self._begin(current)
        return self._reader

    def _begin(self, reader: RingReader) -> int:
        """Return where to begin in a generation."""
        if isinstance(self._start, int):
            return self._start
        return {"first": reader.first_sequence, "oldest": reader.oldest}.get(self._start, reader.head)

    def step(self, wait_s: float) -> Spot | None:
        """Wait for the next frame, which stays the next until `position` is moved. Returns: None if none came."""
        reader = self.attach()
        if reader is None or not reader.wait(self.position, wait_s):
            return None
        newest = reader.head - 1
        if self._newest_first:
            self._ring.skipped += newest - self.position
            self.position = newest
        elif self.position <= newest - reader.slots:
            resume = min(reader.oldest + MARGIN, newest)
            self._ring.laps += 1
            reader.laps += 1
            self._ring.lost += resume - self.position
            self.position = resume
        return Spot(reader, self.position)

    def skip_to_newest(self) -> None:
        """Go to the frame that comes next."""
        if (reader := self.attach()) is not None:
            self.position = reader.head

    def seek(self, captured_ns: int) -> None:
        """Go to the first frame captured then or later that is still there."""
        if (reader := self.attach()) is not None:
            frames = reader.window(captured_ns, 1 << 62)
            self.position = frames.start if frames else reader.head

    @property
    def lag(self) -> int:
        """Frames in the ring that were not read yet."""
        return max(0, self._reader.head - self.position) if self._reader is not None else 0

    @property
    def slots(self) -> int:
        """Depth of the ring; 0 while there is none."""
        return self._reader.slots if self._reader is not None else 0

    @property
    def lost(self) -> int:
        """Frames that were overwritten before they were read; who meets one in a borrow adds it."""
        return self._ring.lost

    @lost.setter
    def lost(self, frames: int) -> None:
        self._ring.lost = frames
