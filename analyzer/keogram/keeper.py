"""Keeps the day on disk as it goes, draws it, and saves it when it is over.

    <captures>/keogram/.<camera>_<date>.columns       the day so far: one record appended per column (no rewriting)
    <run>/keogram_<camera>.png, brightness_<camera>.png   the day so far, drawn anew every keogram_refresh_s
    <captures>/keogram/<camera>_<date>_keogram.png, …_brightness.png, …_brightness.csv      a day that is over

A restart loses the column under way. A full disk costs columns on disk, never in memory, and is logged once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from analyzer.frame_analyzer import FrameResult
from analyzer.keogram.day_file import DayFile, Sheet, csv, describe, moment, pictures
from analyzer.keogram.drawing import DAY_S, Column, column_dtype
from analyzer.settings import AnalyzerSettings
from shmcam.config.settings import Paths
from shmcam.runtime.files import unused, whole_file

log = logging.getLogger(__name__)

SAMPLE_S = 1.0
"""A column is the mean of one strip a second; more would not look different."""


class Daybook:
    """Keogram and brightness strip of one camera; a context manager."""

    def __init__(self, settings: AnalyzerSettings, paths: Paths, camera: str) -> None:
        hour, _, minute = settings.day_starts_at.partition(":")
        self._starts_s = int(hour) * 3600.0 + int(minute) * 60.0
        self._settings, self._camera = settings, camera
        self._folder, self._run = paths.captures / "keogram", paths.run
        self._dtype = column_dtype(settings.keogram_height)
        self._limit = int(DAY_S / settings.keogram_column_s) + 1
        self._day: date | None = None
        self._column: Column | None = None
        self._rows: dict[int, NDArray[np.void]] = {}
        self._sampled_ns: int | None = None
        self._drawn_s = time.monotonic()
        self._trouble = ""

    @property
    def columns(self) -> int:
        """Columns of the day so far."""
        return len(self._rows) + (self._column is not None)

    def column_due(self, captured_ns: int) -> float | None:
        """Where to cut a strip from this frame, 0..1; None: none is due."""
        if not self._settings.keogram:
            return None
        if self._sampled_ns is not None and 0 <= captured_ns - self._sampled_ns < SAMPLE_S * 1e9:
            return None
        self._sampled_ns = captured_ns
        return self._settings.keogram_position

    def note(self, seen: FrameResult, night: bool) -> list[Path]:
        """Take one frame. Returns the files saved, when it is the first of a new day."""
        if seen.look.column is None or not seen.verdict.settled:
            return []
        now = moment(seen.look.meta.captured_utc_ns, self._starts_s)
        saved = self._turn(now.day)
        index = int(now.second / self._settings.keogram_column_s)
        if self._column is None or self._column.index != index:
            self._close_column()
            self._column = Column(index, self._settings.keogram_height)
        dark_score = float(seen.measured.dark_score[0])
        self._column.add(seen.look.column, seen.verdict.level, seen.verdict.ev, dark_score, night=night)
        if time.monotonic() - self._drawn_s >= self._settings.keogram_refresh_s:
            self._guarded(self.draw)
        return saved

    def tend(self, utc_ns: int) -> list[Path]:
        """While no frames come: end the day when the clock does. Returns the files saved."""
        day = moment(utc_ns, self._starts_s).day
        return self._turn(day) if self._day is not None else []

    def draw(self) -> tuple[Path, ...]:
        """Draw the day so far into the run folder. Raises: OSError. Nothing seen yet: no files."""
        self._drawn_s = time.monotonic()
        columns = self._table()
        if columns is None:
            return ()
        places = tuple(self._run / f"{kind}_{self._camera}.png" for kind in ("keogram", "brightness"))
        for place, picture in zip(places, pictures(columns, self._sheet()), strict=True):
            with whole_file(place, replace=True) as file:
                file.write(picture)
        return places

    def __enter__(self) -> Daybook:
        self._guarded(self._recover)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close_column()

    # ---- the day

    def _turn(self, day: date) -> list[Path]:
        """Begin `day`, saving the one before if it is another."""
        if day == self._day:
            return []
        self._close_column()
        saved = self._save() if self._day is not None else []
        self._day, self._rows = day, {}
        self._guarded(lambda: self._rows.update(self._file(day).load(self._limit)))
        return saved

    def _close_column(self) -> None:
        if self._column is None or self._day is None:
            return
        row, day = self._column.row(), self._day
        self._rows[self._column.index] = row
        self._column = None
        self._guarded(lambda: self._file(day).append(row))

    def _save(self) -> list[Path]:
        """Save the finished day; its columns go only once the pictures are safely there."""
        columns = self._table()
        if columns is None or self._day is None:
            return []
        saved: list[Path] = []
        if self._guarded(lambda: saved.extend(self._written(columns))):
            self._file(self._day).remove()
        return saved

    def _written(self, columns: NDArray[np.void]) -> list[Path]:
        if self._day is None:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = f"{self._camera}_{self._day:%Y%m%d}"
        names = (f"{stem}_keogram.png", f"{stem}_brightness.png", f"{stem}_brightness.csv")
        contents = (*pictures(columns, self._sheet()), csv(columns, self._sheet()))
        places = [unused(self._folder / name) for name in names]
        for place, content in zip(places, contents, strict=True):
            with whole_file(place) as file:
                file.write(content)
        for place, companions in ((places[0], ()), (places[1], (places[2].name,))):
            describe(place, columns, self._sheet(), self._day, companions)
        log.info("day saved day=%s columns=%d path=%s", self._day, len(columns), places[0])
        return places

    # ---- files

    def _guarded(self, action: Callable[[], object]) -> bool:
        """Do something with the disk; trouble is logged when it changes. Returns whether it went well."""
        try:
            action()
        except OSError as problem:
            if str(problem) != self._trouble:
                log.warning("keogram not written: %s", problem)
            self._trouble = str(problem)
            return False
        self._trouble = ""
        return True

    def _file(self, day: date) -> DayFile:
        return DayFile(self._folder / f".{self._camera}_{day:%Y%m%d}.columns", self._dtype)

    def _recover(self) -> None:
        """Save the days a crash or a switched-off night left behind, then carry today on."""
        today = moment(time.time_ns(), self._starts_s).day
        for left in sorted(self._folder.glob(f".{self._camera}_{'[0-9]' * 8}.columns")):
            day = datetime.strptime(left.stem[-8:], "%Y%m%d").date()
            if day != today:
                self._day, self._rows = day, self._file(day).load(self._limit)
                self._save()
        self._day, self._rows = None, {}

    def _table(self) -> NDArray[np.void] | None:
        rows = dict(self._rows)
        if self._column is not None:
            rows[self._column.index] = self._column.row()
        return np.concatenate([rows[index] for index in sorted(rows)]) if rows else None

    def _sheet(self) -> Sheet:
        return Sheet(self._camera, str(self._day), self._settings.keogram_column_s, self._starts_s)
