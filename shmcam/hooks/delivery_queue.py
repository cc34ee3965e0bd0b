"""The events that wait for their delivery, in a SQLite file: they survive a kill -9 of this process.

One row per event and hook. With the rows of an event the id of that event is written, in one transaction, so that a
process that is started again asks the hub for what came since, and takes nothing twice. A file that cannot be used is
put aside. While the disk takes nothing the file stays as it is, and what is new waits in memory, with the same limits.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from msgspec import Struct

from shmcam.control.messages import EventId
from shmcam.runtime.clock import utc_offset_ns

log = logging.getLogger(__name__)

PICTURES_BYTES_MAX = 64 * 1024 * 1024
"""Pictures of all waiting events together; beyond it the oldest go out without."""

STEP_NS = 1_000_000_000
"""A difference of both clocks that was set, and has not drifted."""

BUSY_S = 2.0
"""The longest wait for another process that reads the file."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    hook TEXT NOT NULL,
    created_utc_s REAL NOT NULL,
    payload BLOB NOT NULL,
    picture BLOB
);
CREATE INDEX IF NOT EXISTS deliveries_by_hook ON deliveries (hook, number);
CREATE TABLE IF NOT EXISTS seen (run TEXT, sender INTEGER, announced_ns INTEGER, PRIMARY KEY (run, sender));
"""


class Delivery(Struct, frozen=True):
    """One event for one hook."""

    hook: str
    payload: bytes
    """JSON, as payload.to_json makes it."""
    picture: bytes | None = None
    """JPEG of the time of the event."""
    created_utc_s: float = 0.0
    number: int = 0
    """Its row."""


class DeliveryQueue:
    """The waiting deliveries; safe from any thread, a context manager."""

    def __init__(self, path: Path, run: str) -> None:
        """`run` names this run of the service: the ids of events mean nothing in another."""
        self._run = run
        self._lock = threading.Lock()
        self.problem = ""
        """The reason why new events wait in memory only; empty: all are on the disk."""
        self._is_closed = False
        self._memory = _connect(":memory:")
        """What the file does not take."""
        self._removed: set[int] = set()
        """Rows that are still in the file, which could not be written."""
        self._path = path
        self._file = self._open(path)
        """None: the file cannot be opened."""
        self._offset_ns = utc_offset_ns()
        """Wall clock minus sensor clock, by which the times of the rows were taken."""
        self._number = max(self._query("SELECT coalesce(max(number), 0) FROM deliveries"))[0]
        """The newest row; a row keeps its number on its way from memory into the file."""
        if self._file is None:
            self._number = time.time_ns() // 1000  # later than every row of the file that is opened in the end

    def _open(self, path: Path) -> sqlite3.Connection | None:
        for _ in range(2):
            try:
                return _connect(str(path))
            except sqlite3.OperationalError as problem:  # no room, no right: another file is no better
                self._tell(problem)
                return None
            except sqlite3.DatabaseError as problem:
                aside = path.with_name(f"{path.name}.damaged")
                log.error("%s is no queue, put aside as %s: %s", path, aside.name, problem)
                with suppress(OSError):
                    path.replace(aside)
        self._tell("the file is damaged and cannot be put aside")
        return None

    def _tell(self, problem: object) -> None:
        before, self.problem = self.problem, f"the queue is in memory only: {problem}"
        if self.problem != before:
            log.error("%s", self.problem)

    def retry(self) -> None:
        """Brings what waits in memory to the disk if it takes it again; call it now and then."""
        with self._lock:
            if not self.problem or self._is_closed:
                return
            if self._file is None:
                self._file = self._open(self._path)
            self._write(lambda _database: Counter())

    def _query(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Returns the rows of both, the file and the memory."""
        databases = (self._file, self._memory) if self._file else (self._memory,)
        return [row for database in databases for row in database.execute(query, values)]

    def _write(self, change: Callable[[sqlite3.Connection], Counter[str]]) -> tuple[Counter[str], bool]:
        """Makes a change in the file, or in memory while the disk takes nothing.

        Returns its counts, and False if it is not in the file. The caller holds the lock.
        """
        if self._file is not None:
            try:
                with self._file as database:
                    if self.problem:
                        self._write_back(database)
                    counts = change(database)
            except sqlite3.Error as problem:
                self._tell(problem)
            else:
                if self.problem:
                    log.info("the queue is on the disk again")
                    self.problem, self._removed = "", set()
                    with self._memory as memory:
                        memory.executescript("DELETE FROM deliveries; DELETE FROM seen")
                return counts, True
        with self._memory as memory:
            return change(memory), self._file is None

    def _write_back(self, file: sqlite3.Connection) -> None:
        """Brings the file up to date, in the transaction of the next change."""
        file.executemany("DELETE FROM deliveries WHERE number = ?", [(number,) for number in self._removed])
        rows = self._memory.execute("SELECT * FROM deliveries")
        file.executemany("INSERT INTO deliveries VALUES (?, ?, ?, ?, ?)", rows)
        file.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", self._memory.execute("SELECT * FROM seen"))

    # ---- events

    def get_since_ns(self) -> int:
        """Returns the announcement of the newest event that was taken in this run; 0: none was."""
        query = "SELECT coalesce(max(announced_ns), 0) FROM seen WHERE run = ?"
        with self._lock:
            return int(max(self._query(query, (self._run,)))[0])

    def is_seen(self, event_id: EventId) -> bool:
        """Returns whether an event, or a later one of the same process, was taken before."""
        query = "SELECT 1 FROM seen WHERE run = ? AND sender = ? AND announced_ns >= ?"
        with self._lock:
            return bool(self._query(query, (self._run, *event_id)))

    def put(self, deliveries: Sequence[Delivery], event_id: EventId | None, queue_max: dict[str, int]) -> Counter[str]:
        """Adds the deliveries of one event, all or none; `queue_max` by hook.

        Returns the numbers of older ones dropped to make room, by hook.
        """
        with self._lock:
            self._follow_clock()
            rows = []
            for item in deliveries:
                self._number += 1
                created_utc_s = item.created_utc_s or time.time()
                rows.append((self._number, item.hook, created_utc_s, item.payload, item.picture))

            def insert(database: sqlite3.Connection) -> Counter[str]:
                dropped: Counter[str] = Counter()
                database.executemany("INSERT INTO deliveries VALUES (?, ?, ?, ?, ?)", rows)
                for hook in {item.hook for item in deliveries}:
                    dropped[hook] = database.execute(
                        "DELETE FROM deliveries WHERE hook = ? AND number NOT IN "
                        "(SELECT number FROM deliveries WHERE hook = ? ORDER BY number DESC LIMIT ?)",
                        (hook, hook, queue_max[hook]),
                    ).rowcount
                if any(item.picture for item in deliveries):
                    self._drop_pictures(database)
                if event_id is not None:
                    database.execute("DELETE FROM seen WHERE run != ?", (self._run,))
                    database.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (self._run, *event_id))
                return dropped

            return self._write(insert)[0]

    def _follow_clock(self) -> None:
        """Moves the times of all rows with the wall clock: one that NTP sets late makes no event older.

        The caller holds the lock.
        """
        step_ns = utc_offset_ns() - self._offset_ns
        if abs(step_ns) < STEP_NS:
            return
        log.info("the clock was set by %+.0f s, what waits is as old as before", step_ns / 1e9)
        self._offset_ns += step_ns
        query = "UPDATE deliveries SET created_utc_s = created_utc_s + ?"
        self._write(lambda database: Counter(moved=database.execute(query, (step_ns / 1e9,)).rowcount))

    def _drop_pictures(self, database: sqlite3.Connection) -> None:
        query = "SELECT number, length(picture) FROM deliveries WHERE picture IS NOT NULL ORDER BY number DESC"
        total = 0
        for number, size_bytes in database.execute(query).fetchall():
            total += size_bytes
            if total > PICTURES_BYTES_MAX:
                database.execute("UPDATE deliveries SET picture = NULL WHERE number = ?", (number,))

    # ---- deliveries

    def find_first(self, hook: str) -> Delivery | None:
        """Returns the oldest delivery of a hook; its age is by the present wall clock."""
        with self._lock:
            self._follow_clock()
            query = "SELECT number FROM deliveries WHERE hook = ? ORDER BY number LIMIT ?"
            numbers = {number for (number,) in self._query(query, (hook, len(self._removed) + 1))} - self._removed
            rows = self._query(f"{SELECT} WHERE number = ?", (min(numbers),)) if numbers else []
        return Delivery(*rows[0]) if rows else None

    def remove(self, number: int) -> bool:
        """Removes a delivery. Returns False if it may come again after a restart, as the disk takes nothing.

        So may one that is done only after the queue was closed, at the end of the process.
        """
        with self._lock:
            if self._is_closed:
                return False
            query = "DELETE FROM deliveries WHERE number = ?"
            is_written = self._write(lambda database: Counter(removed=database.execute(query, (number,)).rowcount))[1]
            if not is_written:
                self._removed.update(
                    row[0] for row in self._query("SELECT number FROM deliveries WHERE number = ?", (number,))
                )
            return is_written

    def count(self) -> dict[str, int]:
        """Returns the number of waiting deliveries by hook."""
        with self._lock:
            counts: Counter[str] = Counter()
            for hook, number_of_rows in self._query("SELECT hook, count(*) FROM deliveries GROUP BY hook"):
                counts[hook] += number_of_rows
            for number in self._removed:
                counts.subtract(
                    hook for (hook,) in self._query("SELECT hook FROM deliveries WHERE number = ?", (number,))
                )
        return dict(+counts)

    def remove_others(self, hooks: Iterable[str]) -> int:
        """Removes the deliveries of hooks that config.toml has no more. Returns their number."""
        gone = self.count().keys() - set(hooks)
        query = "DELETE FROM deliveries WHERE hook = ?"
        with self._lock:
            return self._write(
                lambda database: Counter({hook: database.execute(query, (hook,)).rowcount for hook in gone})
            )[0].total()

    def __enter__(self) -> DeliveryQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_closed = True
            self._memory.close()
            if self._file is not None:
                self._file.close()


SELECT = "SELECT hook, payload, picture, created_utc_s, number FROM deliveries"


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # survives kill -9; a power cut may cost the last second
        database.executescript(SCHEMA)
        database.execute("PRAGMA journal_size_limit = 4194304")
        with database:
            database.execute("DELETE FROM deliveries WHERE number < 0")  # fails now, not later, on a disk without room
    except sqlite3.Error:
        database.close()
        raise
    return database
