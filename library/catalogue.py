"""The catalogue of everything saved: added after a file is safely on disk, found again, protected, deleted.

The files are the truth and the rows their index: every row can be made again from the files alone (`library.sidecar`),
and `reconcile` makes both agree after a crash.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from library import agreement, files, sidecar, table
from library.database import Database
from library.entry import GROUPS, Entry
from library.errors import EntryProtected, NoSuchEntry
from library.instants import storable
from library.mounts import Mounts
from service.settings import Settings

T = TypeVar("T")


class Catalogue:
    """One process' view of the library; any number of processes and threads may write."""

    def __init__(self, path: Path, folders: Sequence[Path] = ()) -> None:
        """`folders` are where files are looked for when the catalogue is rebuilt, and the only ones deleted from."""
        self.path = path
        self.root = path.parent
        self.folders = tuple(folders)
        self.away: tuple[Path, ...] = ()
        """Folders that the last look found empty, or without their disk: perhaps it is not mounted (yet)."""
        self.missed = threading.Event()
        """Set when a file got no row because the library cannot be written (`library.late`)."""
        self._database = Database(path, self.reconcile)
        self.mounts = Mounts(self._database, self.folders, self.root)

    @classmethod
    def of(cls, settings: Settings) -> Catalogue:
        """The library of this configuration."""
        paths = settings.paths
        return cls(paths.library, (paths.captures, paths.recordings, paths.archives))

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the database back; it opens again by itself when used."""
        self._database.close()

    # ---- writing

    def add(self, entry: Entry) -> Entry:
        """Add a file that is safely on disk; adding it again updates its row and never loses its protection.

        Returns: the entry with its number and size. Raises: OSError (the file is gone), sqlite3.Error, LibraryError.
        """
        if entry.bytes == 0:
            entry = replace(entry, bytes=files.size(entry.path))
        sidecar.describe(entry)
        return self.insert([entry])[0]

    def protect(self, number: int, protected: bool = True) -> Entry:
        """Keep an entry for ever, or give it back to retention. Raises: NoSuchEntry, NotWritable, OSError."""
        self._database.demand_writable()
        entry = replace(self.get(number), protected=protected)
        files.size(entry.path)
        # The file first: if we die in between, `check` finds and mends the row that differs.
        sidecar.describe(entry)
        update = "UPDATE entries SET protected = ? WHERE id = ?"
        if not self._database.write(lambda db: db.execute(update, (protected, number)).rowcount):
            raise NoSuchEntry(f"{number} was deleted meanwhile: {entry.path.name}")
        return entry

    def delete(self, number: int) -> Entry:
        """Delete a file, what belongs to it, and its row. Raises: NoSuchEntry, EntryProtected, NotWritable, OSError."""
        entry = self.get(number)
        if entry.protected:
            raise EntryProtected(f"{number} is protected: {entry.path.name}; unprotect {number} first")
        self.remove(entry)
        return entry

    def remove(self, entry: Entry) -> None:
        """Delete without asking whether it is protected. Raises: NotWritable, OSError."""
        self._database.demand_writable()  # no row shall outlive its file
        files.remove(entry, self.folders)
        self.forget([entry.id])

    def forget(self, numbers: Collection[int]) -> None:
        """Remove rows, not files."""
        self._database.write(lambda db: table.delete(db, numbers))

    # ---- reading

    def get(self, number: int) -> Entry:
        """One row. Raises: NoSuchEntry."""
        found = self.select("id = ?", (storable(number),))
        if not found:
            raise NoSuchEntry(f"no entry {number} in the library")
        return found[0]

    def find(
        self,
        *,
        kinds: Collection[str] = (),
        group: str = "",
        cameras: Collection[str] = (),
        since_utc_ns: int | None = None,
        until_utc_ns: int | None = None,
        before: int | None = None,
        trigger: str | None = None,
        protected: bool | None = None,
        newest_first: bool = True,
        limit: int = -1,
    ) -> list[Entry]:
        """Rows that overlap the span and match all that is given, in the order they were added (`limit` -1: all).

        `group`: pictures, clips, films or archives; `before`: added before this row. Raises: ValueError (no group).
        """
        where: list[tuple[str, Any]] = [
            ("started_utc_ns + CAST(duration_s * 1e9 AS INTEGER) >= ?", since_utc_ns),
            ("started_utc_ns <= ?", until_utc_ns),
            ("id < ?", before),
            ("trigger = ?", trigger),
            ("protected = ?", protected),
        ]
        used = [(clause, value) for clause, value in where if value is not None]
        clauses, values = [clause for clause, _ in used], [value for _, value in used]
        if group:
            clauses.append(table.in_group(group))
        for column, wanted in (("kind", kinds), ("camera", cameras)):
            if wanted:
                clauses.append(f"{column} IN ({', '.join('?' * len(wanted))})")
                values.extend(wanted)
        return self.select(" AND ".join(clauses) or "1", values, "id DESC" if newest_first else "id", limit)

    def select(self, where: str, values: Sequence[Any], order: str = "id", limit: int = -1) -> list[Entry]:
        """Rows by our own SQL (never by text from outside)."""
        query = f"SELECT * FROM entries WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608 - see above
        rows = self._database.read(lambda db: db.execute(query, (*values, storable(limit))).fetchall())
        return [table.entry_of(row, self.root) for row in rows]

    def kinds(self) -> list[str]:
        """Every kind there is a row of."""
        rows = self._database.read(lambda db: db.execute("SELECT DISTINCT kind FROM entries").fetchall())
        return [row["kind"] for row in rows]

    def totals(self) -> dict[str, tuple[int, int]]:
        """Group (pictures, clips, films, archives) → number of files and their bytes, protected ones included."""
        query = "SELECT kind, count(*) AS n, sum(bytes) AS size FROM entries GROUP BY kind"  # the index holds all of it
        found: dict[str, tuple[int, int]] = {}
        for row in self._database.read(lambda db: db.execute(query).fetchall()):
            group = GROUPS.get(row["kind"], "pictures")
            count, size = found.get(group, (0, 0))
            found[group] = (count + row["n"], size + row["size"])
        return found

    def library_s(self) -> float:
        """Library time now (`library.ages`); entries carry it in the column `added_s`."""
        return self._database.write(table.age)

    # ---- agreeing with the disk

    def reconcile(self) -> tuple[list[Entry], list[Entry]]:
        """Adopt files without a row, forget rows without a file. Returns: both, adopted first.

        Run on every start: after a crash between "file in place" and "row written" nothing is lost. Nothing is
        forgotten below a folder that is `away`: run it again when it is back.
        """
        return agreement.reconcile(self)

    def rebuild(self, *, accept: bool = False) -> tuple[int, int]:
        """Make every row anew from the files. Returns: rows made, and rows kept below folders that are `away`.

        `accept`: nothing is away, what is not there is gone. Raises: sqlite3.Error, LibraryError.
        """
        return agreement.rebuild(self, accept=accept)

    def check(self, *, mend: bool = False) -> list[tuple[Entry, str]]:
        """Compare every row with its file and every file with its row; `mend` makes the rows follow the files.

        Returns: the rows that differed, and how.
        """
        return agreement.check(self, mend=mend)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction of our own. Raises: sqlite3.Error, LibraryError."""
        return self._database.write(work)

    def insert(self, entries: Sequence[Entry], *, instead: Collection[int] = ()) -> list[Entry]:
        """Add rows of files that describe themselves already, `instead` of others. Returns: them with their numbers."""

        def work(db: sqlite3.Connection) -> list[Entry]:
            added_s = table.age(db)
            table.delete(db, instead)
            return [table.insert(db, entry, self.root, added_s) for entry in entries]

        return self._database.write(work) if entries or instead else []
