"""Rows of the library as people and programs read them. Pure."""

from __future__ import annotations

from typing import Any

from library.entry import Entry
from service.clock import iso


def line(entry: Entry) -> str:
    """One row in one line."""
    marks = " protected" * entry.protected + (f" trigger={entry.trigger}" if entry.trigger else "")
    last = f"-f{entry.last_frame}" if entry.last_frame > entry.first_frame else ""  # unknown of what was adopted
    frames = f" f{entry.first_frame}{last}" if entry.first_frame >= 0 else ""
    length = f" {entry.duration_s:.1f}s" if entry.duration_s else ""
    size = f"{entry.bytes / 1e6:.1f}MB"
    when = iso(entry.started_utc_ns)
    return f"{entry.id} {entry.kind} {entry.camera or '-'} {when}{length}{frames} {size} {entry.path}{marks}"


def row(entry: Entry) -> dict[str, Any]:
    """One row for programs."""
    return {
        "id": entry.id,
        **entry.description(),
        "started": iso(entry.started_utc_ns),
        "path": str(entry.path),
        "bytes": entry.bytes,
        "protected": entry.protected,
    }


def show(entry: Entry) -> str:
    """Everything about one row, a line each."""
    return "\n".join(f"{key}: {_words(value)}" for key, value in row(entry).items())


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
