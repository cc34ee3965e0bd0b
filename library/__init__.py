"""What has been saved: catalogue, retention, archive."""

from library.catalogue import Catalogue
from library.entry import Entry
from library.errors import ArchiveDamaged, EntryProtected, LibraryError, NoRoom, NoSuchEntry

__all__ = ["ArchiveDamaged", "Catalogue", "Entry", "EntryProtected", "LibraryError", "NoRoom", "NoSuchEntry"]
