"""The table of viewers with the counts of each, for the page's Sessions tab, `/state` and `/metrics`."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec import Struct


@dataclass(slots=True)
class Sent:
    """The counts of one viewer; the viewer writes them, the table reads them."""

    sent: int = 0
    """Pictures, or fragments of video."""
    bytes: int = 0
    skipped: int = 0
    """Pictures replaced by newer ones before there was room."""


class ViewerEntry(Struct, frozen=True):
    """One viewer that is connected now."""

    number: int
    kind: str
    """mjpeg, h264, session or short."""
    camera: str
    peer: str
    variant: str
    since_utc_s: float
    """Wall time, seconds since 1970."""
    since_s: float
    """Monotonic."""
    counts: Sent


@dataclass(slots=True)
class ViewerTotals:
    """Sums since start, by kind of viewer."""

    bytes: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    viewers: Counter[str] = field(default_factory=Counter)


class ViewerTable:
    """All viewers of all cameras."""

    def __init__(self) -> None:
        self.entries: dict[int, ViewerEntry] = {}
        self._totals = ViewerTotals()
        """`viewers` counts every viewer since start; the other sums are of viewers that have left."""
        self._numbers = itertools.count(1)

    @contextmanager
    def track(self, kind: str, camera: str, peer: str, variant: str, counts: Sent) -> Iterator[int]:
        """Adds a viewer for the length of the block. Yields: its number."""
        number = self.add(kind, camera, peer, variant, counts)
        try:
            yield number
        finally:
            self.remove(number)

    def add(self, kind: str, camera: str, peer: str, variant: str, counts: Sent) -> int:
        """Adds a viewer until `remove`. Returns: its number."""
        number = next(self._numbers)
        self.entries[number] = ViewerEntry(number, kind, camera, peer, variant, time.time(), time.monotonic(), counts)
        self._totals.viewers[kind] += 1
        return number

    def remove(self, number: int) -> None:
        """Removes a viewer; its counts stay in the totals."""
        entry = self.entries.pop(number)
        _add_counts(self._totals, entry.kind, entry.counts)

    def sum_up(self) -> ViewerTotals:
        """Returns the sums since start, of the connected viewers too."""
        past = self._totals
        sums = ViewerTotals(*(Counter(part) for part in (past.bytes, past.sent, past.skipped, past.viewers)))
        for entry in self.entries.values():
            _add_counts(sums, entry.kind, entry.counts)
        return sums


def _add_counts(totals: ViewerTotals, kind: str, counts: Sent) -> None:
    totals.bytes[kind] += counts.bytes
    totals.sent[kind] += counts.sent
    totals.skipped[kind] += counts.skipped
