"""A ring by its name across generations and restarts of its writer, and a cursor that reads it in order.

A place in a live ring that moves on: over what was lapped, and from one generation to the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shm_ring.errors import FrameOverwritten, RingMismatch, RingNotReady, RingRetired
from shm_ring.reader import RingReader

if TYPE_CHECKING:
    from shm_ring.reader import RingReader

log = logging.getLogger(__name__)

MARGIN = 2  # a lapped reader resumes this much after the oldest frame, which is about to be overwritten


class Spot(NamedTuple):
    """One frame to be read."""

    reader: RingReader
    sequence: int


class RingCursor:
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
        """Returns the generation to read from; None while there is none, or none that holds anything new."""
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
        """Returns where to begin in a generation."""
        if isinstance(self._start, int):
            return self._start
        return {"first": reader.first_sequence, "oldest": reader.oldest}.get(self._start, reader.head)

    def step(self, wait_s: float) -> Spot | None:
        """Waits for the next frame, which stays the next until `position` is moved. Returns: None if none came."""
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
        """Goes to the frame that comes next."""
        if (reader := self.attach()) is not None:
            self.position = reader.head

    def seek(self, captured_ns: int) -> bool:
        """Goes to the first frame captured then or later that is still there. Returns: whether an earlier one is."""
        if (reader := self.attach()) is None:
            return False
        frames = reader.window(captured_ns, 1 << 62)
        self.position = frames.start if frames else reader.head
        return self.position > reader.oldest

    @property
    def lag(self) -> int:
        """Frames in the ring that were not read yet."""
        return max(0, self._reader.head - self.position) if self._reader is not None else 0

    @property
    def next_ns(self) -> int:
        """The earliest capture time of the frame that the ring gets next; 0 while it has none."""
        reader = self.attach()
        newest = None if reader is None else reader.latest()
        with suppress(FrameOverwritten, RingNotReady):
            return 0 if reader is None or newest is None else reader.meta(newest).captured_ns + 1
        return 0

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


LOOK_S = 0.25  # time between two looks of an idle reader at `stop` and at the name of its ring


class StopSignal(Protocol):
    """The end of a loop; shmcam.runtime.Stop is one."""

    @property
    def requested(self) -> bool:
        """True once the loop is to end."""

    def wait(self, seconds: float) -> bool:
        """Sleeps, at most this long; True when stop was requested."""


class LiveRing:
    """Follows a ring through retirement, unlinking and new generations; a context manager.

    Errors: a missing ring is waited for; RingMismatch (another version, a damaged header) leaves every method. With
    `waits_for_repair` it is logged once and waited for like a missing ring: a writer that starts replaces it.
    """

    def __init__(self, name: str, stop: StopSignal | None = None, *, waits_for_repair: bool = False) -> None:
        self.name = name
        self.problem = ""
        """Why the segment under the name cannot be understood; empty: it can, or there is none."""
        self._waits_for_repair = waits_for_repair
        self._stop = stop
        self._reader: RingReader | None = None
        self._looked_s = 0.0
        self.laps = 0
        """Times that an in-order loop fell behind by a whole ring."""
        self.lost = 0
        """Frames that an in-order loop never saw because of that."""
        self.skipped = 0
        """Frames that a newest-first loop passed over."""

    def reader(self) -> RingReader:
        """Returns the current generation's reader, opened anew when the last one has ended. Raises: RingNotReady."""
        reader, now_s = self._reader, time.monotonic()
        if reader is not None and now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            if reader.retired:
                self._reader = reader = None  # views that are still lent keep its memory; it goes when they do
        if reader is None:
            reader = self._reader = self._open()
            self._looked_s = now_s
            if reader.retired:
                self._reader = None
                raise RingRetired(f"ring {self.name}: generation {reader.generation} has ended")
        return reader

    def _open(self) -> RingReader:
        try:
            reader = RingReader.open(self.name)
        except RingMismatch as mismatch:
            if not self._waits_for_repair:
                raise
            if str(mismatch) != self.problem:
                log.error("ring cannot be read, waiting for another one: %s", mismatch)
            self.problem = str(mismatch)
            raise RingNotReady(self.problem) from mismatch
        except RingNotReady:
            self.problem = ""
            raise
        self.problem = ""
        return reader

    def wait_ready(self, timeout_s: float) -> RingReader:
        """Waits for a writer to make the ring. Raises: RingNotReady after `timeout_s` or when stop is requested."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                return self.reader()
            except RingNotReady:
                if self._pause(LOOK_S / 5) or time.monotonic() > deadline_s:
                    raise

    def sequences(
        self, *, newest_first: bool = False, start: str | int = "new", idle_s: float = 0.5
    ) -> Iterator[tuple[RingReader, int] | None]:
        """Yields (reader, sequence) for each frame; None once per `idle_s` without one. Ends when stop is requested.

        In order, every frame that was not overwritten meanwhile (`laps`, `lost` count); or newest first, what came in
        between being skipped. `start`: "new" = after this call, "oldest" = with what the ring still holds, or a
        sequence. A new generation is read from its first frame.
        """
        cursor = RingCursor(self, start, newest_first=newest_first)
        wait_s = min(LOOK_S, idle_s)
        idle_until_s = time.monotonic() + idle_s
        while not (self._stop is not None and self._stop.requested):
            found = cursor.step(wait_s)
            if found is not None:
                cursor.position += 1
                yield found
                idle_until_s = time.monotonic() + idle_s
                continue
            if self._reader is None:
                self._pause(wait_s / 5)
            if time.monotonic() >= idle_until_s:
                yield None
                idle_until_s = time.monotonic() + idle_s

    def _pause(self, seconds: float) -> bool:
        """Sleeps; True when stop was requested."""
        if self._stop is not None:
            return self._stop.wait(seconds)
        time.sleep(seconds)
        return False

    def release_if_retired(self) -> None:
        """Gives an ended generation's memory back, where `reader` is asked only now and then; from any thread."""
        reader = self._reader
        if reader is not None and reader.retired and self._reader is reader:
            self._reader = None

    def close(self) -> None:
        """Lets go of the current reader; memory goes with the last view."""
        self._reader = None

    def __enter__(self) -> LiveRing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
