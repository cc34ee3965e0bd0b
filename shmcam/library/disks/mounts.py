"""Remembers the folders on disks of their own, so that a disk that is not mounted is not taken for an empty folder.

A folder that was on another device than the database and now is on the same one is a mount point without its disk.
Devices are compared with each other, never with those of an earlier day: their numbers change from boot to boot.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from shmcam.library.database import Database, explain_not_writable, to_stored_path
from shmcam.library.errors import LibraryError

TABLE = "CREATE TABLE IF NOT EXISTS mounts (folder TEXT PRIMARY KEY)"
"""Made at its first use: it is newer than the other tables, and a new VERSION would rename every library."""

T = TypeVar("T")


class Mounts:
    """The disks of one catalogue's folders."""

    def __init__(self, database: Database, folders: Sequence[Path], root: Path) -> None:
        """`root`: the database's folder, on whose device a mount point without its disk is."""
        self._database = database
        self._folders = folders
        self._root = root
        self._known: frozenset[Path] | None = None

    def remember(self) -> None:
        """Takes note of the folders that lie on a disk of their own now, where anything can be noted.

        Raises: LibraryError.
        """
        if explain_not_writable(self._database.path):
            return
        apart = [(to_stored_path(folder, self._root),) for folder in self._folders if self._is_mounted(folder)]
        self._write(lambda db: db.executemany("INSERT OR IGNORE INTO mounts VALUES (?)", apart))
        self._known = None

    def forget(self) -> None:
        """Forgets the disks: the folders as they are now count from now on. Raises: LibraryError."""
        self._write(lambda db: db.execute("DELETE FROM mounts"))

    def is_away(self, folder: Path) -> bool:
        """Tells whether a file in `folder` would land in a mount point whose disk is not there."""
        known = self._known if self._known is not None else self._refresh()
        own = next((mount for mount in known if folder.is_relative_to(mount)), None)
        if own is None and any(folder.is_relative_to(mount) and self._is_mounted(mount) for mount in self._folders):
            self.remember()  # created since the last scan, as by the first file of a new disk
        if own is None or self._is_mounted(own):
            return False
        return own in self._refresh()  # read again: another process may have forgotten it meanwhile

    def _refresh(self) -> frozenset[Path]:
        """Returns the stored folders; those read before while the library cannot be read."""
        try:
            self._known = self._read_stored()
        except (LibraryError, OSError):
            if not explain_not_writable(self._database.path):
                raise
            return self._known or frozenset()
        return self._known

    def _read_stored(self) -> frozenset[Path]:
        places = {os.path.realpath(self._root / place) for place in self._database.read(_read_folders)}
        return frozenset(folder for folder in self._folders if os.path.realpath(folder) in places)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction(db: sqlite3.Connection) -> T:
            db.execute(TABLE)
            return work(db)

        return self._database.write(transaction)

    def _is_mounted(self, folder: Path) -> bool:
        """Tells whether a folder is on another device than the database."""
        try:
            return folder.stat().st_dev != self._root.stat().st_dev
        except OSError as error:
            return error.errno == errno.EIO  # it is mounted and does not answer: a write reports that


def _read_folders(db: sqlite3.Connection) -> set[str]:
    exists = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'mounts'").fetchone()
    return {row["folder"] for row in db.execute("SELECT folder FROM mounts")} if exists else set()
