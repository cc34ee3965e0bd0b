"""The errors of the library, by who must act."""

from __future__ import annotations


class LibraryError(Exception):
    """The base of all errors of this package."""


class NoSuchEntry(LibraryError, LookupError):
    """No row has this number; the caller's fault."""


class NothingThere(LibraryError, ValueError):
    """The library holds nothing that fits a valid request."""


class NotWritable(LibraryError, OSError):
    """The library, or a place for files, cannot be written now: full, locked, read-only, not mounted, another user's.

    The one class for it: sqlite3's errors do not leave this package, and a disk that refuses is an OSError, too.
    """


class LibraryBusy(NotWritable):
    """Another process holds the library for longer than can be waited; it passes by itself."""


class EntryProtected(LibraryError, PermissionError):
    """The file is protected; a person must unprotect it first."""


class NoRoom(NotWritable):
    """The disk is too full and nothing more may be deleted."""


class ArchiveDamaged(LibraryError, ValueError):
    """An archive does not hold what its manifest lists."""
