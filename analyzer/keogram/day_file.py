"""The file of a day's columns, and the pictures and the table that are made of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.keogram.drawing import DAY_S, draw_brightness_strip, draw_keogram
from shmcam.imaging.png import to_png
from shmcam.library.entry import Entry
from shmcam.library.sidecar import write_sidecar
from shmcam.runtime.atomic_files import find_unused_path

log = logging.getLogger(__name__)

CSV_HEAD = "time,level,scene_ev,dark_score,night,samples"

Columns = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class DayTime:
    """An instant in the user's days."""

    day: date
    second: float
    """Seconds since the day began (day_starts_at)."""


def day_time_of(utc_ns: int, day_starts_s: float) -> DayTime:
    """Returns the local time of an instant. Days of 23 or 25 hours (summer time) keep the clock's reading."""
    local = datetime.fromtimestamp(utc_ns / 1e9, UTC).astimezone() - timedelta(seconds=day_starts_s)
    return DayTime(local.date(), local.hour * 3600.0 + local.minute * 60.0 + local.second + local.microsecond * 1e-6)


@dataclass(frozen=True, slots=True)
class DayFile:
    """The file of the day so far: records are appended and never rewritten, so that a crash costs one column."""

    path: Path
    dtype: np.dtype[np.void]

    def append(self, row: Columns) -> None:
        """Adds one column. Raises: OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            # A write that was cut short by a full disk or a crash must not shift every later record.
            file.truncate(file.tell() // self.dtype.itemsize * self.dtype.itemsize)
            file.write(row.tobytes())

    def load(self, limit: int) -> dict[int, Columns]:
        """Reads the columns of an earlier process, by index; a file of another height or format is set aside.

        Raises: OSError.
        """
        if not self.path.exists():
            return {}
        raw = self.path.read_bytes()
        whole = len(raw) // self.dtype.itemsize
        rows = np.frombuffer(raw[: whole * self.dtype.itemsize], self.dtype)
        if (rows["index"] >= limit).any():
            aside = find_unused_path(self.path.with_suffix(".unreadable"))
            log.warning("columns of another format set aside path=%s", aside)
            self.path.rename(aside)
            return {}
        return {int(row["index"]): rows[at : at + 1] for at, row in enumerate(rows)}

    def remove(self) -> None:
        """Removes the file: the day is saved elsewhere."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class DayInfo:
    """The facts that belong to a day's columns."""

    camera: str
    day: str
    column_s: float
    starts_s: float
    """The beginning of the day, seconds after midnight."""

    def clock_of(self, index: int) -> str:
        """Returns the local time of a column's beginning, HH:MM:SS."""
        second = int((self.starts_s + index * self.column_s) % DAY_S)
        return f"{second // 3600:02}:{second % 3600 // 60:02}:{second % 60:02}"


def draw_pictures(columns: Columns, info: DayInfo) -> tuple[bytes, bytes]:
    """Draws keogram and brightness strip as PNG, with the facts of the day as texts inside."""
    texts = {
        "Software": "shmcam",
        "Camera": info.camera,
        "Day": info.day,
        "Begin": info.clock_of(int(columns["index"][0])),
        "Seconds per column": f"{info.column_s:g}",
    }
    drawn = [draw(columns, info.column_s, info.starts_s) for draw in (draw_keogram, draw_brightness_strip)]
    return to_png(drawn[0], texts), to_png(drawn[1], texts)


def format_csv(columns: Columns, info: DayInfo) -> bytes:
    """Formats the numbers of the day, a line per column."""
    lines = [CSV_HEAD]
    for row in columns:
        numbers = f"{row['level']:.2f},{row['ev']:.3f},{row['dark_score']:.2f},{row['night']:.2f},{row['frames']}"
        lines.append(f"{info.clock_of(int(row['index']))},{numbers}")
    return ("\n".join(lines) + "\n").encode()


def write_description(path: Path, columns: Columns, info: DayInfo, day: date, companions: tuple[str, ...]) -> None:
    """Writes the library's description beside a saved picture. Raises: OSError."""
    begin = datetime(day.year, day.month, day.day).astimezone() + timedelta(
        seconds=info.starts_s + int(columns["index"][0]) * info.column_s
    )
    entry = Entry(
        kind="keogram",
        camera=info.camera,
        path=path,
        started_utc_ns=round(begin.timestamp() * 1e9),
        duration_s=(int(columns["index"][-1]) - int(columns["index"][0]) + 1) * info.column_s,
        frames=int(columns["frames"].sum()),
        trigger="auto",
        companions=companions,
    )
    write_sidecar(path, entry.to_description())
