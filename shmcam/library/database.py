"""Opens, locks and repairs the library's SQLite file; converts entries to rows and back; counts library time.

The file is in WAL mode, so that readers never wait for the one writer. Commits are not fsynced one by one
(`synchronous=NORMAL`): after a power cut the last rows may be missing, and their files are adopted at the next start.
Every use holds a shared lock on `<name>.lock`. Renaming a damaged file holds the lock alone, so that no process can
commit into a file that has just been renamed.

A library that cannot be written (a read-only disk, another user's file) is still read (mode=ro). SQLite reads a
database in WAL mode through `-wal` and `-shm` and makes them if they are missing. If it may not:

- Both exist, because a process writes or was killed: they are used as they are. All rows are seen, later ones, too.
- Neither exists, because the last user closed it: the database is whole and is opened as `immutable`, without locks.
  Such a connection would not see a process that begins to write then, so it is used for one read and closed.
- Only `-wal` exists, as after a copy by hand: its rows cannot be read, and without them the others may be torn.

Library time is the age of files that no jump of the wall clock changes. It counts seconds that really passed: within
one boot by the kernel's clock, which never steps. The time while the machine was off is only known from the wall
clock; at most one day of it counts at a time, because a clock that starts wrong would else age all files by years and
retention would delete them. The price: files on a machine that was off for a month live up to a month longer.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from shmcam.library.entry import Entry
from shmcam.library.errors import LibraryBusy, LibraryError, NotWritable
from shmcam.runtime.atomic_files import wait_for_flock
from shmcam.runtime.procfs import boot_id


def explain_not_writable(path: Path) -> str:
    """Returns the reason why the library at `path` cannot be written; empty where it can."""
    disk = f"the disk of {path.name} is read-only"
    try:
        if path.exists() and not path.is_file():  # SQLite would say no more than "unable to open"
            return f"{path} is no regular file; move it away"
        for place in (path.parent, path):
            if place.exists() and not os.access(place, os.W_OK):
                return disk if os.statvfs(place).f_flag & os.ST_RDONLY else f"no permission to write {place}"
        os.close(open_lock(path))
    except PermissionError:
        return f"no permission to write {_lock_path_of(path)}"
    except OSError as error:  # an ext4 with errors stays mounted and refuses writes
        silent = f"the disk of {path.name} does not answer: {os.strerror(errno.EIO)}"  # as after its stick was pulled
        return {errno.EROFS: disk, errno.EIO: silent}.get(error.errno or 0, "")
    return ""


def open_lock(path: Path) -> int:
    """Returns a descriptor of the lock file of the library at `path`. Raises: OSError."""
    return os.open(_lock_path_of(path), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o640)


def _lock_path_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def connect_read_only(path: Path, why: str, version: int, timeout_s: float) -> sqlite3.Connection:
    """Connects for one look at a library of this version that cannot be written, because of `why`.

    Raises: LibraryError, sqlite3.Error.
    """
    if not path.is_file():
        raise LibraryError(why if path.exists() else f"{path} is not there and cannot be made: {why}")
    path = path.resolve()  # SQLite keeps -wal and -shm beside the target of a link
    wal, shm = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    for place in (path, wal, shm):
        if place.exists() and not os.access(place, os.R_OK):
            raise LibraryError(f"{place}: no permission to read it")
    options = "mode=ro"
    if not (wal.exists() and shm.exists()):
        if wal.exists() and wal.stat().st_size:
            raise LibraryError(f"{wal}: holds rows that are read only where {shm.name} can be made, but {why}")
        options += "&immutable=1"
    address = f"{path.absolute().as_uri()}?{options}"
    connection = sqlite3.connect(address, timeout=timeout_s, isolation_level=None, check_same_thread=False, uri=True)
    connection.row_factory = sqlite3.Row
    try:
        stored = connection.execute("PRAGMA user_version").fetchone()[0]
        if stored != version:
            raise LibraryError(f"{path}: of version {stored}, this is {version}, and it cannot be made anew: {why}")
        if missing := _find_missing_columns(connection):  # this connection sees the table as it will be
            added = ", ".join(f"'' AS {name}" for name in missing)
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"CREATE TEMP VIEW entries AS SELECT *, {added} FROM main.entries")  # noqa: S608
    except BaseException:
        connection.close()
        raise
    return connection


log = logging.getLogger(__name__)

VERSION = 1
"""PRAGMA user_version; a file of another version is rebuilt."""

ADDED_COLUMNS = {"uploaded": "TEXT NOT NULL DEFAULT ''"}
"""Columns (text, empty by default) that a file of an earlier release lacks.

They are added to it as it is opened, so that rows keep number and age. That release reads and writes the file all the
same: it does not name the column, and the default stands in it.
"""

BUSY_S = 10.0
"""Seconds that a writer waits for another process' transaction; ours take about a millisecond."""
HURRY_S = 0.5
"""The same where a file is being saved, which is worth more than its row."""

BY_KIND = "CREATE INDEX IF NOT EXISTS by_kind ON entries (kind)"
"""For the newest rows of some kinds: `by_group` would sort all of them. A file of an earlier release gets it, too."""

TABLES = f"""
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of adding: the one order no clock can change
    kind TEXT NOT NULL, camera TEXT NOT NULL, path TEXT NOT NULL UNIQUE,
    started_utc_ns INTEGER NOT NULL, duration_s REAL NOT NULL, bytes INTEGER NOT NULL,
    first_frame INTEGER NOT NULL, last_frame INTEGER NOT NULL, frames INTEGER NOT NULL, drops INTEGER NOT NULL,
    score REAL, trigger TEXT NOT NULL, label TEXT NOT NULL, companions TEXT NOT NULL,
    protected INTEGER NOT NULL, triggered INTEGER NOT NULL, added_s REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_group ON entries (kind, protected, bytes);
{BY_KIND};
CREATE INDEX IF NOT EXISTS by_turn ON entries (protected, triggered, id);
CREATE INDEX IF NOT EXISTS by_time ON entries (started_utc_ns);
CREATE TABLE IF NOT EXISTS ages (one INTEGER PRIMARY KEY CHECK (one = 1), library_s REAL NOT NULL,
    boot TEXT NOT NULL, up_s REAL NOT NULL, wall_s REAL NOT NULL);
"""

T = TypeVar("T")


class Database:
    """One process' connection, for several threads; it opens the file anew after it was renamed."""

    def __init__(self, path: Path, repair: Callable[[], object], notice_replaced: Callable[[], None]) -> None:
        """`repair` fills an empty database after a damaged one was renamed, or one in use was removed.

        `notice_replaced` is called when another file than before is used: it may lack rows. A process that knew of
        none before fills nothing, and a repair may fail.
        """
        self.path = path
        self._repair, self._notice_replaced = repair, notice_replaced
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        self._hurry = threading.local()
        self._make_folder()

    def require_writable(self) -> None:
        """Raises NotWritable with the reason if the library cannot be written."""
        if why := explain_not_writable(self.path):
            raise NotWritable(f"{self.path} cannot be written: {why}")

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in one transaction: all of it or nothing. Raises: NotWritable, LibraryError."""
        self.require_writable()

        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return result

        return self.read(transaction)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` on the connection; a damaged file is set aside and rebuilt, then `work` runs once more.

        Raises: NotWritable, LibraryError.
        """
        try:
            return self._read_or_repair(work)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):  # our SQL is wrong
            raise
        except sqlite3.Error as error:
            raise (LibraryBusy if _is_locked(error) else NotWritable)(f"{self.path}: {_reason_of(error)}") from error

    def _read_or_repair(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._own_connection():
            if why := explain_not_writable(self.path):
                self.close()
                with closing(connect_read_only(self.path, why, VERSION, BUSY_S)) as connection:
                    return work(connection)
            for attempt in (1, 2):
                try:
                    with self._lock(fcntl.LOCK_SH):
                        connection = self._open()
                        connection.execute(f"PRAGMA busy_timeout = {int(self._busy_s * 1000)}")
                        return work(connection)
                except sqlite3.DatabaseError as error:
                    if not _is_locked(error):
                        self.close()  # opened on a disk that was read-only for a moment, it stays read-only
                    if attempt == 2 or not _is_damage(error):
                        raise
                    self.set_aside(str(error))
            raise AssertionError("unreachable")

    @contextmanager
    def _own_connection(self) -> Iterator[None]:
        """Keeps other threads off the connection. Raises: LibraryBusy where one of them takes long and this hurries."""
        if not self._mutex.acquire(timeout=self._busy_s if self._is_in_hurry else -1):
            raise LibraryBusy(f"{self.path}: used by another thread for {self._busy_s:g} s")
        try:
            yield
        finally:
            self._mutex.release()

    @contextmanager
    def hurry(self) -> Iterator[None]:
        """Waits at most HURRY_S for others inside the block, and repairs nothing: that may take minutes."""
        before, self._hurry.busy_s = self._busy_s, HURRY_S
        try:
            yield
        finally:
            self._hurry.busy_s = before

    @property
    def _busy_s(self) -> float:
        """Seconds that this thread waits for other processes."""
        return float(getattr(self._hurry, "busy_s", BUSY_S))

    @property
    def _is_in_hurry(self) -> bool:
        return self._busy_s == HURRY_S

    def _repair_now(self) -> None:
        """Fills a new file from the files on disk; in a hurry that is left to the exporter, which looks for it."""
        if not self._is_in_hurry:
            self._repair()

    def set_aside(self, reason: str) -> None:
        """Renames the damaged file out of the way and rebuilds; of several processes only one does it."""
        seen, self._inode = self._inode, -1
        self.close()
        with self._lock(fcntl.LOCK_EX):
            if _inode_of(self.path) == seen:
                aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d_%H%M%S')}-{os.getpid()}")
                log.error("library set aside path=%s as=%s reason=%s", self.path, aside.name, reason)
                for ending in ("", "-wal", "-shm"):
                    with suppress(FileNotFoundError):
                        self.path.with_name(self.path.name + ending).rename(aside.with_name(aside.name + ending))
        self._notice_replaced()
        self._repair_now()

    def is_replaced(self) -> bool:
        """Tells whether the file that was opened last is no longer in its place. Raises: OSError."""
        return self._inode > 0 and _inode_of(self.path) != self._inode

    def close(self) -> None:
        """Gives the file back."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    # ---- inside

    def _make_folder(self) -> None:
        """Makes the folder of the file; one on a disk that is away comes later, and SQLite says that until then."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def _open(self) -> sqlite3.Connection:
        is_replaced = self.is_replaced()
        if self._connection is not None and not is_replaced:
            return self._connection
        is_lost = is_replaced and not self.path.exists()
        self.close()
        self._make_folder()
        connection = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
        self._inode = _inode_of(self.path)
        try:
            _retry_while_locked(lambda: self._prepare(connection), self._busy_s)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if is_replaced:
            self._notice_replaced()
        if is_lost:
            log.error("library removed while in use, made anew path=%s", self.path)
            self._repair_now()
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"library version {version}, this is {VERSION}")
        result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise sqlite3.DatabaseError(result)
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={VERSION}; COMMIT;")
        else:
            connection.execute(BY_KIND)
        for name, kind in _find_missing_columns(connection).items():
            try:
                connection.execute(f"ALTER TABLE entries ADD COLUMN {name} {kind}")
            except sqlite3.OperationalError:
                if _find_missing_columns(connection):  # else another process added it in between
                    raise

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        """Holds the lock file; bounded, because a stopped process might hold it. Raises: NotWritable."""
        descriptor = open_lock(self.path)
        try:
            if not wait_for_flock(descriptor, how, self._busy_s):
                raise LibraryBusy(f"{self.path}.lock: held by another process for {self._busy_s:g} s")
            yield
        finally:
            os.close(descriptor)


def _find_missing_columns(connection: sqlite3.Connection) -> dict[str, str]:
    """Returns the columns that a later release added, with their types, where the table does not have them yet."""
    present = {row["name"] for row in connection.execute("PRAGMA table_info(entries)")}
    return {name: kind for name, kind in ADDED_COLUMNS.items() if present and name not in present}


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tells whether the file is at fault: not when it is locked, the disk is full, or our SQL is wrong."""
    if isinstance(error, sqlite3.OperationalError):
        # a table or column: another program's file, one that was edited, or an emptied one
        return "no such" in str(error) or "no column named" in str(error)
    return not isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError))


def _is_locked(error: sqlite3.Error) -> bool:
    """Tells whether another process just holds the file."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _reason_of(error: sqlite3.Error) -> str:
    """Returns the error in words; WAL shares memory through the -shm file, which some FUSE and network disks cannot."""
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR_SHM"):
        return "its file system cannot share memory between processes; set paths.library to a file on another disk"
    return str(error)


def _retry_while_locked(work: Callable[[], None], busy_s: float) -> None:
    """Runs `work` again while the file is locked: SQLite does not wait when two processes switch a new file to WAL."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            work()
            return
        except sqlite3.OperationalError as error:
            if not _is_locked(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _inode_of(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


MAX_OFF_S = 86_400.0
"""Seconds; the longest time that counts while a machine was off."""


CLOCK_WRITE_S = 10.0
"""Seconds between two stored readings: a power cut makes files younger by so much at most."""


class ClockReading(Struct, frozen=True):
    """The clocks at one moment."""

    boot: str
    """The kernel's identity of this boot."""
    up_s: float
    """Seconds since that boot, sleep included (CLOCK_BOOTTIME)."""
    wall_s: float
    """Seconds since 1970 by the wall clock."""


def read_clock() -> ClockReading:
    """Reads the clocks."""
    return ClockReading(boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def advance_library_s(library_s: float, before: ClockReading | None, now: ClockReading) -> float:
    """Returns library time now; `library_s` is that of the reading `before`."""
    if before is None:
        return library_s
    if before.boot == now.boot:
        return library_s + max(0.0, now.up_s - before.up_s)
    off_s = now.wall_s - before.wall_s - now.up_s
    return library_s + now.up_s + min(max(0.0, off_s), MAX_OFF_S)


COLUMNS = Entry.__struct_fields__
COLUMN_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("id", "started_utc_ns", "bytes", "first_frame", "last_frame", "frames", "drops"), int),
    **dict.fromkeys(("kind", "camera", "trigger", "label", "uploaded"), str),
    "duration_s": (int, float),
    "score": (int, float, type(None)),
}
VALUE_TYPES = [COLUMN_TYPES.get(name, object) for name in COLUMNS]
STORED = [name for name in COLUMNS if name != "id"]
_INSERT = (
    f"INSERT INTO entries ({', '.join(STORED)}, triggered, added_s) "  # noqa: S608 - our own column names
    f"VALUES ({', '.join(':' + name for name in STORED)}, :triggered, :added_s) ON CONFLICT (path) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in STORED if name not in ("path", "protected"))
    + ", triggered = excluded.triggered, protected = max(protected, excluded.protected) RETURNING id, protected"
)


def insert(db: sqlite3.Connection, entry: Entry, root: Path, added_s: float) -> Entry:
    """Adds a row, or updates that of the same path. Returns: the entry with its number. Raises: sqlite3.Error."""
    values = {name: getattr(entry, name) for name in STORED}
    path = to_stored_path(entry.path, root)
    values |= {"path": path, "companions": json.dumps(entry.companions), "triggered": entry.is_triggered}
    number, protected = db.execute(_INSERT, {**values, "added_s": added_s}).fetchone()
    return replace(entry, path=root / path, id=number, protected=bool(protected))


def move(db: sqlite3.Connection, paths: Collection[tuple[int, Path]], root: Path) -> None:
    """Gives rows other paths; a row that has one already goes, its protection stays. Raises: sqlite3.Error."""
    for number, path in paths:
        stored = to_stored_path(path, root)
        has_protected = "EXISTS (SELECT 1 FROM entries WHERE path = ? AND protected)"
        db.execute(f"UPDATE entries SET protected = 1 WHERE id = ? AND {has_protected}", (number, stored))  # noqa: S608
        db.execute("UPDATE OR REPLACE entries SET path = ? WHERE id = ?", (stored, number))


def delete(db: sqlite3.Connection, numbers: Collection[int]) -> None:
    """Removes rows. Raises: sqlite3.Error."""
    db.executemany("DELETE FROM entries WHERE id = ?", [(number,) for number in numbers])


def entry_of(row: sqlite3.Row, root: Path) -> Entry:
    """Makes an entry of a row of COLUMNS.

    Raises: sqlite3.DatabaseError for one that somebody edited: SQLite checks no types.
    """
    values = dict(zip(COLUMNS, row, strict=True))  # by name each would be a search of the whole row
    try:
        values["path"] = root / values["path"]
        values["protected"] = bool(values["protected"])
        values["companions"] = () if values["companions"] == "[]" else tuple(json.loads(values["companions"]))
    except (TypeError, ValueError) as problem:
        raise sqlite3.DatabaseError(f"damaged row: {problem}") from None
    if not all(map(isinstance, values.values(), VALUE_TYPES)):
        wrong = next(name for name, kinds in COLUMN_TYPES.items() if not isinstance(values[name], kinds))
        raise sqlite3.DatabaseError(f"damaged row: {wrong} is {values[wrong]!r}"[:200])
    return Entry(**values)


def to_stored_path(path: Path, root: Path) -> str:
    """Returns a path as a row holds it: relative if it is inside the library, so that the whole tree may be moved."""
    path = path.absolute()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def advance_library_time(db: sqlite3.Connection) -> float:
    """Advances library time to now and returns it."""
    row = db.execute("SELECT * FROM ages").fetchone()
    before = ClockReading(row["boot"], row["up_s"], row["wall_s"]) if row else None
    now = read_clock()
    library_s = advance_library_s(row["library_s"] if row else 0.0, before, now)
    if before is not None and before.boot == now.boot and now.up_s - before.up_s < CLOCK_WRITE_S:
        return library_s
    db.execute("REPLACE INTO ages VALUES (1, ?, ?, ?, ?)", (library_s, now.boot, now.up_s, now.wall_s))
    return library_s
