"""Decides which rows of the library are uploaded next, and when a row that failed is tried again. Pure.

The queue is the library itself: what it holds and is not uploaded. So it survives every end of the process; what is
kept here is only when to try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shmcam.library import Entry

FIRST_S = 60.0
"""Seconds until a row that failed is tried again; doubled with each further failure."""
LIMIT_S = 3600.0
FAILED_MAX = 500
"""Rows that are remembered; of more, the one that is due first is tried sooner than it should be."""
BATCH_ROWS = 100
BATCH_BYTES = 1_000_000_000
"""Rows and bytes of one run of rclone: after each, what arrived is marked."""


@dataclass(slots=True)
class FailedRow:
    """A row that could not be uploaded."""

    failures: int
    due_s: float
    reason: str


@dataclass(slots=True)
class UploadQueue:
    """Chooses what goes next; it remembers the rows that failed."""

    rows: dict[int, FailedRow] = field(default_factory=dict)

    def find_delayed(self, now_s: float) -> list[int]:
        """Returns the numbers of the rows that are not due yet."""
        return [number for number, row in self.rows.items() if row.due_s > now_s]

    def note_failure(self, number: int, reason: str, now_s: float) -> None:
        """Delays a row."""
        failures = self.rows[number].failures + 1 if number in self.rows else 1
        delay_s = min(FIRST_S * 2 ** min(failures - 1, 20), LIMIT_S)
        self.rows[number] = FailedRow(failures, now_s + delay_s, reason)
        if len(self.rows) > FAILED_MAX:
            del self.rows[min(self.rows, key=lambda each: self.rows[each].due_s)]

    def forget(self, number: int) -> None:
        """Forgets a row that was uploaded or is gone."""
        self.rows.pop(number, None)

    def choose_batch(self, waiting: Sequence[Entry], folders: Sequence[Path]) -> tuple[Path, list[Entry]] | None:
        """Returns the rows of the next run, in the order of `waiting`, and the folder that holds them all.

        A row that failed before goes alone: it must not delay others, and is sent anew. None: nothing waits.
        """
        placed = [(folder, entry) for entry in waiting if (folder := find_folder(entry.path, folders)) is not None]
        if not placed:
            return None
        base, first = placed[0]
        if first.id in self.rows:
            return base, [first]
        batch, size = [first], first.bytes
        for folder, entry in placed[1:]:
            if len(batch) == BATCH_ROWS or size + entry.bytes > BATCH_BYTES:
                break
            if folder == base and entry.id not in self.rows:
                batch.append(entry)
                size += entry.bytes
        return base, batch


def find_folder(path: Path, folders: Sequence[Path]) -> Path | None:
    """Returns the innermost of the folders that holds a file; None if none does."""
    holding = [folder for folder in folders if path.is_relative_to(folder)]
    return max(holding, key=lambda folder: len(folder.parts), default=None)
