"""Who is watching, and what they were sent: for the Sessions tab, /state and /metrics."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sent:
    """What one viewer was sent; the viewer counts, the ledger reads."""

    sent: int = 0
    """Pictures, or fragments of video."""
    bytes: int = 0
    skipped: int = 0
    """Pictures replaced by newer ones before there was room."""


@dataclass(frozen=True, slots=True)
class ViewerEntry:
    """One viewer who is there now."""

    number: int
    kind: str
    """mjpeg, h264, session or short."""
    camera: str
    peer: str
    variant: str
    since_utc: float
    since_s: float
    """Monotonic."""
    tally: Sent


@dataclass(slots=True)
class ViewerTotals:
    """Everything sent since start, by kind, of viewers who have left."""

    bytes: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    viewers: Counter[str] = field(default_factory=Counter)


class ViewerTable:
    """All viewers of all cameras."""

    def __init__(self) -> None:
        self.present: dict[int, ViewerEntry] = {}
        self._left = ViewerTotals()
        self._numbers = itertools.count(1)

    @contextmanager
    def watching(self, kind: str, camera: str, peer: str, variant: str, tally: Sent) -> Iterator[int]:
        """Enter a viewer for the length of the block. Yields: its number."""
        number = self.enter(kind, camera, peer, variant, tally)
        try:
            yield number
        finally:
            self.leave(number)

    def enter(self, kind: str, camera: str, peer: str, variant: str, tally: Sent) -> int:
        """Enter a viewer until `leave`. Returns: its number."""
        number = next(self._numbers)
        self.present[number] = ViewerEntry(number, kind, camera, peer, variant, time.time(), time.monotonic(), tally)
        self._left.viewers[kind] += 1
        return number

    def leave(self, number: int) -> None:
        """A viewer is gone; what it was sent still counts."""
        left = self.present.pop(number)
        _add(self._left, left.kind, left.tally)

    def totals(self) -> ViewerTotals:
        """Everything sent since start, those who are there included."""
        sums = ViewerTotals(*(Counter(part) for part in (self._left.bytes, self._left.sent, self._left.skipped)))
        sums.viewers = Counter(self._left.viewers)
        for one in self.present.values():
            _add(sums, one.kind, one.tally)
        return sums


def _add(totals: ViewerTotals, kind: str, tally: Sent) -> None:
    totals.bytes[kind] += tally.bytes
    totals.sent[kind] += tally.sent
    totals.skipped[kind] += tally.skipped
