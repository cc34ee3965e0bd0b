"""How an entry becomes a row and a row an entry; and library time, which is kept beside them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path

from library.ages import WRITTEN_S, ClockReading, advance_library_s, read_clock
from library.entry import GROUPS, Entry

COLUMNS = [field.name for field in fields(Entry)]
STORED = [name for name in COLUMNS if name != "id"]
_INSERT = (
    f"INSERT INTO entries ({', '.join(STORED)}, triggered, added_s) "  # noqa: S608 - our own column names
    f"VALUES ({', '.join(':' + name for name in STORED)}, :triggered, :added_s) ON CONFLICT (path) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in STORED if name not in ("path", "protected"))
    + ", triggered = excluded.triggered, protected = max(protected, excluded.protected) RETURNING id, protected"
)


def insert(db: sqlite3.Connection, entry: Entry, root: Path, added_s: float) -> Entry:
    """Add a row, or update that of the same path. Returns: the entry with its number. Raises: sqlite3.Error."""
    values = {name: getattr(entry, name) for name in STORED}
    path = stored(entry.path, root)
    values |= {"path": path, "companions": json.dumps(entry.companions), "triggered": entry.triggered}
    number, protected = db.execute(_INSERT, {**values, "added_s": added_s}).fetchone()
    return replace(entry, path=root / path, id=number, protected=bool(protected))


def delete(db: sqlite3.Connection, numbers: Collection[int]) -> None:
    """Remove rows. Raises: sqlite3.Error."""
    db.executemany("DELETE FROM entries WHERE id = ?", [(number,) for number in numbers])


def entry_of(row: sqlite3.Row, root: Path) -> Entry:
    """Make an entry of a row."""
    values = {name: row[name] for name in COLUMNS}
    values |= {"path": root / row["path"], "protected": bool(row["protected"])}
    values |= {"companions": tuple(json.loads(row["companions"]))}
    return Entry(**values)


def in_group(group: str) -> str:
    """SQL that is true for the kinds of one group; all of it our own words. Raises: ValueError."""
    if group not in ("pictures", *GROUPS.values()):
        raise ValueError(f"no group {group[:32]!r}; known: pictures, {', '.join(sorted(set(GROUPS.values())))}")
    kinds = [kind for kind, of in GROUPS.items() if group in ("pictures", of)]
    return f"kind {'NOT IN' if group == 'pictures' else 'IN'} ({', '.join(repr(kind) for kind in kinds)})"


def stored(path: Path, root: Path) -> str:
    """Relative to the library where the file is inside, so that the whole tree may be moved."""
    path = path.absolute()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def age(db: sqlite3.Connection) -> float:
    """Advance library time to now and return it."""
    row = db.execute("SELECT * FROM ages").fetchone()
    before = ClockReading(row["boot"], row["up_s"], row["wall_s"]) if row else None
    now = read_clock()
    library_s = advance_library_s(row["library_s"] if row else 0.0, before, now)
    if before is not None and before.boot == now.boot and now.up_s - before.up_s < WRITTEN_S:
        return library_s
    db.execute("REPLACE INTO ages VALUES (1, ?, ?, ?, ?)", (library_s, now.boot, now.up_s, now.wall_s))
    return library_s
