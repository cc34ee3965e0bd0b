"""Finds, measures and removes the files behind the rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

from shmcam.library import sidecar
from shmcam.library.entry import Entry, is_text
from shmcam.library.errors import LibraryError
from shmcam.library.file_names import has_date, is_session_name
from shmcam.library.manifest import CONFIG, JOURNAL, read_items
from shmcam.library.sidecar import (
    MANIFEST,
    MEDIA,
    VIDEOS,
    Owner,
    archive_bytes_of,
    is_archive,
    read_json,
    sidecar_path_of,
)
from shmcam.runtime.atomic_files import PART, open_regular, sweep

GROWING_S = 30.0
"""Seconds without a change after which a video counts as closed: while it is written, it changes more often."""

SESSION_LOG = "session.log"
SESSION_LOG_HEAD = "# session.log: what shmcam logged while this session was recorded"
"""The first line, by which a log of ours is known."""

_SUFFIXES = tuple(MEDIA)

HIDDEN = (".", "_", "@", "#", "$", "~")
"""First characters of folders that the library leaves out: dark frames, state, bins and thumbnails."""
SYSTEM_FOLDERS = frozenset({"lost+found", "System Volume Information"})


def is_gone(path: Path) -> bool:
    """Tells whether there is no such file; one that cannot be looked at, as in a folder of root's, is not gone."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def find_files(folder: Path, report: Callable[[OSError], None] | None = None) -> set[str]:
    """Returns the path of every media file below a folder that may be ours by its name, and of every manifest.

    Files inside an archive, also one being built, are left out, as are names of files and folders that are not UTF-8:
    no row can hold them. `sidecar.read` tells which of them are ours. Texts, because the start of the exporter waits
    for 100,000 of them. `report` is called with the error of each folder that cannot be read.
    """
    paths: set[str] = set()
    for walked, names, files in os.walk(folder, onerror=report):
        subfolder, present = Path(walked), set(files)
        is_whole = subfolder != folder and MANIFEST in present and is_archive(subfolder / MANIFEST)
        if is_whole or (subfolder != folder and JOURNAL in present):
            paths.update([str(subfolder / MANIFEST)] if is_whole else [])
            names.clear()
            continue
        names[:] = [name for name in names if _may_hold_ours(name)]
        begin = f"{subfolder}{os.sep}"
        paths.update(begin + name for name in files if _may_be_ours(name, present))
    paths -= {path for path in paths if path.endswith(tuple(VIDEOS)) and _is_growing(Path(path))}
    return paths


def remove_leftovers(folders: Sequence[Path], owner: Owner) -> list[Path]:
    """Removes temporary files that no process writes any more, and our sidecars without a file. Returns: the paths.

    What cannot be removed stays for the next time.
    """
    removed = []
    for folder in folders:
        for walked, _, names in os.walk(folder):
            subfolder = Path(walked)
            swept = sweep(subfolder)
            removed += swept
            for name in names:
                if name.endswith(".json") and _is_orphan(subfolder / name, owner):
                    with suppress(OSError):
                        removed += _remove_orphan(subfolder / name, swept)
    return removed


def _remove_orphan(path: Path, swept: Collection[Path]) -> list[Path]:
    """Removes a sidecar whose file is gone; the companions that it lists only where the file was never finished.

    Its temporary file, one of `swept`, proves that. Otherwise somebody has renamed the file, and they belong to it:
    `remove` deletes them before the file.
    """
    paths = [path]
    if any(part.name.startswith(f".{path.stem}.") for part in swept):
        listed = (read_json(path) or {}).get("companions")
        names = listed if isinstance(listed, list) else []
        names = [name for name in names if isinstance(name, str) and Path(name).name == name]
        paths = [companion for name in names if (companion := path.with_name(name)).is_file()] + paths
    for gone in paths:
        gone.unlink(missing_ok=True)
    return paths


def size_of(path: Path) -> int:
    """Returns the bytes of a file; for an archive, of all files that it lists. Raises: OSError if the file is gone."""
    own = path.stat().st_size
    return archive_bytes_of(read_json(path) or {}, own) if path.name == MANIFEST else own


def list_files(entry: Entry) -> list[Path]:
    """Returns the files of an entry: its own and those that belong to it; of an archive all that it lists."""
    path = entry.path
    if path.name == MANIFEST:
        listed = (path.parent / place for place in (*read_items(path.parent), CONFIG))
        return [file for file in listed if file.is_file() and ".." not in file.parts] + [path]
    extras = (*(path.with_name(name) for name in entry.companions), sidecar_path_of(path))
    return [path, *(extra for extra in extras if extra.exists())]


def is_inside(path: Path, folders: Sequence[Path]) -> bool:
    """Tells whether a file lies in one of the folders, and no link on the way leads out of it."""
    real = Path(os.path.realpath(path.parent))
    return any(path.is_relative_to(folder) and real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def remove(entry: Entry, folders: Sequence[Path], owner: Owner) -> None:
    """Deletes an entry's files; what is gone already does not matter. A file that was renamed keeps its companions.

    Raises: LibraryError for a file that is not ours, or outside the library's folders (a damaged row must delete
    nothing else); OSError.
    """
    path = entry.path
    if (folders and not is_inside(path, folders)) or ".." in path.parts:
        raise LibraryError(f"{path}: not inside {', '.join(map(str, folders))}; not deleted")
    if path.name == MANIFEST:
        _remove_archive(path, folders, owner)
        return
    with suppress(FileNotFoundError):
        if sidecar.read(path, owner) is None:
            raise LibraryError(f"{path}: nothing proves that this installation made it; not deleted")
        for name in entry.companions:  # before it: after a kill in between, the file has its row and goes with the next
            with suppress(FileNotFoundError, IsADirectoryError):  # a folder of this name is somebody else's
                path.with_name(name).unlink()
        path.unlink()
    beside = sidecar_path_of(path)
    if owner.is_our_sidecar(read_json(beside)):
        beside.unlink(missing_ok=True)
    if is_session_name(path.parent.name) and path.parent not in folders:
        with suppress(OSError):  # not empty: the session has other files
            _remove_session_folder(path.parent)


def _remove_session_folder(folder: Path) -> None:
    """Deletes the folder of a session if nothing but its log is left. Raises: OSError."""
    session_log = folder / SESSION_LOG
    if [item.name for item in folder.iterdir()] == [SESSION_LOG]:
        with open_regular(session_log) as file:
            is_ours = file.readline(200).strip() == SESSION_LOG_HEAD.encode()
        if is_ours:
            session_log.unlink()
    folder.rmdir()


def holds_any(folder: Path, folders: Collection[Path]) -> bool:
    """Tells whether a folder is or holds one of `folders`, also by another name: a link, a disk without capitals."""
    return any(_is_same(folder, parent) for own in folders for parent in (own, *own.parents, *own.resolve().parents))


def frees_space(entry: Entry) -> bool:
    """Tells whether deleting it gives space back: a hard link in an archive keeps the bytes on disk."""
    try:
        return entry.path.stat().st_nlink == 1
    except OSError:
        return False


def _remove_archive(manifest: Path, folders: Sequence[Path], owner: Owner) -> None:
    """Removes the files that an archive lists, its manifest last, and the folders that are empty then.

    A half-deleted archive is still found and can be deleted again. Files that the archive does not list stay.
    """
    folder = manifest.parent
    if holds_any(folder, folders) or not is_archive(manifest):
        raise LibraryError(f"{manifest}: not the manifest of an archive; not deleted")
    if not manifest.exists():
        return
    if not owner.is_ours(manifest, read_json(manifest) or {}):
        raise LibraryError(f"{manifest}: nothing proves that this installation made it; not deleted")
    remove_listed(folder, [*read_items(folder), CONFIG, JOURNAL])
    manifest.unlink()
    with suppress(OSError):  # not empty: somebody put files of his own into it
        folder.rmdir()


def remove_listed(folder: Path, places: Collection[str]) -> None:
    """Removes these files of an archive's folder, our temporary ones, and the subfolders that are empty then.

    Raises: OSError.
    """
    for place in places:
        path = folder / place
        if path.parent.resolve().is_relative_to(folder.resolve()):  # no manifest leads elsewhere
            with suppress(FileNotFoundError):
                path.unlink()
    subfolders = [Path(walked) for walked, _, _ in os.walk(folder)]
    for subfolder in reversed(subfolders):
        sweep(subfolder)
        if subfolder != folder:
            with suppress(OSError):
                subfolder.rmdir()


def _is_same(folder: Path, other: Path) -> bool:
    try:
        return folder == other or folder.samefile(other)
    except OSError:
        return False


def _may_hold_ours(name: str) -> bool:
    """Tells whether a folder of this name is searched."""
    return not name.startswith(HIDDEN) and name not in SYSTEM_FOLDERS and is_text(name)


def _may_be_ours(name: str, present: Collection[str]) -> bool:
    """Tells whether it is worth reading: a medium with a sidecar, or with a date in its name as all of ours."""
    if not name.endswith(_SUFFIXES) or name.startswith(".") or not is_text(name):
        return False
    return f"{name}.json" in present or has_date(name)


def _is_growing(path: Path) -> bool:
    """Tells whether a recorder may still be writing it: then it is added when it is closed."""
    try:
        return not sidecar_path_of(path).exists() and abs(time.time() - path.stat().st_mtime) < GROWING_S
    except OSError:
        return True


def _is_orphan(path: Path, owner: Owner) -> bool:
    """Tells whether it is our sidecar of a file that is gone; one that is being written bears a temporary name."""
    subject = path.with_suffix("")
    if subject.suffix not in MEDIA or not is_gone(subject) or not owner.is_our_sidecar(read_json(path)):
        return False
    is_being_written = any(path.parent.glob(f".{escape(subject.name)}.*{PART}"))
    return not is_being_written and is_gone(subject)  # checked again: it may have got its name in between
