"""Reads and writes the descriptions of files, from which alone the library can be made again, and tells which are ours.

jpg, png and tiff carry their description as JSON in EXIF's UserComment, videos as a comment. Every file but such a
picture has a sidecar, `<name>.json`. The same sidecar carries protection and the mark of a copy elsewhere, for every
kind of file: protecting must not rewrite a picture.

A file is ours (`is_ours`) if its description names this installation and the file still bears the name that we gave
it. Only such files get rows, and only such files are ever deleted. A description without an installation, of an earlier
version, counts as ours if it is complete and the file's name holds a date as all our names do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from shmcam.imaging import tiff
from shmcam.imaging.tiff import Tag
from shmcam.library.entry import Entry, from_description, is_text
from shmcam.library.errors import LibraryBusy, LibraryError
from shmcam.library.file_names import TIMING, has_date, is_picture_name, is_video_name
from shmcam.library.time_parsing import LARGEST
from shmcam.runtime.atomic_files import open_atomic, open_regular, read_state, wait_for_flock

PICTURES = frozenset({".jpg", ".png", ".tiff"})
"""Formats that carry their description."""
VIDEOS = frozenset({".mp4", ".h264", ".mkv", ".ts", ".mov"})
MEDIA = PICTURES | VIDEOS | {".npy", ".npz"}
MANIFEST = "manifest.json"

MAX_SIDECAR_BYTES = 64_000_000
"""The limit of a sidecar: ours have a few hundred bytes, a manifest of 100,000 files has 50 MB."""
MAX_HEADER_BYTES = 256 * 1024
"""The bytes that are searched for EXIF: it has at most 64 KB in a JPEG, and stands at the start of our files."""
USER_COMMENT_ASCII = b"ASCII\0\0\0"


INSTALLATION, FILE = "installation", "file"
"""The keys of a description that prove whose the file is: our id, and the name that we gave the file."""
MACHINE_ID = Path("/etc/machine-id")
MAX_ID_BYTES = 4096
CLIP_KINDS = {"event": "clip", "rolling": "clip"}
"""The recorder's kinds of clips that the library calls otherwise."""
UPLOADED = "uploaded"
"""The key of the mark that a copy lies elsewhere: where ("to"), and the size and time of the file that was copied."""
LOCK_S = 5.0
"""Seconds that a writer waits for the descriptions of a folder: others hold them as long as an fsync takes."""


class Owner(Struct, frozen=True):
    """The installation whose files are ours."""

    ids: tuple[str, ...]
    """Its id, and the ids of earlier installations whose files it has taken over."""

    @classmethod
    def of(cls, library: Path) -> Owner:
        """Reads the ids from `library.id` beside the library, a line each; makes the file at its first use.

        The id follows from machine and place, so that it stays the same if the file is lost.
        """
        path = library.with_name("library.id")
        lines = (read_regular(path, MAX_ID_BYTES) or b"").decode(errors="replace").split()
        if not lines:
            with suppress(OSError):
                machine = (read_regular(MACHINE_ID, MAX_ID_BYTES) or b"").decode(errors="replace").strip()
                lines = [hashlib.sha256(f"{machine or socket.gethostname()} {library}".encode()).hexdigest()[:16]]
                with open_atomic(path) as file:
                    file.write(f"{lines[0]}\n".encode())
        return cls(tuple(lines))

    @property
    def id(self) -> str:
        """The id that new files bear."""
        return self.ids[0]

    def describe(self, entry: Entry) -> dict[str, Any]:
        """Returns the description of a file of ours, with the proof that it is."""
        return {**entry.to_description(), INSTALLATION: self.id, FILE: entry.path.name}

    def is_ours(self, path: Path, values: Mapping[str, Any]) -> bool:
        """Tells whether the file of this description is one that this installation made. The one place that decides."""
        if from_description(path, values) is None or not self.is_named(values):
            return False
        name = path.parent.name if path.name == MANIFEST else path.name
        given = values.get("name" if path.name == MANIFEST else FILE)
        if isinstance(given, str):
            return name == given
        # Neither EXIF nor a video holds the name, and sidecars of earlier versions did not.
        if path.suffix in PICTURES:
            return is_picture_name(path.stem, values)
        if path.suffix in VIDEOS and INSTALLATION in values:
            return is_video_name(path.stem, values)
        return has_date(name)

    def is_our_sidecar(self, values: Mapping[str, Any] | None) -> bool:
        """Tells whether this is the content of a sidecar that we wrote; other programs use such names, too."""
        if values is None or not self.is_named(values):
            return False
        return INSTALLATION in values or from_description(Path(), values) is not None or values.keys() == {"protected"}

    def is_named(self, values: Mapping[str, Any]) -> bool:
        """Tells whether a description names no other installation."""
        return values.get(INSTALLATION, self.id) in self.ids


def sidecar_path_of(path: Path) -> Path:
    """Returns the sidecar of `path`, for formats without a place for the description."""
    return path.with_name(path.name + ".json")


def read_regular(path: Path, max_bytes: int) -> bytes | None:
    """Returns the content of a regular file; None for a FIFO, device or folder, or if it is too large or gone."""
    with suppress(OSError):
        return read_state(path, max_bytes)
    return None


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in a file; None if there is none, or it is damaged or far too large."""
    try:
        value = json.loads(read_regular(path, MAX_SIDECAR_BYTES) or b"")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds the descriptions of a folder while one is read, changed and written back; not to be nested.

    The lock is the flock of the folder itself: no file is left behind, a killed process gives it back, and on a network
    disk it holds among the processes of this machine. A folder that cannot be locked is written without.
    Raises: LibraryBusy.
    """
    descriptor, is_free = -1, True
    try:
        with suppress(OSError):  # or a file system without locks
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            is_free = wait_for_flock(descriptor, fcntl.LOCK_EX, LOCK_S)
        if not is_free:
            raise LibraryBusy(f"{folder}: held by another process for {LOCK_S:g} s")
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def write_sidecar(path: Path, values: Mapping[str, Any], owner: Owner) -> None:
    """Adds `values` to the sidecar of `path`.

    Raises: OSError; LibraryError if another program wrote that file, LibraryBusy.
    """
    with lock_folder(path.parent):
        _add_values(path, values, owner)


def _add_values(path: Path, values: Mapping[str, Any], owner: Owner) -> None:
    place = path if path.name == MANIFEST else sidecar_path_of(path)
    stored = read_json(place)
    if os.path.lexists(place) and not owner.is_our_sidecar(stored):
        raise LibraryError(f"{place}: not a description of ours; not changed")
    proof = {INSTALLATION: owner.id, **({} if path.name == MANIFEST else {FILE: path.name})}
    with open_atomic(place, replace=True) as file:
        file.write(json.dumps({**(stored or {}), **values, **proof}, indent=1).encode())


def write_description(entry: Entry, owner: Owner, *, may_unprotect: bool = False) -> Entry:
    """Makes sure that the file and its sidecar tell all that the row will, and whose they are.

    Protection that the file has stays, unless `may_unprotect`; the mark of a copy stays while the file is the same.
    Returns: the entry with both. Raises: OSError, LibraryError.
    """
    with lock_folder(entry.path.parent):
        return _describe_again(entry, owner, may_unprotect)


def _describe_again(entry: Entry, owner: Owner, may_unprotect: bool) -> Entry:
    path = entry.path
    beside = read_json(path if path.name == MANIFEST else sidecar_path_of(path)) or {}
    inside = read_exif(path) if path.suffix in PICTURES else {}
    stored = {**inside, **beside}
    is_complete = path.suffix in PICTURES or path.name == MANIFEST  # its description lies inside
    is_proven = INSTALLATION in stored and owner.is_ours(path, stored)
    values = {} if is_complete and is_proven else owner.describe(entry)
    was_protected = stored.get("protected") is True
    protected = entry.protected or (was_protected and not may_unprotect)
    if protected != was_protected:
        values["protected"] = protected
    if any(beside.get(key) != value for key, value in values.items()):
        _add_values(path, values, owner)
    uploaded = _read_uploaded(path, beside, path.lstat()) if UPLOADED in beside else ""
    return replace(entry, protected=protected, uploaded=uploaded)


def read_description(path: Path) -> dict[str, Any]:
    """Returns what a file and its sidecar tell of it; of a video without a sidecar, what the video itself tells."""
    if path.name == MANIFEST:
        return read_json(path) or {}
    beside = read_json(sidecar_path_of(path))
    if path.suffix in PICTURES:
        return {**read_exif(path), **(beside or {})}
    if path.suffix in VIDEOS and (beside is None or "kind" not in beside):
        return {**_read_video(path), **(beside or {})}
    return beside or {}


def read(path: Path, owner: Owner) -> Entry | None:
    """Returns the entry of a file of ours; None for every other file. Raises: OSError where it is gone."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return None
    values = read_description(path)
    if not owner.is_ours(path, values):
        return None
    protected, uploaded = values.get("protected") is True, _read_uploaded(path, values, status)
    entry = from_description(path, values, protected=protected, uploaded=uploaded)
    size = archive_bytes_of(values, status.st_size) if path.name == MANIFEST else status.st_size
    return entry and replace(entry, bytes=size)


def is_readable(path: Path) -> bool:
    """Tells whether we may read all that a file and its sidecar tell; if not, nobody knows whose it is."""
    return all(os.access(place, os.R_OK) for place in (path, sidecar_path_of(path)) if os.path.lexists(place))


def mark_uploaded(path: Path, to: str, copied: os.stat_result, owner: Owner) -> bool:
    """Notes in the sidecar that a copy of the file, as it was when `copied` was read, lies at `to`.

    Returns: False if the file has changed since: then nothing is noted. Raises: OSError; LibraryError if another
    program wrote that sidecar, LibraryBusy.
    """
    with lock_folder(path.parent):
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (copied.st_size, copied.st_mtime_ns):
            return False
        mark = {"to": to, "bytes": copied.st_size, "mtime_ns": copied.st_mtime_ns}
        _add_values(path, {UPLOADED: mark}, owner)
        return True


def _read_uploaded(path: Path, values: Mapping[str, Any], status: os.stat_result) -> str:
    """Returns where a copy of the file lies; empty for none, or if the file has changed since.

    Each build of an archive writes its manifest anew, without the mark, so that needs no comparison.
    """
    mark = values.get(UPLOADED)
    to = mark.get("to") if isinstance(mark, dict) else None
    if not isinstance(mark, dict) or not isinstance(to, str) or not is_text(to):
        return ""
    is_same = (mark.get("bytes"), mark.get("mtime_ns")) == (status.st_size, status.st_mtime_ns)
    return to if is_same or path.name == MANIFEST else ""


def _read_video(path: Path) -> dict[str, Any]:
    """Returns the description that a video carries, with what its frames and its CSV tell; empty for a foreign one."""
    from shmcam.video.growing_mp4 import read_about, read_summary

    about = read_about(path)
    if "camera" not in about or (summary := read_summary(path)) is None:
        return {}
    csv = path.with_name(path.stem + TIMING)
    first = about.get("first_frame")
    return {
        **about,
        "kind": CLIP_KINDS.get(str(about.get("kind")), about.get("kind")),
        "started_utc_ns": about.get("started_utc_ns", about.get("captured_utc_ns")),
        "duration_s": summary.last_pts_us / 1e6,
        "frames": summary.frames,
        "last_frame": first + summary.frames - 1 if isinstance(first, int) and first >= 0 else -1,
        "companions": [csv.name] if csv.is_file() else [],
        "protected": about.get("protect") is True,
    }


def archive_bytes_of(manifest: Mapping[str, Any], own: int) -> int:
    """Returns the size of an archive by its manifest; if that does not have it, the manifest's `own`."""
    size = manifest.get("bytes")
    return size if isinstance(size, int) and 0 <= size <= LARGEST else own


def is_archive(manifest: Path) -> bool:
    """Tells whether a file of this name is an archive's, and no other file that bears the name.

    A damaged one counts: what it lists must not turn into single pictures, which retention would delete.
    """
    values = read_json(manifest)
    return values is None or isinstance(values.get("files"), list)


def read_all(paths: Iterable[str], owner: Owner) -> list[Entry]:
    """Returns the entries of those files that are ours, oldest first; a file deleted meanwhile is left out."""
    entries = []
    for path in paths:
        with suppress(OSError):
            entries.append(read(Path(path), owner))
    return sorted(filter(None, entries), key=lambda entry: (entry.started_utc_ns, entry.first_frame, entry.path))


def read_exif(path: Path) -> dict[str, Any]:
    """Returns the JSON in a picture's UserComment; empty where there is none, or the file is damaged."""
    try:
        with open_regular(path) as file:
            block = tiff.find_exif(file.read(MAX_HEADER_BYTES))
        _, _, comment = tiff.decode_tags(block, Tag.EXIF)[Tag.USER_COMMENT]
        value = json.loads(comment.removeprefix(USER_COMMENT_ASCII).rstrip(b"\0"))
    except (OSError, ValueError, KeyError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
