"""Collects files of a time span in a folder of their own, with a manifest to check them by.

    archives/<name>/manifest.json             what is in it, SHA-256 of each file, the span
    archives/<name>/config.toml               the configuration in use, secrets masked
    archives/<name>/captures/…, recordings/…  the files, hard links where the disk allows it

A build may be interrupted at any moment and started again: files that are in the archive already are not copied or
summed twice (`.done.jsonl` lists them). A second build of the same name adds the files that are new.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from msgspec.structs import asdict

from shmcam.config.settings import FORMER_LONG_NAME, LONG_NAME
from shmcam.library.catalogue import Catalogue
from shmcam.library.entry import Entry
from shmcam.library.errors import LibraryError, NothingThere
from shmcam.library.file_names import is_session_name
from shmcam.library.files import SESSION_LOG, holds_any, list_files, remove_listed
from shmcam.library.manifest import (
    BEGUN,
    CHUNK_BYTES,
    CONFIG,
    JOURNAL,
    ManifestItem,
    Span,
    hash_file,
    read_begun,
    read_items,
    require_readable,
    write,
)
from shmcam.library.query import Query
from shmcam.library.sidecar import MANIFEST, is_archive
from shmcam.runtime.atomic_files import open_atomic, open_regular, open_to_append
from shmcam.runtime.progress import Progress

log = logging.getLogger(__name__)

NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES}
"""Reasons why a file cannot be linked and is copied instead: other disk, FAT, protected_hardlinks, too many links."""

MakeRoom = Callable[[int, Collection[Path]], object]
"""Frees so many bytes without deleting any of these files. Raises: OSError."""


def check_name(name: str, *, is_new: bool = False) -> str:
    """Returns the name of an archive if it can be that of a folder. Raises: ValueError.

    Those of a former release may begin with _ or -: they can be verified and deleted.
    """
    if not re.fullmatch(LONG_NAME if is_new else FORMER_LONG_NAME, name):
        first = ", the first a letter or digit" if is_new else ""
        raise ValueError(f"archive name {name[:80]!r}: 1..64 of A-Z a-z 0-9 _ -{first}")
    return name


def build(
    catalogue: Catalogue,
    archives: Path,
    name: str,
    span: Span,
    *,
    config: str = "",
    progress: Progress = lambda _done, _total: None,
    room: MakeRoom = lambda _bytes, _spared: None,
    now_utc_ns: int = 0,
) -> Entry:
    """Makes or completes an archive; `room` is asked before a file is copied, not linked. Returns: its row.

    If the library cannot be written, the row has no number yet (`Catalogue.add_when_writable`).
    Raises: ValueError for a bad name, one of something else, or more files than a manifest can list; NothingThere of
    that span; OSError of the disk (do it again to go on).
    """
    folder = archives / check_name(name, is_new=True)
    if holds_any(folder, catalogue.folders) or _is_taken(folder):
        raise ValueError(f"archive name {name}: {folder} is not an archive's folder; choose another name")
    query = Query(
        cameras=span.cameras,
        since_utc_ns=span.since_utc_ns,
        until_utc_ns=span.until_utc_ns,
        label=span.label or None,
        order="oldest",
    )
    entries = [
        entry
        for entry in catalogue.search(query)
        if entry.kind != "archive" and span.session in ("", entry.path.parent.name)
    ]
    if not entries:
        raise NothingThere(f"archive {name}: the library holds nothing of that {span.describe()}")
    sources = [(path, _to_place(path, catalogue.root)) for path in _files_of(entries)]
    placed = [(entry, _to_place(entry.path, catalogue.root)) for entry in entries]
    require_readable(folder, placed, (place for _, place in sources))
    folder.mkdir(parents=True, exist_ok=True)
    done, spared = read_items(folder), {entry.path for entry in entries}
    with TextIOWrapper(open_to_append(folder / JOURNAL), encoding="utf-8") as journal:
        for number, (source, place) in enumerate(sources):
            progress(number, len(sources))
            if place not in done:  # before the file, so that `discard` knows it after a kill
                _append(journal, {BEGUN: place})
            item = _bring_in(source, folder, place, done.get(place), lambda size: room(size, spared))
            if item is None:
                log.warning("archive %s: %s was deleted meanwhile", name, source)
            elif item != done.get(place):
                done[place] = item
                _append(journal, asdict(item))
    if config:
        with open_atomic(folder / CONFIG, replace=True) as file:
            file.write(config.encode())
    entry = write(folder, span, placed, list(done.values()), now_utc_ns=now_utc_ns, owner=catalogue.owner)
    (folder / JOURNAL).unlink(missing_ok=True)
    progress(len(sources), len(sources))
    return catalogue.add_when_writable(entry)


def find_unfinished(archives: Path) -> list[str]:
    """Returns the names of archives that were begun and have no manifest yet."""
    begun = (journal.parent for journal in archives.glob(f"*/{JOURNAL}"))
    named = (folder for folder in begun if re.fullmatch(FORMER_LONG_NAME, folder.name))
    return sorted(folder.name for folder in named if not (folder / MANIFEST).exists())


def discard(folder: Path, folders: Collection[Path]) -> None:
    """Deletes what an unfinished archive has brought in, by its journal; other files stay.

    `folders`: those of the library. Raises: LibraryError for one of the library's folders; OSError.
    """
    if holds_any(folder, folders):
        raise LibraryError(f"{folder}: a folder of the library, no archive; not deleted (remove its {JOURNAL} by hand)")
    remove_listed(folder, [*read_begun(folder), CONFIG])
    (folder / JOURNAL).unlink()  # deleted last: without it the rest would be taken for single files
    with suppress(OSError):  # not empty: somebody put files of his own into it
        folder.rmdir()


def _append(journal: TextIO, row: object) -> None:
    journal.write(json.dumps(row) + "\n")
    journal.flush()


def _is_taken(folder: Path) -> bool:
    """Tells whether a folder of this name holds something else."""
    if not folder.exists() or (folder / JOURNAL).exists():
        return False
    manifest = folder / MANIFEST
    return not is_archive(manifest) if manifest.exists() else not folder.is_dir() or any(folder.iterdir())


def _files_of(entries: Collection[Entry]) -> Iterator[Path]:
    """Yields the files of entries with all that lies beside them, the log of each session at the end."""
    for entry in entries:
        yield from list_files(entry)
    folders = sorted({entry.path.parent for entry in entries if is_session_name(entry.path.parent.name)})
    yield from (folder / SESSION_LOG for folder in folders if (folder / SESSION_LOG).is_file())


def _to_place(path: Path, root: Path) -> str:
    """Returns the place of a file inside the archive: as below the library, so that names cannot collide."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return f"other/{hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]}/{path.name}"


def _bring_in(
    source: Path, folder: Path, place: str, before: ManifestItem | None, room: Callable[[int], object]
) -> ManifestItem | None:
    """Links or copies one file and sums it, unless that was done before. None where the source is gone."""
    target = folder / place
    try:
        status = source.stat()
        if before and target.exists() and (before.bytes, before.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return before
        target.parent.mkdir(parents=True, exist_ok=True)
        linked = source.name != SESSION_LOG and _link(source, target)  # a log may still grow
        if not linked:
            room(status.st_size)
        total = hash_file(target) if linked else _copy(source, target)
    except FileNotFoundError:
        return None
    return ManifestItem(place, total, target.stat().st_size, linked, status.st_mtime_ns)


def _link(source: Path, target: Path) -> bool:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in NO_LINK:
            return False
        raise
    return True


def _copy(source: Path, target: Path) -> str:
    total = hashlib.sha256()
    with open_regular(source) as reading, open_atomic(target, replace=True) as writing:
        while piece := reading.read(CHUNK_BYTES):
            total.update(piece)
            writing.write(piece)
    return total.hexdigest()
