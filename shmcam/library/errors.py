"""The errors of the library, by who must act."""

from __future__ import annotations


class LibraryError(Exception):
    """Base of all errors of this package."""


class NoSuchEntry(LibraryError, LookupError):
    """No row with this number; the caller's fault."""


class NothingThere(LibraryError, ValueError):
    """The library holds nothing of what was asked for: a sound wish, but not possible now."""


class NotWritable(LibraryError):
    """The database is on a read-only disk or belongs to another user: it can be read, no more."""


class EntryProtected(LibraryError, PermissionError):
    """The file is protected; a person must unprotect it first."""


class NoRoom(LibraryError, OSError):
    """Nothing more may be deleted and the disk is still too full."""


class ArchiveDamaged(LibraryError, ValueError):
    """An archive does not hold what its manifest says."""
