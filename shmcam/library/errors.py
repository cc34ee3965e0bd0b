"""The errors of the library, by who must act."""

from __future__ import annotations


class LibraryError(Exception):
    """The base of all errors of this package."""


class NoSuchEntry(LibraryError, LookupError):
    """No row has this number; the caller's fault."""


class NothingThere(LibraryError, ValueError):
    """The library holds nothing that fits a valid request."""


class NotWritable(LibraryError):
    """The database is on a read-only disk or belongs to another user: it can be read, no more."""


class EntryProtected(LibraryError, PermissionError):
    """The file is protected; a person must unprotect it first."""


class NoRoom(LibraryError, OSError):
    """The disk is too full and nothing more may be deleted."""


class ArchiveDamaged(LibraryError, ValueError):
    """An archive does not hold what its manifest lists."""
