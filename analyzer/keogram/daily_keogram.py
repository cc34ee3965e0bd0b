"""Keeps the keogram of the present day on disk, draws it, and saves it when the day is over.

    <captures>/keogram/.<camera>_<date>.columns       the day so far: one record appended per column (no rewriting)
    <run>/keogram_<camera>.png, brightness_<camera>.png   the day so far, drawn anew every keogram_refresh_s
    <captures>/keogram/<camera>_<date>_keogram.png, …_brightness.png, …_brightness.csv      a day that is over

A restart loses the present column. A full disk costs columns on disk, never in memory, and is logged once; a day that
it refused is saved when it takes files again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import date, datetime, timedelta
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
from shmcam.library import Catalogue, LibraryError, retention
from shmcam.library.sidecar import sidecar_path_of
from shmcam.runtime.atomic_files import find_unused_path, open_atomic

log = logging.getLogger(__name__)

SAMPLE_S = 1.0
"""Time between the strips of which a column is the mean; more of them would not look different."""

LATE_S = 600.0
"""The time after the end of a day until which its frames may come: exposures are long, and clocks are corrected."""

UNSAVED_DAYS = 7
"""Days kept in memory while the disk refuses them, 1 MB each; of older ones the columns on disk are left."""

UNUSED_S = 86_400.0
"""The columns of a camera that is not configured are left over after so long; another instance may use the folder."""


class KeogramKeeper:
    """The keogram and the brightness strip of one camera; a context manager."""

    def __init__(self, settings: AnalyzerSettings, paths: Paths, camera: str) -> None:
        self._starts = Time.fromisoformat(settings.day_starts_at)
        self._settings, self._camera = settings, camera
        self._paths, self._folder = paths, paths.captures / "keogram"
        self._catalogue = Catalogue.at(paths)
        self._dtype = column_dtype_of(settings.keogram_height)
        self._day: Day | None = None
        self._column: Column | None = None
        self._rows: dict[int, NDArray[np.void]] = {}
        self._unsaved: dict[Day, dict[int, NDArray[np.void]]] = {}
        """Days that are over and not saved yet."""
        self._saved_at_start: list[Path] = []
        """Files of days that an earlier process left, to be returned with the next ones."""
        self._sampled_ns: int | None = None
        self._drawn_s = time.monotonic()
        self._next_try_s = 0.0
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
        """Adds one frame. Returns: the files saved, as when it is the first of a new day."""
        sample, assessment = result.sample, result.assessment
        if sample.column is None or not assessment.settled:
            return []
        day, column_s = self._day_of(sample.meta.captured_utc_ns), self._settings.keogram_column_s
        self._begin_day(day)
        begin_s = day.begin_s + day.index_of(sample.meta.captured_utc_ns / 1e9, column_s) * column_s
        if self._column is None or self._column.utc_s != begin_s:
            self._close_column()
            self._column = Column(begin_s, self._settings.keogram_height)
        dark_score = float(result.measurement.dark_score[0])
        self._column.add(sample.column, assessment.level, assessment.ev, dark_score, night=night)
        if time.monotonic() - self._drawn_s >= self._settings.keogram_refresh_s:
            self._try(self.draw)
        return self._save_days()

    def end_day_if_over(self, utc_ns: int) -> list[Path]:
        """Ends the day by the clock while no frames come. Returns: the files saved."""
        if self._day is not None and utc_ns / 1e9 >= self._day.end_s + LATE_S:
            self._begin_day(day_at(utc_ns, self._starts))
        return self._save_days()

    def draw(self) -> tuple[Path, ...]:
        """Draws the day so far into the run folder; no files before the first column. Raises: OSError."""
        self._drawn_s = time.monotonic()
        columns = self._join_columns()
        if columns is None or self._day is None:
            return ()
        paths = tuple(self._paths.run / f"{kind}_{self._camera}.png" for kind in ("keogram", "brightness"))
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

    def _begin_day(self, day: Day) -> None:
        """Begins `day`; if another one ends with it, that is to be saved."""
        if self._day is not None and day.date == self._day.date:
            return
        self._close_column()
        if self._day is not None and self._rows:
            self._unsaved[self._day] = self._rows
            for oldest in list(self._unsaved)[:-UNSAVED_DAYS]:
                del self._unsaved[oldest]
        self._next_try_s = 0.0
        self._day, self._rows = day, self._unsaved.pop(day, {})
        if not self._rows:
            self._try(lambda: self._rows.update(self._load(day)))

    def _day_of(self, utc_ns: int) -> Day:
        """Returns the day of a frame: the present one, too, of a frame shortly before, whose day is saved already."""
        if self._day is not None and 0 < self._day.begin_s - utc_ns / 1e9 <= LATE_S:
            return self._day
        return day_at(utc_ns, self._starts)

    def _close_column(self) -> None:
        if self._column is None or self._day is None:
            return
        row, day = self._column.to_row(), self._day
        merge_into(self._rows, day.index_of(self._column.utc_s, self._settings.keogram_column_s), row)
        self._column = None

        def append() -> None:
            self._require_disk()
            self._file_of(day.date).append(row)

        self._try(append)

    def _save_days(self) -> list[Path]:
        """Saves the days that are over; while the disk refuses, tries again once per column. Returns: the files."""
        saved, self._saved_at_start = self._saved_at_start, []
        if not self._unsaved or time.monotonic() < self._next_try_s:
            return saved
        self._next_try_s = time.monotonic() + self._settings.keogram_column_s
        for day, rows in list(self._unsaved.items()):
            columns = np.concatenate([rows[index] for index in sorted(rows)])
            if self._try(lambda day=day, columns=columns: saved.extend(self._write_files(day, columns))):  # type: ignore[misc]
                del self._unsaved[day]
                self._file_of(day.date).remove()  # only once the pictures are safely there
        return saved

    def _write_files(self, day: Day, columns: NDArray[np.void]) -> list[Path]:
        """Writes the files of a day, all or none. Raises: OSError, LibraryError."""
        self._require_disk()
        self._folder.mkdir(parents=True, exist_ok=True)
        info = self._info_of(day)
        stem = f"{self._camera}_{day.date:%Y%m%d}"
        names = (f"{stem}_keogram.png", f"{stem}_brightness.png", f"{stem}_brightness.csv")
        keogram, brightness, table = paths = [find_unused_path(self._folder / name) for name in names]
        drawn = draw_pictures(columns, info)
        with ExitStack() as undo:
            for path, picture, companions in ((keogram, drawn[0], ()), (brightness, drawn[1], (table.name,))):
                # What belongs to it comes first: a kill in between leaves nothing that the library does not remove.
                with open_atomic(path) as file:
                    file.write(picture)
                    write_description(path, columns, info, companions, self._catalogue.owner)
                    undo.callback(sidecar_path_of(path).unlink, missing_ok=True)
                    for companion in companions:
                        with open_atomic(path.with_name(companion)) as beside:
                            beside.write(format_csv(columns))
                        undo.callback(path.with_name(companion).unlink, missing_ok=True)
                undo.callback(path.unlink, missing_ok=True)
            undo.pop_all()
        log.info("day saved day=%s columns=%d path=%s", day.date, len(columns), paths[0])
        return paths

    def _require_disk(self) -> None:
        with self._catalogue:  # closed again: the disks are known then
            retention.require_disk(self._paths, self._catalogue, self._folder)

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
        """Saves the days that a crash or a switched-off machine left behind; today goes on with its first frame."""
        today = day_at(time.time_ns(), self._starts).date
        # Tomorrow is not over, either: a board without a clock battery may start with an earlier time.
        under_way = (today, today + timedelta(days=1))
        for path in _find_days(self._folder, self._camera):
            first = datetime.strptime(path.stem[-8:], "%Y%m%d").date()
            if first not in under_way:
                day = day_of(first, self._starts)
                if rows := self._load(day):
                    self._unsaved[day] = rows
        self._saved_at_start = self._save_days()

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
