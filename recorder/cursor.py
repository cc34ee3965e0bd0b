"""Where the recorder is in the ring: every frame in order, back in time for a pre-roll, across generations."""

from __future__ import annotations

from dataclasses import dataclass

from shm_ring import LiveRing, RingNotReady, RingReader

MARGIN = 2
"""A lapped reader resumes so many frames after the oldest, which is about to be overwritten."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One frame to be read."""

    reader: RingReader
    sequence: int


class Cursor:
    """Position in a live ring; one thread uses it."""

    def __init__(self, ring: LiveRing) -> None:
        self.lost = 0
        """Frames that were overwritten before they were read."""
        self.laps = 0
        self._ring = ring
        self._reader: RingReader | None = None
        self._position = 0

    def attach(self) -> RingReader | None:
        """Find the ring; a first one is joined at its newest frame. Returns: None while there is none."""
        try:
            fresh = self._ring.reader()
        except RingNotReady:
            return self._reader if self._reader is not None and self._position < self._reader.head else None
        if self._reader is None:
            self._reader, self._position = fresh, fresh.head
        elif (
            fresh is not self._reader and self._position >= self._reader.head
        ):  # the ended generation is read to its end
            self._reader, self._position = fresh, fresh.first_sequence
        return self._reader

    def newest(self) -> None:
        """Skip to the frame that comes next."""
        if (reader := self.attach()) is not None:
            self._position = reader.head

    def seek(self, captured_ns: int) -> int | None:
        """Go to the first frame captured then or later.

        Returns: when the oldest frame that is still there was captured, if that is too late; else None.
        """
        reader = self.attach()
        if reader is None:
            return None
        frames = reader.window(captured_ns, 1 << 62)
        self._position = frames.start if frames else reader.head
        if frames and frames.start == reader.oldest and reader.head - reader.first_sequence >= reader.slots:
            oldest_ns = reader.meta(frames.start).captured_ns
            return oldest_ns if oldest_ns > captured_ns else None
        return None

    def step(self, wait_s: float) -> Spot | None:
        """Wait for the next frame. Returns: None if none came in that time."""
        reader = self.attach()
        if reader is None or not reader.wait(self._position, wait_s):
            return None
        behind = reader.head - reader.slots
        if self._position < behind:
            resume = min(reader.oldest + MARGIN, reader.head - 1)
            self.laps += 1
            self.lost += resume - self._position
            self._position = resume
        return Spot(reader, self._position)

    def advance(self) -> None:
        """The frame of the last step is done."""
        self._position += 1

    @property
    def lag(self) -> int:
        """Frames in the ring that were not read yet."""
        return max(0, self._reader.head - self._position) if self._reader is not None else 0

    @property
    def slots(self) -> int:
        """Depth of the ring; 0 while there is none."""
        return self._reader.slots if self._reader is not None else 0
