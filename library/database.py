"""The SQLite file itself: its tables, its lock, and what happens when it is damaged.

WAL mode, so that readers never wait for the one writer of the moment. Commits are not fsynced one by one
(`synchronous=NORMAL`): after a power cut the last rows may be missing, and the files they told of are adopted on the
next start. Every use holds `<name>.lock` shared; setting a damaged file aside holds it alone, so that no process can
commit into a file that has just been renamed away. Where nothing can be written it is still read (`library.read_only`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from library.errors import LibraryError, NotWritable
from library.read_only import connected, opened_lock, refusal

log = logging.getLogger(__name__)

VERSION = 1
"""PRAGMA user_version; another number means another shmcam wrote it, and the file is rebuilt."""

BUSY_S = 10.0
"""Seconds a writer waits for another process' transaction; ours take about a millisecond."""

TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of adding: the one order no clock can change
    kind TEXT NOT NULL, camera TEXT NOT NULL, path TEXT NOT NULL UNIQUE,
    started_utc_ns INTEGER NOT NULL, duration_s REAL NOT NULL, bytes INTEGER NOT NULL,
    first_frame INTEGER NOT NULL, last_frame INTEGER NOT NULL, frames INTEGER NOT NULL, drops INTEGER NOT NULL,
    score REAL, trigger TEXT NOT NULL, label TEXT NOT NULL, companions TEXT NOT NULL,
    protected INTEGER NOT NULL, triggered INTEGER NOT NULL, added_s REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_group ON entries (kind, protected, bytes);
CREATE INDEX IF NOT EXISTS by_turn ON entries (protected, triggered, id);
CREATE INDEX IF NOT EXISTS by_time ON entries (started_utc_ns);
CREATE TABLE IF NOT EXISTS ages (one INTEGER PRIMARY KEY CHECK (one = 1), library_s REAL NOT NULL,
    boot TEXT NOT NULL, up_s REAL NOT NULL, wall_s REAL NOT NULL);
"""

T = TypeVar("T")


class Database:
    """One process' connection; safe to use from several threads; opens the file anew when it was set aside."""

    def __init__(self, path: Path, repair: Callable[[], object]) -> None:
        """`repair` fills an empty database after a damaged one was set aside, or one was removed under us."""
        self.path = path
        self._repair = repair
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        path.parent.mkdir(parents=True, exist_ok=True)

    def demand_writable(self) -> None:
        """Raises: NotWritable, saying why."""
        if why := refusal(self.path):
            raise NotWritable(f"{self.path} cannot be written: {why}")

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction: all of it or nothing. Raises: LibraryError, sqlite3.OperationalError."""
        self.demand_writable()

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
        """Run `work` on the connection; a damaged file is set aside and rebuilt, then `work` runs once more."""
        with self._mutex:
            if why := refusal(self.path):
                self.close()
                with closing(connected(self.path, why, VERSION, BUSY_S)) as connection:
                    return work(connection)
            for attempt in (1, 2):
                try:
                    with self._lock(fcntl.LOCK_SH):
                        return work(self._open())
                except sqlite3.DatabaseError as error:
                    if attempt == 2 or not _damage(error):
                        raise
                    self.set_aside(str(error))
            raise AssertionError("unreachable")

    def set_aside(self, reason: str) -> None:
        """Rename the damaged file out of the way and rebuild; of several processes only one does it."""
        seen, self._inode = self._inode, -1
        self.close()
        with self._lock(fcntl.LOCK_EX):
            if _inode(self.path) == seen:
                aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d_%H%M%S')}-{os.getpid()}")
                log.error("library set aside path=%s as=%s reason=%s", self.path, aside.name, reason)
                for ending in ("", "-wal", "-shm"):
                    with suppress(FileNotFoundError):
                        self.path.with_name(self.path.name + ending).rename(aside.with_name(aside.name + ending))
        self._repair()

    def close(self) -> None:
        """Give the file back."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    # ---- inside

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and _inode(self.path) == self._inode:
            return self._connection
        lost = self._inode > 0 and not self.path.exists()
        self.close()
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._inode = _inode(self.path)
        try:
            _patiently(lambda: self._prepare(connection))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if lost:
            log.error("library removed while in use, made anew from the files path=%s", self.path)
            self._repair()
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"library version {version}, this is {VERSION}")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={VERSION}; COMMIT;")

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        """Hold the lock file; bounded, because a stopped process might hold it. Raises: LibraryError."""
        descriptor = opened_lock(self.path)
        try:
            deadline = time.monotonic() + BUSY_S
            while True:
                try:
                    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise LibraryError(f"{self.path}.lock: held by another process for {BUSY_S:.0f} s") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)


def _damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is at fault: not when it is locked, the disk is full, or our SQL is wrong."""
    if isinstance(error, sqlite3.OperationalError):
        return "no such" in str(error)  # table or column: somebody else's file, or an emptied one
    return not isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError))


def _patiently(work: Callable[[], None]) -> None:
    """Two processes that switch a new file to WAL at once are told "locked" without SQLite's own waiting."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            work()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1
