"""One row of the library: a saved file, its place and its cause; and rows as text and JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from shmcam.library.time_parsing import LARGEST
from shmcam.runtime.clock import to_iso

GROUPS: dict[str, str] = {
    "clip": "clips",
    "session": "clips",
    "timelapse": "films",
    "startrails": "films",
    "archive": "archives",
}
"""Kind → group of limits in [library]; every other kind belongs to the pictures."""

ORDINARY_TRIGGERS = frozenset({"", "auto", "rolling", "timer"})
"""Files without a trigger; retention takes them before any triggered one."""

BY_HAND = frozenset({"manual", "record", "save", "snapshot", "command"})
"""Files that a person asked for; retention never takes them for an ordinary one."""

NOT_DESCRIBED = frozenset({"id", "path", "bytes", "protected", "uploaded"})
"""The fields that the place on disk gives (path, size, the marks in the sidecar) or only the database knows (id)."""


class Entry(Struct, frozen=True, kw_only=True):
    """One saved file."""

    kind: str
    """picture, stack, clip, session, timelapse, startrails, keogram, archive …"""
    camera: str
    """The camera's name; empty for an archive of several."""
    path: Path
    """The absolute path; of an archive, that of its manifest."""
    started_utc_ns: int
    """The wall-clock time of its first frame, ns since 1970, by the clock of that moment."""
    duration_s: float = 0.0
    """The time from first to last frame by the sensor's clock; 0 for one frame."""
    bytes: int = 0
    """The size on disk; `Catalogue.add` fills it in."""
    first_frame: int = -1
    """The frame id of the first frame; -1: unknown."""
    last_frame: int = -1
    """The frame id of the last frame; -1: unknown."""
    frames: int = 1
    """The number of frames in it."""
    drops: int = 0
    """The number of frames missing between first and last."""
    score: float | None = None
    """The dark score (mean luma 0-255 at day exposure) of its last frame; None: unknown."""
    trigger: str = ""
    """Its cause: "" or auto, rolling, timer (ordinary), save, motion, night, record, … (triggered)."""
    label: str = ""
    """Its label (`LABEL` of shmcam.config.settings), or empty."""
    companions: tuple[str, ...] = ()
    """The names of files in the same folder that belong to it and are deleted with it (frame timing CSV)."""
    protected: bool = False
    """True if retention never deletes it."""
    uploaded: str = ""
    """The place that holds a copy whose checksum was compared, such as nas:shmcam; empty: none."""
    id: int = 0
    """The row number; 0 before it is added."""

    @property
    def group(self) -> str:
        """The group whose limits hold for it: pictures, clips, films or archives."""
        return GROUPS.get(self.kind, "pictures")

    @property
    def is_triggered(self) -> bool:
        """True if a command or an event asked for this file."""
        return self.trigger not in ORDINARY_TRIGGERS

    def to_event(self) -> dict[str, Any]:
        """Returns the fields of an event about this file."""
        return {
            "row": self.id,
            "camera": self.camera,
            "path": str(self.path),
            "kind": self.kind,
            "trigger": self.trigger,
            "bytes": self.bytes,
        }

    def to_description(self) -> dict[str, Any]:
        """Returns the fields that stand in the file or beside it, from which the row can be made again."""
        values = {name: getattr(self, name) for name in DESCRIBED}
        return {**values, "companions": list(self.companions)}


DESCRIBED = tuple(name for name in Entry.__struct_fields__ if name not in NOT_DESCRIBED)


def from_description(
    path: Path, values: Mapping[str, Any], *, protected: bool = False, uploaded: str = ""
) -> Entry | None:
    """Makes an entry from a description in or beside a file; None if it is not one of ours.

    Anybody may put a file into our folders: what a row could not hold makes the description none of ours.
    """
    try:
        entry = Entry(
            kind=str(values["kind"]),
            camera=str(values["camera"]),
            path=path,
            started_utc_ns=int(values["started_utc_ns"]),
            duration_s=float(values.get("duration_s", 0.0)),
            first_frame=int(values.get("first_frame", -1)),
            last_frame=int(values.get("last_frame", -1)),
            frames=int(values.get("frames", 1)),
            drops=int(values.get("drops", 0)),
            score=None if values.get("score") is None else float(values["score"]),
            trigger=str(values.get("trigger", "")),
            label=str(values.get("label", "")),
            companions=tuple(str(name) for name in values.get("companions", ())),
            protected=protected,
            uploaded=uploaded,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not _is_storable(entry):
        return None
    return replace(
        entry, companions=tuple(name for name in entry.companions if "/" not in name and name not in ("", ".."))
    )


def _is_storable(entry: Entry) -> bool:
    """Tells whether a row can hold it: SQLite knows no integers above 64 bits, takes NaN for NULL, and wants UTF-8."""
    numbers = (entry.started_utc_ns, entry.first_frame, entry.last_frame, entry.frames, entry.drops)
    words = (entry.kind, entry.camera, entry.trigger, entry.label, *entry.companions)
    return (
        all(abs(number) <= LARGEST for number in numbers)
        and isfinite(entry.duration_s)
        and (entry.score is None or isfinite(entry.score))
        and all(is_text(word) for word in words)
    )


def is_text(word: str) -> bool:
    """Tells whether it can be written as UTF-8; a file name of another encoding cannot."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_line(entry: Entry) -> str:
    """Returns one row as one line."""
    marks = " protected" * entry.protected + (f" trigger={entry.trigger}" if entry.trigger else "")
    marks += f" uploaded={entry.uploaded}" if entry.uploaded else ""
    last = f"-f{entry.last_frame}" if entry.last_frame > entry.first_frame else ""  # an adopted file has no last frame
    frames = f" f{entry.first_frame}{last}" if entry.first_frame >= 0 else ""
    length = f" {entry.duration_s:.1f}s" if entry.duration_s else ""
    size = f"{entry.bytes / 1e6:.1f}MB"
    when = to_iso(entry.started_utc_ns)
    return f"{entry.id} {entry.kind} {entry.camera or '-'} {when}{length}{frames} {size} {entry.path}{marks}"


def to_row(entry: Entry) -> dict[str, Any]:
    """Returns one row as JSON for programs."""
    return {
        "id": entry.id,
        **entry.to_description(),
        "started": to_iso(entry.started_utc_ns),
        "path": str(entry.path),
        "bytes": entry.bytes,
        "protected": entry.protected,
        "uploaded": entry.uploaded,
    }


def to_text(entry: Entry) -> str:
    """Returns all about one row, a line for each column."""
    return "\n".join(f"{key}: {_to_words(value)}" for key, value in to_row(entry).items())


def _to_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
