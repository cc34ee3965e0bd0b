"""Rows and files agree: what a crash left without a row is adopted, what is gone is forgotten, damage is found.

Nothing is forgotten below a folder that is `away`: empty, or without the disk it was on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from library import files, sidecar
from library.entry import Entry

if TYPE_CHECKING:
    from library.catalogue import Catalogue

NO_ROW, NO_FILE, DIFFERS = "no row", "no file", "differs from its file"
AWAY = "away: its folder is empty or its disk not mounted; the row is kept"


def reconcile(catalogue: Catalogue) -> tuple[list[Entry], list[Entry]]:
    """Adopt files without a row, forget rows without a file. Returns: both, adopted first."""
    if not catalogue.folders:
        return [], []
    on_disk = _looked(catalogue)
    rows = {entry.path: entry for entry in catalogue.find()}
    absent = [path for path in rows if path not in on_disk and not path.exists()]
    gone = [rows[path] for path in absent if not _is_away(catalogue, path)]
    adopted = catalogue.insert(sidecar.readable(on_disk - rows.keys()))
    catalogue.forget([entry.id for entry in gone])
    return adopted, gone


def rebuild(catalogue: Catalogue, *, accept: bool = False) -> tuple[int, int]:
    """Make every row anew from the files. `accept`: folders are what is there, no disk is waited for.

    Returns: rows made, and rows kept because their folder is away. Raises: sqlite3.Error, LibraryError.
    """
    if accept:
        catalogue.mounts.forget()
    before = catalogue.find()  # what others add while we look stays as they wrote it
    entries = sidecar.readable(_looked(catalogue))
    kept = [] if accept else [entry for entry in before if _is_away(catalogue, entry.path)]
    kept = [entry for entry in kept if not entry.path.exists()]
    keep = {entry.id for entry in kept}
    return len(catalogue.insert(entries, instead=[one.id for one in before if one.id not in keep])), len(kept)


def check(catalogue: Catalogue, *, mend: bool = False) -> list[tuple[Entry, str]]:
    """Compare every row with its file and every file with its row; `mend` makes the rows follow the files.

    Returns: the rows that differed, and how.
    """
    before = {entry.path: entry for entry in catalogue.find()}
    actual = {entry.path: entry for entry in sidecar.readable(_looked(catalogue))}
    findings = [(entry, NO_ROW) for path, entry in actual.items() if path not in before]
    absent = [path for path in before if path not in actual and not path.exists()]
    findings += [(before[path], AWAY if _is_away(catalogue, path) else NO_FILE) for path in absent]
    changed = [entry for path, entry in actual.items() if path in before and entry != replace(before[path], id=0)]
    findings += [(entry, DIFFERS) for entry in changed]
    if mend:
        reconcile(catalogue)
        catalogue.insert(changed)
        catalogue.write(_released([before[entry.path].id for entry in changed if not entry.protected]))
    return findings


def kept_text(catalogue: Catalogue, kept: int) -> str:
    """What to say of rows that a rebuild kept; empty where there are none."""
    if not kept:
        return ""
    places = ", ".join(map(str, catalogue.away))
    return (
        f"; kept {kept} rows of {places}: empty, or its disk is not mounted (`shmcam library rebuild --accept` forgets)"
    )


def _looked(catalogue: Catalogue) -> set[Path]:
    """Every file of the library; the catalogue then knows which folders are away."""
    held = {folder: files.found([folder]) for folder in catalogue.folders}
    catalogue.mounts.remember()
    empty = {folder for folder, paths in held.items() if not paths}
    catalogue.away = tuple(folder for folder in held if folder in empty or catalogue.mounts.away(folder))
    return set().union(*held.values())


def _is_away(catalogue: Catalogue, path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in catalogue.away)


def _released(numbers: Sequence[int]) -> Callable[[sqlite3.Connection], object]:
    rows = [(number,) for number in numbers]
    return lambda db: db.executemany("UPDATE entries SET protected = 0 WHERE id = ?", rows)
