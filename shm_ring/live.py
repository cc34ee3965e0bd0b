"""What processes use: a ring by its name, whatever generation is current, across restarts of its writer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from shm_ring.cursor import Cursor
from shm_ring.errors import RingNotReady, RingRetired
from shm_ring.reader import RingReader

LOOK_S = 0.25  # how often an idle reader looks whether it is told to stop, and whether its ring still bears the name


class Stop(Protocol):
    """What ends a loop; service.Stop is one."""

    @property
    def requested(self) -> bool:
        """Whether to stop."""

    def wait(self, seconds: float) -> bool:
        """Sleep, at most this long; True when stop was requested."""


class LiveRing:
    """Follows a ring through retirement, unlinking and new generations; a context manager.

    Errors: a missing ring is waited for; RingMismatch (another version, a damaged header) leaves every method.
    """

    def __init__(self, name: str, stop: Stop | None = None) -> None:
        self.name = name
        self._stop = stop
        self._reader: RingReader | None = None
        self._looked_s = 0.0
        self.laps = 0
        """How often an in-order loop fell behind by a whole ring."""
        self.lost = 0
        """Frames that an in-order loop never saw because of that."""
        self.skipped = 0
        """Frames that a newest-first loop passed over."""

    def reader(self) -> RingReader:
        """Return the current generation's reader, opened anew when the last one has ended. Raises: RingNotReady."""
        reader, now_s = self._reader, time.monotonic()
        if reader is not None and now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            if reader.retired:
                self._reader = reader = None  # views that are still lent keep its memory; it goes when they do
        if reader is None:
            reader = self._reader = RingReader.open(self.name)
            self._looked_s = now_s
            if reader.retired:
                self._reader = None
                raise RingRetired(f"ring {self.name}: generation {reader.generation} has ended")
        return reader

    def wait_ready(self, timeout_s: float) -> RingReader:
        """Wait for a writer to make the ring. Raises: RingNotReady after `timeout_s` or when stop is requested."""
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
        """Yield (reader, sequence) for each frame; None once per `idle_s` without one. Ends when stop is requested.

        In order, every frame that was not overwritten meanwhile (`laps`, `lost` count); or newest first, what came in
        between being skipped. `start`: "new" = after this call, "oldest" = with what the ring still holds, or a
        sequence. A new generation is read from its first frame.
        """
        cursor = Cursor(self, start, newest_first=newest_first)
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
        """Sleep; True when stop was requested."""
        if self._stop is not None:
            return self._stop.wait(seconds)
        time.sleep(seconds)
        return False

    def let_go_if_retired(self) -> None:
        """Give an ended generation's memory back, where `reader` is asked only now and then; from any thread."""
        reader = self._reader
        if reader is not None and reader.retired and self._reader is reader:
            self._reader = None

    def close(self) -> None:
        """Let go of the current reader; memory goes with the last view."""
        self._reader = None

    def __enter__(self) -> LiveRing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
