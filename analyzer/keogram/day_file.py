"""A day's columns on disk, and the pictures and the table they become."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.keogram.drawing import DAY_S, brightness_strip, keogram
from shmcam.imaging.png import to_png
from shmcam.library.entry import Entry
from shmcam.library.sidecar import write_sidecar
from shmcam.runtime.files import unused

log = logging.getLogger(__name__)

CSV_HEAD = "time,level,scene_ev,dark_score,night,samples"

Columns = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class DayTime:
    """Where an instant lies in the owner's days."""

    day: date
    second: float
    """Since the day began (day_starts_at)."""


def moment(utc_ns: int, day_starts_s: float) -> DayTime:
    """Local time of an instant. Days of 23 or 25 hours (summer time) keep the clock's reading."""
    local = datetime.fromtimestamp(utc_ns / 1e9, UTC).astimezone() - timedelta(seconds=day_starts_s)
    return DayTime(local.date(), local.hour * 3600.0 + local.minute * 60.0 + local.second + local.microsecond * 1e-6)


@dataclass(frozen=True, slots=True)
class DayFile:
    """The day so far: one record after the other, appended and never rewritten, so that a crash costs one column."""

    path: Path
    dtype: np.dtype[np.void]

    def append(self, row: Columns) -> None:
        """Add one column. Raises: OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            # A write that was cut short by a full disk or a crash must not shift every later record.
            file.truncate(file.tell() // self.dtype.itemsize * self.dtype.itemsize)
            file.write(row.tobytes())

    def load(self, limit: int) -> dict[int, Columns]:
        """Read what an earlier process wrote, by index; a file that cannot be ours (or of another height) goes aside.

        Raises: OSError.
        """
        if not self.path.exists():
            return {}
        raw = self.path.read_bytes()
        whole = len(raw) // self.dtype.itemsize
        rows = np.frombuffer(raw[: whole * self.dtype.itemsize], self.dtype)
        if (rows["index"] >= limit).any():
            aside = unused(self.path.with_suffix(".unreadable"))
            log.warning("columns of another format set aside path=%s", aside)
            self.path.rename(aside)
            return {}
        return {int(row["index"]): rows[at : at + 1] for at, row in enumerate(rows)}

    def remove(self) -> None:
        """The day is saved elsewhere."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is written beside a day's columns."""

    camera: str
    day: str
    column_s: float
    starts_s: float
    """When the day begins, seconds after midnight."""

    def clock(self, index: int) -> str:
        """Local time of a column's beginning, HH:MM:SS."""
        second = int((self.starts_s + index * self.column_s) % DAY_S)
        return f"{second // 3600:02}:{second % 3600 // 60:02}:{second % 60:02}"


def pictures(columns: Columns, sheet: Sheet) -> tuple[bytes, bytes]:
    """Keogram and brightness strip as PNG, what they show noted inside."""
    texts = {
        "Software": "shmcam",
        "Camera": sheet.camera,
        "Day": sheet.day,
        "Begin": sheet.clock(int(columns["index"][0])),
        "Seconds per column": f"{sheet.column_s:g}",
    }
    drawn = [draw(columns, sheet.column_s, sheet.starts_s) for draw in (keogram, brightness_strip)]
    return to_png(drawn[0], texts), to_png(drawn[1], texts)


def csv(columns: Columns, sheet: Sheet) -> bytes:
    """The numbers of the day, a line per column."""
    lines = [CSV_HEAD]
    for row in columns:
        numbers = f"{row['level']:.2f},{row['ev']:.3f},{row['dark_score']:.2f},{row['night']:.2f},{row['frames']}"
        lines.append(f"{sheet.clock(int(row['index']))},{numbers}")
    return ("\n".join(lines) + "\n").encode()


def describe(path: Path, columns: Columns, sheet: Sheet, day: date, companions: tuple[str, ...]) -> None:
    """Write beside a saved picture what the library wants to know of it. Raises: OSError."""
    begin = datetime(day.year, day.month, day.day).astimezone() + timedelta(
        seconds=sheet.starts_s + int(columns["index"][0]) * sheet.column_s
    )
    entry = Entry(
        kind="keogram",
        camera=sheet.camera,
        path=path,
        started_utc_ns=round(begin.timestamp() * 1e9),
        duration_s=(int(columns["index"][-1]) - int(columns["index"][0]) + 1) * sheet.column_s,
        frames=int(columns["frames"].sum()),
        trigger="auto",
        companions=companions,
    )
    write_sidecar(path, entry.description())
