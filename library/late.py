"""Files that are safely on disk while the library cannot be written: they get their rows when it can be again."""

from __future__ import annotations

import logging
from dataclasses import replace

from library import files
from library.catalogue import Catalogue
from library.entry import Entry
from library.errors import NotWritable

log = logging.getLogger(__name__)


def added(catalogue: Catalogue, entry: Entry) -> Entry:
    """As `Catalogue.add`; where the library cannot be written, the row has no number and `catalogue.missed` is set.

    Raises: OSError (the file is gone), sqlite3.Error, LibraryError.
    """
    try:
        return catalogue.add(entry)
    except NotWritable as problem:
        catalogue.missed.set()
        log.warning("not in the library yet path=%s reason=%s", entry.path, problem)
        return replace(entry, bytes=entry.bytes or files.size(entry.path))
