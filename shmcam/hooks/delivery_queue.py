"""The events that wait for their delivery, in a SQLite file: they survive a kill -9 of this process.

One row per event and hook. With the rows of an event the id of that event is written, in one transaction, so that a
process that is started again asks the hub for what came since, and takes nothing twice. A file that cannot be used is
put aside; on a disk that takes nothing the queue goes on in memory and says so.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from shmcam.control.messages import EventId

log = logging.getLogger(__name__)

PICTURES_BYTES_MAX = 64 * 1024 * 1024
"""Pictures of all waiting events together; beyond it the oldest go out without."""

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


@dataclass(frozen=True, slots=True)
class Delivery:
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
        """The reason why the queue is in memory only; empty: it is on the disk."""
        self._is_closed = False
        self._database = self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        for _ in range(2):
            try:
                return _connect(str(path))
            except sqlite3.DatabaseError as problem:
                if isinstance(problem, sqlite3.OperationalError):  # no room, no right: another file is no better
                    return self._open_in_memory(problem)
                aside = path.with_name(f"{path.name}.damaged")
                log.error("%s is no queue, put aside as %s: %s", path, aside.name, problem)
                with suppress(OSError):
                    path.replace(aside)
        return self._open_in_memory("the file is damaged and cannot be put aside")

    def _open_in_memory(self, problem: object) -> sqlite3.Connection:
        self.problem = f"the queue is in memory only: {problem}"
        log.error("%s", self.problem)
        return _connect(":memory:")

    # ---- events

    def get_since_ns(self) -> int:
        """Returns the announcement of the newest event that was taken in this run; 0: none was."""
        with self._lock:
            row = self._database.execute("SELECT max(announced_ns) FROM seen WHERE run = ?", (self._run,)).fetchone()
        return int(row[0] or 0)

    def is_seen(self, event_id: EventId) -> bool:
        """Returns whether an event, or a later one of the same process, was taken before."""
        query = "SELECT 1 FROM seen WHERE run = ? AND sender = ? AND announced_ns >= ?"
        with self._lock:
            return self._database.execute(query, (self._run, *event_id)).fetchone() is not None

    def put(self, deliveries: Sequence[Delivery], event_id: EventId | None, queue_max: dict[str, int]) -> int:
        """Adds the deliveries of one event, all or none. Returns the number of older ones dropped to make room."""
        try:
            return self._put(deliveries, event_id, queue_max)
        except sqlite3.Error as problem:
            waiting = self._rescue()
            with self._lock:
                self._database.close()
                self._database = self._open_in_memory(problem)
            return self._put([*waiting, *deliveries], event_id, queue_max)

    def _put(self, deliveries: Sequence[Delivery], event_id: EventId | None, queue_max: dict[str, int]) -> int:
        dropped = 0
        with self._lock, self._database as database:
            for item in deliveries:
                database.execute(
                    "INSERT INTO deliveries (hook, created_utc_s, payload, picture) VALUES (?, ?, ?, ?)",
                    (item.hook, item.created_utc_s or time.time(), item.payload, item.picture),
                )
            for hook in {item.hook for item in deliveries}:
                dropped += database.execute(
                    "DELETE FROM deliveries WHERE hook = ? AND number NOT IN "
                    "(SELECT number FROM deliveries WHERE hook = ? ORDER BY number DESC LIMIT ?)",
                    (hook, hook, queue_max.get(hook, 1)),
                ).rowcount
            if any(item.picture for item in deliveries):
                self._drop_pictures(database)
            if event_id is not None:
                database.execute("DELETE FROM seen WHERE run != ?", (self._run,))
                database.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (self._run, *event_id))
        return dropped

    def _drop_pictures(self, database: sqlite3.Connection) -> None:
        query = "SELECT number, length(picture) FROM deliveries WHERE picture IS NOT NULL ORDER BY number DESC"
        total = 0
        for number, size_bytes in database.execute(query).fetchall():
            total += size_bytes
            if total > PICTURES_BYTES_MAX:
                database.execute("UPDATE deliveries SET picture = NULL WHERE number = ?", (number,))

    def _rescue(self) -> list[Delivery]:
        """Returns what can still be read of a file that cannot be written any more."""
        with suppress(sqlite3.Error), self._lock:
            return [_to_delivery(row) for row in self._database.execute(f"{SELECT} ORDER BY number")]
        return []

    # ---- deliveries

    def find_first(self, hook: str) -> Delivery | None:
        """Returns the oldest delivery of a hook."""
        with self._lock:
            row = self._database.execute(f"{SELECT} WHERE hook = ? ORDER BY number LIMIT 1", (hook,)).fetchone()
        return _to_delivery(row) if row else None

    def remove(self, number: int) -> None:
        """Removes a delivery; one that cannot be removed from the disk comes again, at least once as promised.

        So does one that is done only after the queue was closed, at the end of the process.
        """
        if self._is_closed:
            return
        try:
            with self._lock, self._database as database:
                database.execute("DELETE FROM deliveries WHERE number = ?", (number,))
        except sqlite3.Error as problem:
            waiting = [item for item in self._rescue() if item.number != number]
            with self._lock:
                self._database.close()
                self._database = self._open_in_memory(problem)
            self._put(waiting, None, dict.fromkeys({item.hook for item in waiting}, len(waiting)))

    def count(self) -> dict[str, int]:
        """Returns the number of waiting deliveries by hook."""
        with self._lock:
            return dict(self._database.execute("SELECT hook, count(*) FROM deliveries GROUP BY hook").fetchall())

    def remove_others(self, hooks: Iterable[str]) -> int:
        """Removes the deliveries of hooks that config.toml has no more. Returns their number."""
        gone = self.count().keys() - set(hooks)
        with self._lock, self._database as database:
            return sum(database.execute("DELETE FROM deliveries WHERE hook = ?", (hook,)).rowcount for hook in gone)

    def __enter__(self) -> DeliveryQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_closed = True
            self._database.close()


SELECT = "SELECT hook, payload, picture, created_utc_s, number FROM deliveries"


def _to_delivery(row: tuple[str, bytes, bytes | None, float, int]) -> Delivery:
    return Delivery(*row)


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
