"""A library that cannot be written, on a read-only disk or because it is somebody else's: why, and how it is read.

A database in WAL mode is read through `-wal` and `-shm`, which SQLite makes where they are missing. Where it may not:

- Both are there, because somebody writes or was killed: they are used as they are. All rows are seen, later ones, too.
- Neither is there, because the last user closed it: the database is whole and is opened as `immutable`, without locks.
  Such a connection would not notice anybody who begins to write just then: it is used for one look and no longer.
- Only `-wal` is there, as after a copy by hand: its rows cannot be read, and without them the others may be torn.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from library.errors import LibraryError


def refusal(path: Path) -> str:
    """Why the library at `path` cannot be written; empty where it can."""
    disk = f"the disk of {path.name} is read-only"
    try:
        for place in (path.parent, path):
            if place.exists() and not os.access(place, os.W_OK):
                return disk if os.statvfs(place).f_flag & os.ST_RDONLY else f"no permission to write {place}"
        os.close(opened_lock(path))
    except PermissionError:
        return f"no permission to write {_lock(path)}"
    except OSError as error:  # ext4 that found itself damaged is mounted as before, but lets nobody write
        gone = f"the disk of {path.name} does not answer: {os.strerror(errno.EIO)}"  # as when its stick was pulled
        return {errno.EROFS: disk, errno.EIO: gone}.get(error.errno or 0, "")
    return ""


def opened_lock(path: Path) -> int:
    """A descriptor of the lock file of the library at `path`. Raises: OSError."""
    return os.open(_lock(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _lock(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def connected(path: Path, why: str, version: int, timeout_s: float) -> sqlite3.Connection:
    """Connect for one look at a library of this version that cannot be written, because of `why`.

    Raises: LibraryError, sqlite3.Error.
    """
    if not path.exists():
        raise LibraryError(f"{path} is not there and cannot be made: {why}")
    path = path.resolve()  # SQLite keeps -wal and -shm beside the file that a link leads to
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
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != version:
            raise LibraryError(f"{path}: of version {found}, this is {version}, and it cannot be made anew: {why}")
    except BaseException:
        connection.close()
        raise
    return connection
