"""The frame timing CSV: one line per frame of a clip, gaps visible (features.md E4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from shm_ring import FrameMeta

COLUMNS = ("frame_number", "write_time_unix", "sensor_timestamp_ns", "dropped_since_last", "total_hardware_drops")
CSV_HEADER = ",".join(COLUMNS) + "\n"
TAIL_BYTES = 400
"""Holds the last line."""


@dataclass
class Gaps:
    """Counts what is missing between the frames of one clip; pure.

    Two kinds of frames are missing: those that the camera never delivered (the capture process counts them by the
    sensor's timestamps) and those that were in the ring but that the recorder could not take in time.
    """

    hardware: int = 0
    """Frames the camera dropped since the first frame of the clip."""
    lost: int = 0
    """Frames the recorder lost since then."""
    _last_frame: int = field(default=-1, init=False)
    _last_total: int = field(default=0, init=False)

    def before(self, row: FrameMeta) -> int:
        """Frames missing between the frame before and this one (0 for the first)."""
        first = self._last_frame < 0
        lost = 0 if first else max(0, row.frame_id - self._last_frame - 1)
        hardware = 0 if first else row.total_dropped - self._last_total
        if hardware < row.dropped_before and not first:  # the capture process has started again and counts from 0
            hardware = row.dropped_before
        self._last_frame, self._last_total = row.frame_id, row.total_dropped
        self.lost += lost
        self.hardware += hardware
        return lost + hardware


def csv_line(row: FrameMeta, write_time_s: float, dropped: int, hardware: int) -> str:
    """One row; `write_time_s` is the wall clock at which the frame went into the file."""
    return f"{row.frame_id},{write_time_s:.6f},{row.captured_ns},{dropped},{hardware}\n"


def read_rows(path: Path) -> list[tuple[int, int, int]]:
    """Rows of a CSV up to the first that a crash cut short or damaged: (frame id, captured ns, dropped since last)."""
    found: list[tuple[int, int, int]] = []
    header, *lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True) or [""]
    for text in lines if header == CSV_HEADER else ():
        if not text.endswith("\n") or (row := _row(text)) is None:
            break
        found.append(row)
    return found


def last_frame_ns(path: Path, now_s: float, within_s: float) -> int:
    """When the last frame of a CSV was captured, if it was written so long ago at most; else 0. Raises: OSError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        *_, text = file.read().decode(errors="replace").splitlines() or [""]
    row = _row(text)
    return row[1] if row is not None and 0 <= now_s - float(text.split(",")[1]) <= within_s else 0


def _row(text: str) -> tuple[int, int, int] | None:
    """One line; None if it is damaged: a page of zeros glues the lines before and after it together."""
    try:
        frame_id, write_time_s, captured_ns, dropped, hardware = text.split(",")
        float(write_time_s), int(hardware)
        return int(frame_id), int(captured_ns), int(dropped)
    except ValueError:
        return None
