"""Keeps the keogram of the present day on disk, draws it, and saves it when the day is over.

    <captures>/keogram/.<camera>_<date>.columns       the day so far: one record appended per column (no rewriting)
    <run>/keogram_<camera>.png, brightness_<camera>.png   the day so far, drawn anew every keogram_refresh_s
    <captures>/keogram/<camera>_<date>_keogram.png, …_brightness.png, …_brightness.csv      a day that is over

A restart loses the present column. A full disk costs columns on disk, never in memory, and is logged once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import date, datetime
from datetime import time as Time
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from analyzer.frame_analyzer import FrameResult
from analyzer.keogram.day_file import DayFile, draw_pictures, format_csv, write_description
from analyzer.keogram.drawing import Column, column_dtype_of, merge_into
from analyzer.keogram.local_day import Day, DayInfo, day_at, day_of
from analyzer.settings import AnalyzerSettings
from shmcam.config.settings import Paths
from shmcam.library import LibraryError
from shmcam.library.sidecar import Owner
from shmcam.runtime.atomic_files import find_unused_path, open_atomic

log = logging.getLogger(__name__)

SAMPLE_S = 1.0
"""Time between the strips of which a column is the mean; more of them would not look different."""

UNUSED_S = 86_400.0
"""The columns of a camera that is not configured are left over after so long; another instance may use the folder."""


class KeogramKeeper:
    """The keogram and the brightness strip of one camera; a context manager."""

    def __init__(self, settings: AnalyzerSettings, paths: Paths, camera: str) -> None:
        self._starts = Time.fromisoformat(settings.day_starts_at)
        self._settings, self._camera = settings, camera
        self._folder, self._run, self._library = paths.captures / "keogram", paths.run, paths.library
        self._dtype = column_dtype_of(settings.keogram_height)
        self._day: Day | None = None
        self._column: Column | None = None
        self._rows: dict[int, NDArray[np.void]] = {}
        self._sampled_ns: int | None = None
        self._drawn_s = time.monotonic()
        self._problem = ""

    @property
    def columns(self) -> int:
        """The number of columns of the day so far."""
        return len(self._rows) + (self._column is not None)

    def column_position(self, captured_ns: int) -> float | None:
        """Returns where to cut a strip from this frame, 0..1; None: none is due. It counts as cut."""
        if not self._settings.keogram:
            return None
        if self._sampled_ns is not None and 0 <= captured_ns - self._sampled_ns < SAMPLE_S * 1e9:
            return None
        self._sampled_ns = captured_ns
        return self._settings.keogram_position

    def add(self, result: FrameResult, night: bool) -> list[Path]:
        """Adds one frame. Returns: the files saved, when it is the first of a new day."""
        sample, assessment = result.sample, result.assessment
        if sample.column is None or not assessment.settled:
            return []
        day, column_s = day_at(sample.meta.captured_utc_ns, self._starts), self._settings.keogram_column_s
        saved = self._begin_day(day)
        begin_s = day.begin_s + day.index_of(sample.meta.captured_utc_ns / 1e9, column_s) * column_s
        if self._column is None or self._column.utc_s != begin_s:
            self._close_column()
            self._column = Column(begin_s, self._settings.keogram_height)
        dark_score = float(result.measurement.dark_score[0])
        self._column.add(sample.column, assessment.level, assessment.ev, dark_score, night=night)
        if time.monotonic() - self._drawn_s >= self._settings.keogram_refresh_s:
            self._try(self.draw)
        return saved

    def end_day_if_over(self, utc_ns: int) -> list[Path]:
        """Ends the day by the clock while no frames come. Returns: the files saved."""
        return self._begin_day(day_at(utc_ns, self._starts)) if self._day is not None else []

    def draw(self) -> tuple[Path, ...]:
        """Draws the day so far into the run folder; no files before the first column. Raises: OSError."""
        self._drawn_s = time.monotonic()
        columns = self._join_columns()
        if columns is None or self._day is None:
            return ()
        paths = tuple(self._run / f"{kind}_{self._camera}.png" for kind in ("keogram", "brightness"))
        for path, picture in zip(paths, draw_pictures(columns, self._info_of(self._day)), strict=True):
            with open_atomic(path, replace=True) as file:
                file.write(picture)
        return paths

    def __enter__(self) -> KeogramKeeper:
        self._try(self._recover)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close_column()

    # ---- the day

    def _begin_day(self, day: Day) -> list[Path]:
        """Begins `day`; saves the one before if it is another."""
        if self._day is not None and day.date == self._day.date:
            return []
        self._close_column()
        saved = self._save() if self._day is not None else []
        self._day, self._rows = day, {}
        self._try(lambda: self._rows.update(self._load(day)))
        return saved

    def _close_column(self) -> None:
        if self._column is None or self._day is None:
            return
        row, day = self._column.to_row(), self._day
        merge_into(self._rows, day.index_of(self._column.utc_s, self._settings.keogram_column_s), row)
        self._column = None
        self._try(lambda: self._file_of(day.date).append(row))

    def _save(self) -> list[Path]:
        """Saves the finished day; its columns go only once the pictures are safely there."""
        columns = self._join_columns()
        if columns is None or self._day is None:
            return []
        saved: list[Path] = []
        if self._try(lambda: saved.extend(self._write_files(columns))):
            self._file_of(self._day.date).remove()
        return saved

    def _write_files(self, columns: NDArray[np.void]) -> list[Path]:
        if self._day is None:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        info = self._info_of(self._day)
        stem = f"{self._camera}_{self._day.date:%Y%m%d}"
        names = (f"{stem}_keogram.png", f"{stem}_brightness.png", f"{stem}_brightness.csv")
        contents = (*draw_pictures(columns, info), format_csv(columns))
        paths = [find_unused_path(self._folder / name) for name in names]
        for path, content in zip(paths, contents, strict=True):
            with open_atomic(path) as file:
                file.write(content)
        for path, companions in ((paths[0], ()), (paths[1], (paths[2].name,))):
            write_description(path, columns, info, companions, Owner.of(self._library))
        log.info("day saved day=%s columns=%d path=%s", self._day.date, len(columns), paths[0])
        return paths

    # ---- files

    def _try(self, work: Callable[[], object]) -> bool:
        """Works with the disk; an error is logged when it changes. Returns: whether the work succeeded."""
        try:
            work()
        except (OSError, LibraryError) as problem:
            if str(problem) != self._problem:
                log.warning("keogram not written: %s", problem)
            self._problem = str(problem)
            return False
        self._problem = ""
        return True

    def _file_of(self, day: date) -> DayFile:
        return DayFile(self._folder / f".{self._camera}_{day:%Y%m%d}.columns", self._dtype)

    def _recover(self) -> None:
        """Saves the days that a crash or a switched-off machine left behind, then goes on with today."""
        today = day_at(time.time_ns(), self._starts).date
        for path in _find_days(self._folder, self._camera):
            first = datetime.strptime(path.stem[-8:], "%Y%m%d").date()
            if first != today:
                self._day = day_of(first, self._starts)
                self._rows = self._load(self._day)
                self._save()
        self._day, self._rows = None, {}

    def _load(self, day: Day) -> dict[int, NDArray[np.void]]:
        return self._file_of(day.date).load(day, self._settings.keogram_column_s)

    def _join_columns(self) -> NDArray[np.void] | None:
        rows = dict(self._rows)
        if self._column is not None and self._day is not None:
            index = self._day.index_of(self._column.utc_s, self._settings.keogram_column_s)
            merge_into(rows, index, self._column.to_row())
        return np.concatenate([rows[index] for index in sorted(rows)]) if rows else None

    def _info_of(self, day: Day) -> DayInfo:
        position = self._settings.position
        place = (position[0], position[1]) if position else None
        return DayInfo(self._camera, day, self._settings.keogram_column_s, place)


def save_days_of_removed_cameras(settings: AnalyzerSettings, paths: Paths, cameras: Sequence[str]) -> None:
    """Saves days left behind by cameras that config.toml no longer has, once nobody has written to them for a day."""
    for path in _find_days(paths.captures / "keogram", "*"):
        camera = path.name[1:].rpartition("_")[0]
        if camera not in cameras and path.exists() and time.time() - path.stat().st_mtime > UNUSED_S:
            with KeogramKeeper(settings, paths, camera):
                pass  # saves at its start every day that is over


def _find_days(folder: Path, camera: str) -> list[Path]:
    """Returns the files of days so far; `camera`: a name or *."""
    return sorted(folder.glob(f".{camera}_{'[0-9]' * 8}.columns"))
