"""Reads and writes the descriptions of files, from which alone the library can be made again.

jpg, png and tiff carry their description as JSON in EXIF's UserComment. Every other file has a sidecar,
`<name>.json`. The same sidecar carries protection, for every kind of file: protecting must not rewrite a picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from shmcam.imaging import tiff
from shmcam.imaging.tiff import Tag
from shmcam.library.entry import Entry, from_description
from shmcam.library.time_parsing import LARGEST, to_storable
from shmcam.runtime.atomic_files import open_atomic

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


def sidecar_path_of(path: Path) -> Path:
    """Returns the sidecar of `path`, for formats without a place for the description."""
    return path.with_name(path.name + ".json")


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in a file; None if there is none, or it is damaged or far too large."""
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            return None
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_sidecar(path: Path, values: Mapping[str, Any]) -> None:
    """Adds `values` to the sidecar of `path`. Raises: OSError."""
    place = path if path.name == MANIFEST else sidecar_path_of(path)
    stored = read_json(place) or {}
    with open_atomic(place, replace=True) as file:
        file.write(json.dumps({**stored, **values}, indent=1).encode())


def write_description(entry: Entry) -> None:
    """Makes sure that the file and its sidecar tell all that the row will. Raises: OSError."""
    is_described = entry.path.suffix in PICTURES or entry.path.name == MANIFEST
    if (
        is_described
        and not entry.protected
        and not sidecar_path_of(entry.path).exists()
        and entry.path.name != MANIFEST
    ):
        return  # as for most pictures: all is inside the file
    values: dict[str, Any] = {} if is_described else entry.to_description()
    stored = read_json(entry.path if entry.path.name == MANIFEST else sidecar_path_of(entry.path)) or {}
    if entry.protected != bool(stored.get("protected", False)):
        values["protected"] = entry.protected
    if any(stored.get(key) != value for key, value in values.items()):
        write_sidecar(entry.path, values)


def read(path: Path) -> Entry:
    """Reads the description from the file, its sidecar, or failing both from its name and date.

    Raises: OSError where it is gone.
    """
    size = path.stat().st_size
    sidecar = read_json(path if path.name == MANIFEST else sidecar_path_of(path)) or {}
    protected = sidecar.get("protected") is True
    exif = read_exif(path) if path.suffix in PICTURES else {}
    entry = from_description(path, {**exif, **sidecar}, protected=protected) or _guess(path, protected)
    return replace(entry, bytes=archive_bytes_of(sidecar, size) if path.name == MANIFEST else size)


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


def read_all(paths: Iterable[Path]) -> list[Entry]:
    """Returns the entries of these files, oldest first; a file that is deleted meanwhile is left out."""
    entries = []
    for path in paths:
        try:
            entries.append(read(path))
        except OSError:
            continue
    return sorted(entries, key=lambda entry: (entry.started_utc_ns, entry.first_frame, entry.path))


def read_exif(path: Path) -> dict[str, Any]:
    """Returns the JSON in a picture's UserComment; empty where there is none, or the file is damaged."""
    try:
        with path.open("rb") as file:
            block = tiff.find_exif(file.read(MAX_HEADER_BYTES))
        _, _, comment = tiff.decode_tags(block, Tag.EXIF)[Tag.USER_COMMENT]
        value = json.loads(comment.removeprefix(USER_COMMENT_ASCII).rstrip(b"\0"))
    except (OSError, ValueError, KeyError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _guess(path: Path, protected: bool) -> Entry:
    """Makes the entry of a file without a description: made by hand, or its process was killed before it wrote one."""
    kind = "archive" if path.name == MANIFEST else "clip" if path.suffix in VIDEOS else "picture"
    camera = re.search(r"(?:^|[_.-])(cam[0-9a-z]+)", path.name) or re.search(r"(cam[0-9a-z]+)", path.parent.name)
    stamp = re.search(r"\d{8}_\d{6}", path.name)
    frame = re.search(r"_f(\d+)", path.name)
    started_s = path.stat().st_mtime
    if stamp:
        try:
            started_s = datetime.strptime(stamp[0], "%Y%m%d_%H%M%S").astimezone().timestamp()
        except (ValueError, OverflowError):  # 99991231 west of Greenwich
            started_s = path.stat().st_mtime
    number = int(frame[1]) if frame else -1
    return Entry(
        kind=kind,
        camera=camera[1] if camera else "",
        path=path,
        started_utc_ns=to_storable(int(started_s * 1e9)),
        first_frame=number,
        last_frame=number,
        trigger="recovered",  # not ordinary: a file of unknown origin is deleted last
        protected=protected,
    )
