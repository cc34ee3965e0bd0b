"""The limits of [library], and what exceeds them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from library.entry import Entry
from library.room import MB
from library.settings import LibrarySettings

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one group may stay; 0 does not limit."""

    max_count: int = 0
    """Files."""
    max_bytes: int = 0
    """Bytes."""
    max_age_s: float = 0.0
    """Seconds of library time."""

    def excess(self, count: int, size: int) -> tuple[int, int]:
        """Files and bytes that are too many."""
        over_count = max(0, count - self.max_count) if self.max_count else 0
        return over_count, max(0, size - self.max_bytes) if self.max_bytes else 0


def limits_of(settings: LibrarySettings) -> dict[str, Limits]:
    """The limits of each group, from the user's keys."""
    return {
        group: Limits(
            getattr(settings, f"{group}_max_count"),
            getattr(settings, f"{group}_max_mb") * MB,
            getattr(settings, f"{group}_max_days") * DAY_S,
        )
        for group in ("pictures", "clips", "films", "archives")
    }


def too_many(candidates: Iterable[Entry], count: int, size: int) -> Iterator[Entry]:
    """Of candidates in order of deletion, those that must go so that `count` files and `size` bytes less remain."""
    remaining = iter(candidates)
    while count > 0 or size > 0:  # asked first: where nothing is too much, not a row is read
        entry = next(remaining, None)
        if entry is None:
            return
        yield entry
        count -= 1
        size -= entry.bytes
