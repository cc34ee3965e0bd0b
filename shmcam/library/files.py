"""The files behind the rows: finding, measuring, removing them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

from shmcam.library.entry import Entry, is_text
from shmcam.library.errors import LibraryError
from shmcam.library.manifest import JOURNAL
from shmcam.library.sidecar import MANIFEST, MEDIA, VIDEOS, archive_bytes_of, is_archive, read_json, sidecar_path_of
from shmcam.runtime.atomic_files import PART, sweep

GROWING_S = 30.0
"""Seconds; a film gets a fragment at least that often, so one that is older is not being written."""

HIDDEN = (".", "_")
"""First letters of names that are not part of the library: temporary files, dark frames, state."""


def find_files(folders: Sequence[Path]) -> set[Path]:
    """Every media file and every archive's manifest below the folders.

    Archives are not looked into, nor those being built. Names that are not UTF-8 are left out: a row cannot hold them.
    """
    paths: set[Path] = set()
    for folder in folders:
        for place, names, files in os.walk(folder):
            here = Path(place)
            whole = here != folder and MANIFEST in files and is_archive(here / MANIFEST)
            if whole or (here != folder and JOURNAL in files):
                paths.update([here / MANIFEST] if whole else [])
                names.clear()
                continue
            names[:] = [name for name in names if _is_counted(name)]
            paths.update(here / name for name in files if _is_counted(name) and Path(name).suffix in MEDIA)
    return {path for path in paths if path.suffix not in VIDEOS or not _is_growing(path)}


def remove_leftovers(folders: Sequence[Path]) -> list[Path]:
    """Removes temporary files that no process writes any more, and sidecars without a file. Returns: the paths."""
    gone = []
    for folder in folders:
        for place, _, names in os.walk(folder):
            here = Path(place)
            gone += sweep(here)
            orphans = [here / name for name in names if name.endswith(".json") and _is_orphan(here / name)]
            for orphan in orphans:
                orphan.unlink(missing_ok=True)
            gone += orphans
    return gone


def size_of(path: Path) -> int:
    """Bytes of a file; of an archive, of all it lists. Raises: OSError where the file is gone."""
    own = path.stat().st_size
    return archive_bytes_of(read_json(path) or {}, own) if path.name == MANIFEST else own


def remove(entry: Entry, folders: Sequence[Path]) -> None:
    """Deletes an entry's files, the main one first; what is gone already does not matter.

    Raises: LibraryError for a file outside the library's folders (a damaged row must delete nothing else); OSError.
    """
    if (folders and not any(entry.path.is_relative_to(folder) for folder in folders)) or ".." in entry.path.parts:
        raise LibraryError(f"{entry.path}: not inside {', '.join(map(str, folders))}; not deleted")
    if entry.path.name == MANIFEST:
        _remove_archive(entry.path, folders)
        return
    for path in (entry.path, *(entry.path.with_name(name) for name in entry.companions), sidecar_path_of(entry.path)):
        with suppress(FileNotFoundError):
            path.unlink()
    if entry.path.parent.name.startswith("session_"):
        with suppress(OSError):  # not empty: other files of the session are still there
            entry.path.parent.rmdir()


def holds_any(folder: Path, folders: Collection[Path]) -> bool:
    """Tells whether a folder is or holds one of `folders`, also by another name: a link, a disk without capitals."""
    return any(_is_same(folder, place) for own in folders for place in (own, *own.parents, *own.resolve().parents))


def frees_space(entry: Entry) -> bool:
    """Tells whether deleting it gives space back: a hard link in an archive keeps the bytes on disk."""
    try:
        return entry.path.stat().st_nlink == 1
    except OSError:
        return False


def _remove_archive(manifest: Path, folders: Sequence[Path]) -> None:
    """The manifest goes last, so that a half-deleted archive is still known and can be deleted again."""
    folder = manifest.parent
    if holds_any(folder, folders) or not is_archive(manifest):
        raise LibraryError(f"{manifest}: not the manifest of an archive; not deleted")
    for item in sorted(folder.rglob("*"), reverse=True):
        if item.is_dir() and not item.is_symlink():
            item.rmdir()
        elif item != manifest:
            item.unlink()
    manifest.unlink(missing_ok=True)
    folder.rmdir()


def _is_same(folder: Path, other: Path) -> bool:
    try:
        return folder == other or folder.samefile(other)
    except OSError:
        return False


def _is_counted(name: str) -> bool:
    return not name.startswith(HIDDEN) and is_text(name)


def _is_growing(path: Path) -> bool:
    """Tells whether a recorder may still be writing it: then it is added when it is closed."""
    try:
        return not sidecar_path_of(path).exists() and abs(time.time() - path.stat().st_mtime) < GROWING_S
    except OSError:
        return True


def _is_orphan(path: Path) -> bool:
    """Tells whether a sidecar's file is gone; one that is still being written bears its temporary name."""
    subject = path.with_suffix("")
    if subject.suffix not in MEDIA or subject.exists():
        return False
    being_written = any(path.parent.glob(f".{escape(subject.name)}.*{PART}"))
    return not being_written and not subject.exists()  # looked at again: it may have got its name in between
