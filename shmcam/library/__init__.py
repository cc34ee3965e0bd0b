"""Everything saved: catalogue, retention, archive."""

from __future__ import annotations

from shmcam.library.catalogue import Catalogue
from shmcam.library.entry import Entry
from shmcam.library.errors import ArchiveDamaged, EntryProtected, LibraryError, NoRoom, NoSuchEntry

__all__ = ["ArchiveDamaged", "Catalogue", "Entry", "EntryProtected", "LibraryError", "NoRoom", "NoSuchEntry"]
