"""Folders on a disk of their own, remembered, so that a disk that is not mounted is not taken for an emptied folder.

A folder that lay on another device than the database and now lies on the same one is a mount point without its disk.
Devices are compared with each other, never with those of an earlier day: their numbers change from boot to boot.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from shmcam.library.database import Database, explain_not_writable, to_stored_path
from shmcam.library.errors import LibraryError

TABLE = "CREATE TABLE IF NOT EXISTS mounts (folder TEXT PRIMARY KEY)"
"""Made where it is used: it came after the other tables, and a new VERSION would set every library aside."""

T = TypeVar("T")


class Mounts:
    """The disks of one catalogue's folders."""

    def __init__(self, database: Database, folders: Sequence[Path], root: Path) -> None:
        """`root`: the database's folder, which files in a mount point without its disk share a device with."""
        self._database = database
        self._folders = folders
        self._root = root
        self._known: frozenset[Path] | None = None

    def remember(self) -> None:
        """Takes note of the folders that lie on a disk of their own now, where anything can be noted.

        Raises: sqlite3.Error, LibraryError.
        """
        if explain_not_writable(self._database.path):
            return
        apart = [(to_stored_path(folder, self._root),) for folder in self._folders if self._is_mounted(folder)]
        self._write(lambda db: db.executemany("INSERT OR IGNORE INTO mounts VALUES (?)", apart))
        self._known = None

    def forget(self) -> None:
        """From now on the folders are what is there. Raises: sqlite3.Error, LibraryError."""
        self._write(lambda db: db.execute("DELETE FROM mounts"))

    def is_away(self, folder: Path) -> bool:
        """Tells whether a file in `folder` would land in a mount point whose disk is not there."""
        known = self._known if self._known is not None else self._refresh()
        own = next((one for one in known if folder.is_relative_to(one)), None)
        if own is None and any(folder.is_relative_to(one) and self._is_mounted(one) for one in self._folders):
            self.remember()  # made since the last look at all files, as by the first one of a new disk
        if own is None or self._is_mounted(own):
            return False
        return own in self._refresh()  # before anything is refused: somebody may have accepted it meanwhile

    def _refresh(self) -> frozenset[Path]:
        """Returns the stored folders; the ones known before, while the library cannot be read."""
        try:
            self._known = self._read_stored()
        except (LibraryError, sqlite3.Error, OSError):
            if not explain_not_writable(self._database.path):
                raise
            return self._known or frozenset()
        return self._known

    def _read_stored(self) -> frozenset[Path]:
        places = self._database.read(_read_folders)
        return frozenset(folder for folder in self._folders if to_stored_path(folder, self._root) in places)

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
            return error.errno == errno.EIO  # it is there and does not answer: writing will say so


def _read_folders(db: sqlite3.Connection) -> set[str]:
    made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'mounts'").fetchone()
    return {row["folder"] for row in db.execute("SELECT folder FROM mounts")} if made else set()
