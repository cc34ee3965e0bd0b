"""The catalogue of all saved files: adds a file once it is safely on disk, finds, protects and deletes it.

The rows are an index of the files: every row can be made again from the files alone (`shmcam.library.sidecar`), and
`reconcile` makes both agree after a crash.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from msgspec.structs import replace

from shmcam.config.errors import UnknownCamera
from shmcam.config.settings import Paths, Settings
from shmcam.library import database, files, sidecar
from shmcam.library.database import Database, explain_not_writable
from shmcam.library.disks.mounts import Mounts
from shmcam.library.entry import GROUPS, Entry
from shmcam.library.errors import EntryProtected, LibraryBusy, LibraryError, NoSuchEntry
from shmcam.library.query import Query, to_sql
from shmcam.library.sidecar import Owner
from shmcam.library.time_parsing import to_storable
from shmcam.library.timeline import Timeline, TimelineRow, TimelineSpan, make_timeline

log = logging.getLogger(__name__)

T = TypeVar("T")

RECOVERED = "recovered"
"""The trigger that an earlier version gave to every file it could not explain, also to those of others."""

NO_ROW, NO_FILE, DIFFERS = "no row", "no file", "differs from its file"
NOT_OURS = "its file is not one of ours; only the row goes"
AWAY = "away: its folder is empty or its disk not mounted; the row is kept"


PAGE = 200
"""Rows read at a time where all of them are compared with their files."""


class _KnownRow(NamedTuple):
    """What `rebuild` needs of a row."""

    id: int
    path: str
    is_protected: bool


class Catalogue:
    """The library as one process uses it; any number of processes and threads may write."""

    def __init__(self, path: Path, folders: Sequence[Path] = ()) -> None:
        """`folders`: searched for files when the catalogue is rebuilt; files elsewhere are never deleted."""
        self.path = path
        self.root = path.parent
        self.folders = tuple(folders)
        self.away: tuple[Path, ...] = ()
        """The folders that were empty or without their disk at the last scan: it may not be mounted yet."""
        self.missed = threading.Event()
        """Set when rows may be missing: one could not be written (`add_when_writable`), or the file of the library is
        another one than before."""
        self.trouble = ""
        """What is wrong with making room: files that cannot be deleted, or a disk that others fill; empty: nothing."""
        self.awaited_room: dict[int, tuple[int, float]] = {}
        """Device → until so many bytes are free, or this monotonic time in s, nothing is deleted for free space: the
        room of what was deleted is not back."""
        self.on_deleted: Callable[..., None] = lambda **_fields: None
        """Called after each deletion with the fields of the event `deleted`."""
        self._unreadable: set[str] = set()
        """The folders that the last scan could not read: logged once."""
        self._database = Database(path, self.reconcile, lambda: self.missed.set())  # noqa: PLW0108 - the event may change
        self.mounts = Mounts(self._database, self.folders, self.root)

    @classmethod
    def of(cls, settings: Settings) -> Catalogue:
        """Returns the library of this configuration."""
        return cls.at(settings.paths)

    @classmethod
    def at(cls, paths: Paths) -> Catalogue:
        """Returns the library of these folders."""
        return cls(paths.library, (paths.captures, paths.recordings, paths.archives))

    @cached_property
    def owner(self) -> Owner:
        """The installation whose files the library holds and may delete."""
        return Owner.of(self.path)

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the database back; it opens again by itself when used."""
        self._database.close()

    # ---- writing

    def add(self, entry: Entry) -> Entry:
        """Adds a file that is safely on disk; adding it again updates its row and never loses its protection.

        Nor the mark that it is uploaded, if it has not changed since. Returns: the entry with both, its number and
        size. Raises: OSError (the file is gone), NotWritable, LibraryError.
        """
        if entry.bytes == 0:
            entry = replace(entry, bytes=files.size_of(entry.path))
        described = sidecar.write_description(entry, self.owner)
        added = self.insert([described])[0]
        if added.protected and not described.protected:  # only the row knew of it: its sidecar was removed
            sidecar.write_description(added, self.owner)
        return added

    def add_when_writable(self, entry: Entry) -> Entry:
        """Adds a file as `add` does; if that is not possible now, the row has no number and `missed` is set.

        A file is worth more than its row: on a full or locked disk the call ends soon. Raises: OSError (the file is
        gone).
        """
        try:
            with self.hurry():
                return self.add(entry)
        except (LibraryError, OSError) as problem:
            entry = replace(entry, bytes=entry.bytes or files.size_of(entry.path))
            self.missed.set()
            log.warning("not in the library yet path=%s reason=%s", entry.path, problem)
            return entry

    def is_replaced(self) -> bool:
        """Tells whether the file of the library that was used last is no longer in its place. Raises: OSError."""
        return self._database.is_replaced()

    def hurry(self) -> AbstractContextManager[None]:
        """Returns a block in which nothing waits long for other processes that hold the library."""
        return self._database.hurry()

    def report_trouble(self, trouble: str) -> None:
        """Notes and logs what is wrong with making room, when it changes; empty: nothing is."""
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                log.error("no room can be made reason=%s", trouble)
            else:
                log.info("room can be made again")

    def protect(self, number: int, protected: bool = True) -> Entry:
        """Keeps an entry for ever, or gives it back to retention. Raises: NoSuchEntry, NotWritable, OSError."""
        self._database.require_writable()
        entry = replace(self.get(number), protected=protected)
        files.size_of(entry.path)
        # The file first: if the process dies in between, `check` finds and mends the row that differs.
        sidecar.write_description(entry, self.owner, may_unprotect=True)
        update = "UPDATE entries SET protected = ? WHERE id = ?"
        if not self._database.write(lambda db: db.execute(update, (protected, number)).rowcount):
            raise NoSuchEntry(f"{number} was deleted meanwhile: {entry.path.name}")
        return entry

    def mark_uploaded(self, entry: Entry, to: str, copied: os.stat_result) -> bool:
        """Notes that a verified copy of the file, as it was when `copied` was read, lies at `to`.

        Returns: False if the file has changed or was deleted since: then nothing is noted. Raises: NotWritable,
        LibraryError.
        """
        self._database.require_writable()
        try:
            if not sidecar.mark_uploaded(entry.path, to, copied, self.owner):
                return False
        except FileNotFoundError:
            return False
        except LibraryBusy:
            raise  # whether the file has changed is not known
        except (LibraryError, OSError) as problem:
            # On a full disk the row alone must do, or else nothing may be deleted and the disk stays full for ever.
            # A rebuild forgets such a mark, and the copy is compared once more.
            log.warning("upload noted in the library alone path=%s reason=%s", entry.path, problem)
        update = "UPDATE entries SET uploaded = ? WHERE id = ? AND path = ? AND bytes = ?"
        values = (to, entry.id, database.to_stored_path(entry.path, self.root), entry.bytes)
        return self._database.write(lambda db: db.execute(update, values).rowcount) > 0

    def delete(self, number: int, reason: str = "command") -> Entry:
        """Deletes a file, what belongs to it, and its row.

        Raises: NoSuchEntry, EntryProtected, NotWritable, LibraryError (not ours), OSError.
        """
        entry = self.get(number)
        if entry.protected:
            raise EntryProtected(f"{number} is protected: {entry.path.name}; unprotect {number} first")
        self.remove(entry, reason)
        return entry

    def remove(self, entry: Entry, reason: str = "command") -> None:
        """Deletes without asking whether it is protected.

        Raises: NotWritable, LibraryError (not ours, or its disk is not mounted), OSError.
        """
        self._database.require_writable()  # a row must not outlive its file
        if any(map(entry.path.is_relative_to, self.list_away())):  # it would be there again with its disk, as a new one
            raise LibraryError(f"{entry.path}: its disk is not mounted; not deleted")
        files.remove(entry, self.folders, self.owner)
        self.forget([entry.id])
        log.info(
            *("deleted path=%s bytes=%d reason=%s trigger=%s", entry.path, entry.bytes, reason, entry.trigger or "none")
        )
        self.on_deleted(**entry.to_event(), reason=reason)

    def forget(self, numbers: Collection[int]) -> None:
        """Removes rows, not files."""
        self._database.write(lambda db: database.delete(db, numbers))

    # ---- reading

    def get(self, number: int) -> Entry:
        """Returns one row. Raises: NoSuchEntry."""
        rows = self.select("id = ?", (to_storable(number),))
        if not rows:
            raise NoSuchEntry(f"no entry {number} in the library")
        return rows[0]

    def find(
        self,
        *,
        kinds: Collection[str] = (),
        group: str = "",
        cameras: Collection[str] = (),
        since_utc_ns: int | None = None,
        until_utc_ns: int | None = None,
        trigger: str | None = None,
        protected: bool | None = None,
        newest_first: bool = True,
        limit: int = -1,
    ) -> list[Entry]:
        """Returns the rows that overlap the span and match all that is given, by order of adding (`limit` -1: all).

        `group`: pictures, clips, films or archives. Raises: ValueError (no group).
        """
        return self.search(
            Query(
                kinds=kinds,
                group=group,
                cameras=cameras,
                since_utc_ns=since_utc_ns,
                until_utc_ns=until_utc_ns,
                trigger=trigger,
                protected=protected,
                order="newest" if newest_first else "oldest",
                limit=limit,
            )
        )

    def check_cameras(self, names: Collection[str], configured: Collection[str]) -> None:
        """Refuses a camera that is neither configured nor has a row, as one of the past has. Raises: UnknownCamera."""
        for name in names:
            if name not in configured and not self.find(cameras=[name], limit=1):
                raise UnknownCamera(name, configured)

    def search(self, query: Query) -> list[Entry]:
        """Returns the rows of a search. Raises: ValueError for an unknown group, order or cursor."""
        return self.select(*to_sql(query), query.limit)

    def sum_search(self, query: Query) -> tuple[int, int]:
        """Returns files and bytes of all pages of a search. Raises: ValueError as `search`."""
        where, values, _ = to_sql(replace(query, cursor="", before=None))
        return self.sum_rows(where, values)

    def sum_rows(self, where: str, values: Sequence[Any]) -> tuple[int, int]:
        """Returns files and bytes of the rows that our own SQL finds (never text from outside)."""
        sql = f"SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM entries WHERE {where}"  # noqa: S608 - our own SQL
        files, size = self._database.read(lambda db: db.execute(sql, values).fetchone())
        return files, size

    def select(self, where: str, values: Sequence[Any], order: str = "id", limit: int = -1) -> list[Entry]:
        """Returns rows by our own SQL (never by text from outside)."""
        return self._database.read(lambda db: list(self._iterate(db, where, values, order, limit)))

    def _iterate(
        self, db: sqlite3.Connection, where: str, values: Sequence[Any], order: str = "id", limit: int = -1
    ) -> Iterator[Entry]:
        """Yields rows by our own SQL."""
        columns = ", ".join(database.COLUMNS)
        query = f"SELECT {columns} FROM entries WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608 - see above
        for row in db.execute(query, (*values, to_storable(limit))):
            yield database.entry_of(row, self.root)

    def read_timeline(self, span: TimelineSpan, cameras: Collection[str] = ()) -> Timeline:
        """Returns what exists of these cameras, or of all, in a span."""
        query = Query(cameras=cameras, since_utc_ns=span.since_utc_ns, until_utc_ns=span.until_utc_ns - 1)
        where, values, _ = to_sql(query)
        columns = ", ".join(TimelineRow._fields)
        sql = f"SELECT {columns} FROM entries WHERE {where} ORDER BY id"  # noqa: S608 - our own SQL
        rows = self._database.read(lambda db: [TimelineRow(*row) for row in db.execute(sql, values)])
        return make_timeline(rows, span)

    def list_away(self) -> list[Path]:
        """Returns the folders whose disk is not mounted now, and those that are not there. Raises: LibraryError."""
        return [folder for folder in self.folders if self.mounts.is_away(folder) or files.is_gone(folder)]

    def sum_groups(self, besides: Sequence[Path] = ()) -> dict[str, tuple[int, int]]:
        """Returns files and bytes of each group (pictures, clips, films, archives), protected ones included.

        `besides`: folders whose files are left out.
        """
        prefixes = [f"{database.to_stored_path(folder, self.root)}/" for folder in besides]
        where = " AND ".join(["1", *("substr(path, 1, length(?)) != ?" for _ in prefixes)])
        query = f"SELECT kind, count(*) AS n, sum(bytes) AS size FROM entries WHERE {where} GROUP BY kind"  # noqa: S608
        values = [value for prefix in prefixes for value in (prefix, prefix)]
        sums: dict[str, tuple[int, int]] = {}
        for row in self._database.read(lambda db: db.execute(query, values).fetchall()):
            group = GROUPS.get(row["kind"], "pictures")
            count, size = sums.get(group, (0, 0))
            sums[group] = (count + row["n"], size + row["size"])
        return sums

    def read_library_s(self) -> float:
        """Returns library time now (`shmcam.library.database`); the column `added_s` holds it."""
        return self._database.write(database.advance_library_time)

    # ---- agreeing with the disk

    def reconcile(self) -> tuple[list[Entry], list[Entry]]:
        """Adopts files without a row, forgets rows without a file of ours. Returns: both, adopted first.

        Run on every start: after a crash between "file in place" and "row written" nothing is lost. Nothing is
        forgotten below a folder that is `away`: run it again when it is back.
        """
        if not self.folders:
            return [], []
        self._resolve_links()
        new, unseen, recovered = self._compare(self._scan())
        gone = [
            entry
            for entry in unseen
            if (not self._is_away(entry.path) if files.is_gone(entry.path) else self._is_led_out(entry.path))
        ]
        gone += [entry for entry in recovered if self._is_foreign(entry.path)]
        adopted = self.insert(sidecar.read_all(new, self.owner))
        self.forget([entry.id for entry in gone])
        return adopted, gone

    def _compare(self, on_disk: set[str]) -> tuple[set[str], list[Entry], list[Entry]]:
        """Returns the files without a row, the rows whose file no scan saw, and those of recovered clips."""

        def compare(db: sqlite3.Connection) -> tuple[set[str], list[Entry], list[Entry]]:
            new, unseen, recovered = set(on_disk), [], []
            for entry in self._iterate(db, "TRUE", ()):
                path = str(entry.path)
                new.discard(path)
                if path not in on_disk:
                    unseen.append(entry)
                if entry.trigger == RECOVERED:
                    recovered.append(entry)
            return new, unseen, recovered

        return self._database.read(compare)

    def rebuild(self, *, accept: bool = False) -> tuple[int, int]:
        """Makes every row anew from the files. Returns: rows made, and rows kept below folders that are `away`.

        A file that has a row keeps its number, and with it age and order, which no file tells. A row of a file that
        cannot be read stays as it is.

        `accept`: nothing is away, what is not there is gone. Raises: LibraryError.
        """
        if accept:
            self.mounts.forget()
        self._resolve_links()
        before = self._read_known()  # rows that others add during the scan stay as they are
        entries = sidecar.read_all(self._scan(), self.owner)
        is_protected = {str(entry.path): entry.protected for entry in entries}
        unseen = [row.path for row in before if row.path and row.path not in is_protected]
        gone = {path for path in unseen if files.is_gone(Path(path))}
        kept = [] if accept else [path for path in gone if self._is_away(Path(path))]
        unread = {path for path in unseen if path not in gone and not self._is_foreign(Path(path))}
        stay = is_protected.keys() | unread | set(kept)
        self.insert(entries, instead=[row.id for row in before if row.path not in stay])
        self.write(_unprotect([row.id for row in before if row.is_protected and not is_protected.get(row.path, True)]))
        return len(entries), len(kept)

    def _read_known(self) -> list[_KnownRow]:
        """Returns what `rebuild` needs of all rows; of a damaged one its number and no path."""

        def read(db: sqlite3.Connection) -> list[_KnownRow]:
            rows = db.execute("SELECT id, path, protected FROM entries")
            # joined as text: a year has 100,000 of them
            return [
                _KnownRow(number, os.path.join(self.root, path) if isinstance(path, str) else "", bool(protected))  # noqa: PTH118
                for number, path, protected in rows
            ]

        return self._database.read(read)

    def check(self, *, mend: bool = False) -> list[tuple[Entry, str]]:
        """Compares every row with its file and every file with its row; `mend` makes the rows follow the files.

        Returns: the rows that differed, and how.
        """
        self._resolve_links()
        on_disk = self._scan()
        found: dict[str, list[tuple[Entry, Entry]]] = {how: [] for how in (NO_ROW, NOT_OURS, AWAY, NO_FILE, DIFFERS)}
        for row in self._iterate_pages():
            actual = self._read_file(row.path) if str(row.path) in on_disk else None
            on_disk.discard(str(row.path))
            if actual is not None:
                found[DIFFERS] += [(actual, row)] if actual != replace(row, id=0) else []
            elif files.is_gone(row.path):
                found[AWAY if self._is_away(row.path) else NO_FILE].append((row, row))
            elif self._is_foreign(row.path):
                found[NOT_OURS].append((row, row))
        found[NO_ROW] = [(entry, entry) for entry in sidecar.read_all(on_disk, self.owner)]
        if mend:
            self.reconcile()
            self.forget([row.id for _, row in found[NOT_OURS]])
            self.insert([actual for actual, _ in found[DIFFERS]])
            self.write(_unprotect([row.id for actual, row in found[DIFFERS] if not actual.protected]))
        return [(entry, how) for how, pairs in found.items() for entry, _ in pairs]

    def _iterate_pages(self) -> Iterator[Entry]:
        """Yields every row by its number, a page at a time: a year's 100,000 at once have 100 MB."""
        page = self.select("TRUE", (), limit=PAGE)
        while page:
            yield from page
            page = self.select("id > ?", (page[-1].id,), limit=PAGE)

    def describe_kept(self, kept: int) -> str:
        """Returns the words about rows that a rebuild kept; empty where there are none."""
        if not kept:
            return ""
        places = ", ".join(map(str, self.away))
        return (
            f"; kept {kept} rows of {places}: empty, or its disk is not mounted "
            "(`shmcam library rebuild --accept` forgets)"
        )

    def _resolve_links(self) -> None:
        """Gives the rows of folders that are links the paths that the scan finds: an earlier version kept the links'.

        A file must not have two rows. Rows of a disk that is away follow, too: its link tells where it will be.
        """
        if explain_not_writable(self.path):
            return
        inside = tuple(f"{folder}{os.sep}" for folder in self.folders)  # texts: most of 100,000 rows end here

        def find_elsewhere(db: sqlite3.Connection) -> list[tuple[int, Path]]:
            rows = db.execute("SELECT id, path FROM entries WHERE typeof(path) = 'text'")
            return [
                (number, self.root / path)
                for number, path in rows
                if not os.path.join(self.root, path).startswith(inside)  # noqa: PTH118 - text, see above
            ]

        elsewhere = self._database.read(find_elsewhere)
        real = {path.parent: Path(os.path.realpath(path.parent)) for _, path in elsewhere}
        moved = [(number, real[path.parent] / path.name) for number, path in elsewhere]
        moved = [(number, path) for number, path in moved if self._is_inside(path)]
        if moved:
            self.write(lambda db: database.move(db, moved, self.root))
            log.info("rows follow a link of their folder rows=%d", len(moved))

    def _is_foreign(self, path: Path) -> bool:
        """Tells whether the file of a row is there and is not one of ours; one that cannot be read may be."""
        try:
            is_ours = sidecar.read(path, self.owner) is not None
        except OSError:
            return False
        return self._is_led_out(path) or (not is_ours and sidecar.is_readable(path))

    def _read_file(self, path: Path) -> Entry | None:
        """Returns what the file of a row says; None if it is gone or none of ours."""
        with suppress(OSError):
            return sidecar.read(path, self.owner)
        return None

    def _is_led_out(self, path: Path) -> bool:
        """Tells whether a link on the way leads out of our folders, where no scan looks and nothing is deleted."""
        return bool(self.folders) and not files.is_inside(path, self.folders)

    def _is_inside(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self.folders)

    def _scan(self) -> set[str]:
        """Returns every file of the library, and brings `away` up to date."""
        found: set[str] = set()
        empty: set[Path] = set()
        unreadable: dict[str, str | None] = {}

        def report(error: OSError) -> None:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):  # removed meanwhile, or not made yet
                unreadable[error.filename] = error.strerror

        for folder in self.folders:
            paths = files.find_files(folder, report)
            found |= paths
            empty |= set() if paths else {folder}
        for path in unreadable.keys() - self._unreadable:
            log.warning("unreadable folder, its rows are kept path=%s reason=%s", path, unreadable[path])
        self._unreadable = set(unreadable)
        self.mounts.remember()
        self.away = tuple(folder for folder in self.folders if folder in empty or self.mounts.is_away(folder))
        return found

    def _is_away(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self.away)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in one transaction. Raises: NotWritable, LibraryError."""
        return self._database.write(work)

    def insert(self, entries: Sequence[Entry], *, instead: Collection[int] = ()) -> list[Entry]:
        """Adds rows of files that describe themselves already, `instead` of others.

        Returns: them with their numbers.
        """

        def work(db: sqlite3.Connection) -> list[Entry]:
            added_s = database.advance_library_time(db)
            database.delete(db, instead)
            return [database.insert(db, entry, self.root, added_s) for entry in entries]

        return self._database.write(work) if entries or instead else []


def _unprotect(numbers: Sequence[int]) -> Callable[[sqlite3.Connection], object]:
    rows = [(number,) for number in numbers]
    return lambda db: db.executemany("UPDATE entries SET protected = 0 WHERE id = ?", rows)
