"""The file of a day's columns, and the pictures and the table that are made of them."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from analyzer.keogram.drawing import draw_brightness_strip, draw_keogram, merge_into
from analyzer.keogram.local_day import Day, DayInfo
from shmcam.imaging.png import to_png
from shmcam.library.entry import Entry
from shmcam.library.sidecar import Owner, write_sidecar
from shmcam.runtime.atomic_files import find_unused_path, open_to_append, read_state
from shmcam.runtime.clock import to_iso

log = logging.getLogger(__name__)

CSV_HEAD = "time,level,scene_ev,dark_score,night,samples,utc"

Columns = NDArray[np.void]

MAX_DAY_BYTES = 256 << 20
"""The largest file of a day that is read: a column a second of 1000 pixels."""
LONGEST_DAY_S = 2 * 86_400.0
"""A day has 25 hours when the clocks go back; a machine that travels may see a longer one."""


class DayFile(Struct, frozen=True):
    """The file of the day so far: records are appended and never rewritten, so that a crash costs one column."""

    path: Path
    dtype: np.dtype[np.void]

    def append(self, row: Columns) -> None:
        """Adds one column. Raises: OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open_to_append(self.path) as file:
            # A write that was cut short by a full disk or a crash must not shift every later record.
            file.truncate(file.tell() // self.dtype.itemsize * self.dtype.itemsize)
            file.write(row.tobytes())

    def load(self, day: Day, column_s: float) -> dict[int, Columns]:
        """Reads the columns of an earlier process, by index; a file of another height or format is set aside.

        Raises: OSError.
        """
        if not self.path.exists():
            return {}
        raw = read_state(self.path, MAX_DAY_BYTES)
        whole = len(raw) // self.dtype.itemsize
        rows = np.frombuffer(raw[: whole * self.dtype.itemsize], self.dtype)
        if not (np.abs(rows["utc_s"] - day.begin_s) < LONGEST_DAY_S).all():  # NaN, too
            aside = find_unused_path(self.path.with_suffix(".unreadable"))
            log.warning("columns of another format set aside path=%s", aside)
            self.path.rename(aside)
            return {}
        columns: dict[int, Columns] = {}
        for at, row in enumerate(rows):
            merge_into(columns, day.index_of(float(row["utc_s"]), column_s), rows[at : at + 1])
        return columns

    def remove(self) -> None:
        """Removes the file: the day is saved elsewhere."""
        self.path.unlink(missing_ok=True)


def draw_pictures(columns: Columns, info: DayInfo) -> tuple[bytes, bytes]:
    """Draws keogram and brightness strip as PNG, with the facts of the day as texts inside."""
    texts = {
        "Software": "shmcam",
        "Camera": info.camera,
        "Day": str(info.day.date),
        "Begin": to_iso_local(float(columns["utc_s"][0])),
        "Seconds per column": f"{info.column_s:g}",
    }
    return to_png(draw_keogram(columns, info), texts), to_png(draw_brightness_strip(columns, info), texts)


def format_csv(columns: Columns) -> bytes:
    """Formats the numbers of the day, a line per column; local time may come twice, UTC does not."""
    lines = [CSV_HEAD]
    for row in columns:
        utc_s = float(row["utc_s"])
        numbers = f"{row['level']:.2f},{row['ev']:.3f},{row['dark_score']:.2f},{row['night']:.2f},{row['frames']}"
        lines.append(f"{datetime.fromtimestamp(utc_s):%H:%M:%S},{numbers},{to_iso(round(utc_s * 1e9))}")
    return ("\n".join(lines) + "\n").encode()


def to_iso_local(utc_s: float) -> str:
    """Returns local time with its zone, `2026-10-25T02:30:00+01:00`."""
    return datetime.fromtimestamp(utc_s).astimezone().isoformat(timespec="seconds")


def write_description(path: Path, columns: Columns, info: DayInfo, companions: tuple[str, ...], owner: Owner) -> None:
    """Writes the library's description beside a saved picture. Raises: OSError, LibraryError (another's sidecar)."""
    first_s, last_s = float(columns["utc_s"][0]), float(columns["utc_s"][-1])
    entry = Entry(
        kind="keogram",
        camera=info.camera,
        path=path,
        started_utc_ns=round(first_s * 1e9),
        duration_s=last_s - first_s + info.column_s,
        frames=int(columns["frames"].sum()),
        trigger="auto",
        companions=companions,
    )
    write_sidecar(path, entry.to_description(), owner)
