"""Finds, measures and removes the files behind the rows."""

from __future__ import annotations

import os
import re
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
"""Seconds without a change after which a video counts as closed: while it is written, it changes more often."""

SESSION_FOLDER = re.compile(r".+_\d{8}_\d{6}(_.+)?")
"""The name of a session's folder: prefix, time, label."""

HIDDEN = (".", "_")
"""First characters of names that the library leaves out: temporary files, dark frames, state."""


def find_files(folders: Sequence[Path]) -> set[Path]:
    """Returns every media file and every archive's manifest below the folders.

    Files inside an archive, also one being built, are left out, as are names that are not UTF-8: no row can hold them.
    """
    paths: set[Path] = set()
    for folder in folders:
        for walked, names, files in os.walk(folder):
            subfolder = Path(walked)
            is_whole = subfolder != folder and MANIFEST in files and is_archive(subfolder / MANIFEST)
            if is_whole or (subfolder != folder and JOURNAL in files):
                paths.update([subfolder / MANIFEST] if is_whole else [])
                names.clear()
                continue
            names[:] = [name for name in names if _is_counted(name)]
            paths.update(subfolder / name for name in files if _is_counted(name) and Path(name).suffix in MEDIA)
    return {path for path in paths if path.suffix not in VIDEOS or not _is_growing(path)}


def remove_leftovers(folders: Sequence[Path]) -> list[Path]:
    """Removes temporary files that no process writes any more, and sidecars without a file. Returns: the paths."""
    removed = []
    for folder in folders:
        for walked, _, names in os.walk(folder):
            subfolder = Path(walked)
            removed += sweep(subfolder)
            orphans = [subfolder / name for name in names if name.endswith(".json") and _is_orphan(subfolder / name)]
            for orphan in orphans:
                orphan.unlink(missing_ok=True)
            removed += orphans
    return removed


def size_of(path: Path) -> int:
    """Returns the bytes of a file; for an archive, of all files that it lists. Raises: OSError if the file is gone."""
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
    if SESSION_FOLDER.fullmatch(entry.path.parent.name):
        with suppress(OSError):  # not empty: the session has other files
            entry.path.parent.rmdir()


def holds_any(folder: Path, folders: Collection[Path]) -> bool:
    """Tells whether a folder is or holds one of `folders`, also by another name: a link, a disk without capitals."""
    return any(_is_same(folder, parent) for own in folders for parent in (own, *own.parents, *own.resolve().parents))


def frees_space(entry: Entry) -> bool:
    """Tells whether deleting it gives space back: a hard link in an archive keeps the bytes on disk."""
    try:
        return entry.path.stat().st_nlink == 1
    except OSError:
        return False


def _remove_archive(manifest: Path, folders: Sequence[Path]) -> None:
    """Removes an archive, its manifest last, so that a half-deleted archive is still found and can be deleted again."""
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
    is_being_written = any(path.parent.glob(f".{escape(subject.name)}.*{PART}"))
    return not is_being_written and not subject.exists()  # checked again: it may have got its name in between
