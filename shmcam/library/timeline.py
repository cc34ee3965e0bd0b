"""The timeline: what exists of each camera in each minute of a span: footage, pictures, films, events, nights. Pure.

The span is cut into cells of `step_s` that begin at whole multiples of it (UTC). A clip counts in every cell that it
reaches into; every other file counts where it begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from msgspec import Struct

from shmcam.library.entry import GROUPS, ORDINARY_TRIGGERS
from shmcam.library.time_parsing import check_span
from shmcam.runtime.clock import to_iso

NS = 1_000_000_000
DAY_S = 86_400
CELLS_MAX = 10_000
"""The most cells of a camera: a week of minutes."""
EVENTS_MAX = 500
"""The most events in one answer, the latest ones; the others are counted."""
NOT_EVENTS = ORDINARY_TRIGGERS | {"recovered", "timelapse", "archive"}
"""Triggers that are no event: the file was due, or nothing is known."""
NIGHT_KINDS = frozenset({"startrails", "night"})
"""Kinds of files that are made of one whole night."""


class TimelineRow(NamedTuple):
    """The columns of a row that a timeline needs."""

    id: int
    kind: str
    camera: str
    started_utc_ns: int
    duration_s: float
    trigger: str
    label: str
    uploaded: str = ""


class TimelineSpan(Struct, frozen=True):
    """The span of a timeline, whole cells."""

    since_utc_ns: int
    until_utc_ns: int
    step_s: int

    @classmethod
    def of(cls, since_utc_ns: int | None, until_utc_ns: int | None, step_s: int, now_utc_ns: int) -> TimelineSpan:
        """Returns the span in whole cells; by default the day before `until`, and until now. Raises: ValueError."""
        step_ns = step_s * NS
        until = now_utc_ns if until_utc_ns is None else until_utc_ns
        since = until - DAY_S * NS if since_utc_ns is None else since_utc_ns
        check_span(since, until)
        span = cls(since // step_ns * step_ns, (until // step_ns + 1) * step_ns, step_s)
        if span.count > CELLS_MAX:
            raise ValueError(
                f"step_s {step_s}: {span.count} cells, at most {CELLS_MAX}; "
                f"take {-(-(until - since) // (NS * (CELLS_MAX - 2)))} or more for this span"
            )
        return span

    @property
    def count(self) -> int:
        """The number of cells."""
        return (self.until_utc_ns - self.since_utc_ns) // (self.step_s * NS)

    def index_of(self, utc_ns: int) -> int:
        """Returns the cell of an instant; the first or last one for an instant outside."""
        return max(0, min((utc_ns - self.since_utc_ns) // (self.step_s * NS), self.count - 1))


class TimelineCell(Struct, frozen=True):
    """What exists in one step of time; empty cells are left out."""

    utc: str
    """Its beginning."""
    footage_s: float
    """Seconds of it that clips cover."""
    clips: int
    """Clips that reach into it."""
    pictures: int
    films: int
    events: int
    """Files in it that an event or a command caused."""
    row: int
    """A row to open there: the first file that begins in it, or the clip that goes on in it."""


class TimelineEvent(Struct, frozen=True):
    """A file that an event or a command caused."""

    row: int
    utc: str
    duration_s: float
    kind: str
    trigger: str
    label: str


class TimePeriod(Struct, frozen=True):
    """A period of time, ISO 8601."""

    begin_utc: str
    end_utc: str


class CameraTimeline(Struct, frozen=True):
    """The timeline of one camera; an empty name: files of no camera."""

    camera: str
    cells: list[TimelineCell]
    footage: list[TimePeriod]
    """When clips exist; gaps shorter than a cell are closed."""
    nights: list[TimePeriod]
    """The nights from which a picture was made or a clip recorded."""
    uploads: list[TimePeriod]
    """When the files are from of which a copy was uploaded."""
    events: list[TimelineEvent]
    """In order of time."""


class Timeline(Struct, frozen=True):
    """What exists of each camera, in cells of `step_s`."""

    since_utc: str
    until_utc: str
    step_s: int
    events_left_out: int
    """Earlier events beyond the limit of one answer."""
    cameras: list[CameraTimeline]


def make_timeline(rows: Iterable[TimelineRow], span: TimelineSpan) -> Timeline:
    """Returns the timeline of rows that reach into the span."""
    by_camera: dict[str, list[TimelineRow]] = {}
    for row in rows:
        if row.kind != "archive":  # copies of what the timeline has already
            by_camera.setdefault(row.camera, []).append(row)
    events = sorted(
        (row for own in by_camera.values() for row in own if _is_event(row)),
        key=lambda row: (row.started_utc_ns, row.id),
    )
    shown = events[-EVENTS_MAX:]
    cameras = [
        CameraTimeline(
            camera=camera,
            cells=_to_cells(own, span),
            footage=_to_periods(filter(_is_footage, own), span),
            nights=_to_periods(filter(_is_of_a_night, own), span),
            uploads=_to_periods((row for row in own if row.uploaded), span),
            events=[_to_event(row) for row in shown if row.camera == camera],
        )
        for camera, own in sorted(by_camera.items())
    ]
    return Timeline(
        to_iso(span.since_utc_ns), to_iso(span.until_utc_ns), span.step_s, len(events) - len(shown), cameras
    )


def to_lines(timeline: Timeline) -> Iterator[str]:
    """Yields a timeline as text, a line for each cell that holds something."""
    for camera in timeline.cameras:
        for cell in camera.cells:
            counts = (f"{getattr(cell, name)} {name}" for name in ("clips", "pictures", "films", "events"))
            shown = [f"{cell.footage_s:.0f}s footage", *counts]
            yield f"{camera.camera or '-'} {cell.utc} {', '.join(text for text in shown if not text.startswith('0'))}"


def _is_event(row: TimelineRow) -> bool:
    return row.trigger not in NOT_EVENTS


def _is_footage(row: TimelineRow) -> bool:
    return GROUPS.get(row.kind) == "clips"


def _is_of_a_night(row: TimelineRow) -> bool:
    return row.kind in NIGHT_KINDS or row.trigger == "night"


def _end_ns_of(row: TimelineRow) -> int:
    return row.started_utc_ns + round(row.duration_s * NS)


def _to_cells(rows: list[TimelineRow], span: TimelineSpan) -> list[TimelineCell]:
    """Returns the cells that hold something. Its cost does not grow with the length of a clip."""
    counts = {name: [0] * span.count for name in ("pictures", "films", "events")}
    changes = [0] * (span.count + 1)
    rows_at: dict[int, int] = {}
    for row in rows:
        first = span.index_of(row.started_utc_ns)
        if _is_footage(row):
            last = span.index_of(_end_ns_of(row))
            changes[first] += 1
            changes[last + 1] -= 1
        else:
            counts[GROUPS.get(row.kind, "pictures")][first] += 1
        counts["events"][first] += _is_event(row)
        rows_at.setdefault(first, row.id)
    clips = list(accumulate(changes))[:-1]
    footage_ns = [0] * span.count
    for begin, end in _merge_spans(filter(_is_footage, rows), span, gap_ns=0):
        for index in range(span.index_of(begin), span.index_of(end) + 1):
            cell_ns = span.since_utc_ns + index * span.step_s * NS
            footage_ns[index] += max(0, min(end, cell_ns + span.step_s * NS) - max(begin, cell_ns))
    cells = []
    row_id = 0
    for index in range(span.count):
        row_id = rows_at.get(index, row_id)  # a cell in the middle of a clip opens that clip
        values = {name: column[index] for name, column in counts.items()}
        if clips[index] or any(values.values()):
            utc = to_iso(span.since_utc_ns + index * span.step_s * NS)
            footage_s = round(footage_ns[index] / NS, 3)
            cells.append(TimelineCell(utc=utc, footage_s=footage_s, clips=clips[index], row=row_id, **values))
    return cells


def _to_periods(rows: Iterable[TimelineRow], span: TimelineSpan) -> list[TimePeriod]:
    """Returns the periods of rows; those closer than one cell are one, so there are not more of them than cells."""
    return [TimePeriod(to_iso(begin), to_iso(end)) for begin, end in _merge_spans(rows, span, gap_ns=span.step_s * NS)]


def _merge_spans(rows: Iterable[TimelineRow], span: TimelineSpan, *, gap_ns: int) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begins, ends in sorted((row.started_utc_ns, _end_ns_of(row)) for row in rows):
        begin, end = max(begins, span.since_utc_ns), min(ends, span.until_utc_ns)
        if merged and begin - merged[-1][1] <= gap_ns:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _to_event(row: TimelineRow) -> TimelineEvent:
    return TimelineEvent(row.id, to_iso(row.started_utc_ns), round(row.duration_s, 3), row.kind, row.trigger, row.label)
