"""Writes, reads and verifies the manifest of an archive: the list of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from shmcam.library.entry import Entry, from_description
from shmcam.library.errors import ArchiveDamaged
from shmcam.library.sidecar import (
    INSTALLATION,
    MANIFEST,
    MAX_SIDECAR_BYTES,
    Owner,
    lock_folder,
    read_json,
    read_regular,
)
from shmcam.library.time_parsing import LARGEST
from shmcam.runtime.atomic_files import open_atomic, open_regular, sync_folder
from shmcam.runtime.clock import to_iso
from shmcam.runtime.progress import Progress

FORMAT = 1
"""The format of the manifest; readers refuse another one."""
MAX_MANIFEST_BYTES = 60_000_000
"""The limit of a manifest, of about 100,000 pictures. `read_json` reads 4 MB more: marks are added later."""
CHUNK_BYTES = 1 << 20
JOURNAL = ".done.jsonl"
"""The journal of an unfinished run, a line for each file."""
BEGUN = "begun"
"""The key of a line of the journal about a file that is being brought in."""
CONFIG = "config.toml"
"""The configuration in use, beside the manifest."""


class ManifestItem(Struct, frozen=True):
    """One file in an archive."""

    file: str
    """The path inside the archive, with `/`."""
    sha256: str
    """The checksum of its bytes, hex."""
    bytes: int
    """The size of the file."""
    linked: bool
    """True for a hard link to the original, False for a copy."""
    mtime_ns: int = 0
    """The modification time of the original, by which it is recognized."""


ITEM_TYPES = {"file": str, "sha256": str, "bytes": int, "linked": bool, "mtime_ns": int}
"""The fields that JSON must hold to be an item."""


class Span(Struct, frozen=True):
    """What is asked for: a time span, of which None is without limit, and whose files."""

    since_utc_ns: int | None = None
    """Wall-clock time, ns since 1970."""
    until_utc_ns: int | None = None
    """Wall-clock time, ns since 1970."""
    cameras: tuple[str, ...] = ()
    """The names of the cameras; empty: all."""
    label: str = ""
    """The label of its files; empty: any."""
    session: str = ""
    """The name of the session's folder; empty: any."""

    def describe(self) -> str:
        """Returns what was asked for, in words."""
        words = [f"session {self.session}"] * bool(self.session) + [f"label {self.label}"] * bool(self.label)
        return " and ".join(words) or "span"


def verify(folder: Path, progress: Progress = lambda _done, _total: None) -> list[str]:
    """Compares an archive with its manifest. Returns: what is wrong, in words; empty where nothing is.

    Raises: ArchiveDamaged without a manifest that can be read.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest is None or manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), list):
        raise ArchiveDamaged(f"{folder / MANIFEST}: missing, damaged, or not format {FORMAT}")
    findings = []
    listed = _to_items(manifest["files"])
    if damaged := len(manifest["files"]) - len(listed):
        findings.append(f"damaged: {damaged} rows of the manifest")
    for number, item in enumerate(listed):
        progress(number, len(listed))
        path = folder / item.file
        if not path.is_relative_to(folder) or ".." in path.parts or not path.is_file():
            findings.append(f"missing: {item.file}")
        elif path.stat().st_size != item.bytes:
            findings.append(f"size {path.stat().st_size} instead of {item.bytes}: {item.file}")
        elif hash_file(path) != item.sha256:
            findings.append(f"changed: {item.file}")
    progress(len(listed), len(listed))
    expected = {item.file for item in listed} | {MANIFEST, JOURNAL, CONFIG}
    present = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return findings + [f"not in the manifest: {file}" for file in sorted(present) if file not in expected]


def _to_items(rows: Iterable[object]) -> list[ManifestItem]:
    """Returns the rows that are valid; the others are damaged."""
    items = (
        ManifestItem(**row)
        for row in rows
        if isinstance(row, dict) and row.keys() == set(ManifestItem.__struct_fields__)
    )
    return [item for item in items if all(isinstance(getattr(item, name), kind) for name, kind in ITEM_TYPES.items())]


def hash_file(path: Path) -> str:
    """Returns the SHA-256 sum of a file, read in pieces. Raises: OSError."""
    total = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(CHUNK_BYTES):
            total.update(piece)
    return total.hexdigest()


def read_items(folder: Path) -> dict[str, ManifestItem]:
    """Returns the files that an earlier run has brought in already, from its journal or its manifest."""
    rows = [*_read_list(folder, "files"), *_read_journal(folder)]
    return {item.file: item for item in _to_items(rows)}


def read_begun(folder: Path) -> list[str]:
    """Returns the files that an unfinished run has brought in or had just begun to, and those of its manifest."""
    begun = [row[BEGUN] for row in _read_journal(folder) if isinstance(row, dict) and isinstance(row.get(BEGUN), str)]
    return [*begun, *read_items(folder)]


def _read_journal(folder: Path) -> list[Any]:
    rows = []
    for line in (read_regular(folder / JOURNAL, MAX_SIDECAR_BYTES) or b"").splitlines():
        with suppress(ValueError):  # the process died while it wrote this line
            rows.append(json.loads(line))
    return rows


def _read_entries(folder: Path) -> dict[str, Entry]:
    """Returns the entries of the manifest by their place in the archive."""
    rows = [row for row in _read_list(folder, "entries") if isinstance(row, dict) and isinstance(row.get("file"), str)]
    entries = {row["file"]: from_description(folder / row["file"], row) for row in rows}
    return {place: entry for place, entry in entries.items() if entry is not None}


def _read_list(folder: Path, key: str) -> list[Any]:
    """Returns a list of the manifest; empty if there is none."""
    rows = (read_json(folder / MANIFEST) or {}).get(key)
    return rows if isinstance(rows, list) else []


def require_readable(folder: Path, entries: Sequence[tuple[Entry, str]], places: Iterable[str]) -> None:
    """Refuses an archive whose manifest would be too large to be read again; `places`: those of all its files.

    Raises: ValueError.
    """
    unknown = {place: ManifestItem(place, "0" * 64, LARGEST, False, LARGEST) for place in places}
    items = {**unknown, **read_items(folder)}
    size = len(json.dumps(_to_lists(_add_earlier(folder, entries), items.values()), indent=1))
    if size > MAX_MANIFEST_BYTES:
        raise ValueError(
            f"archive {folder.name}: {len(items)} files make a manifest of {size / 1e6:.1f} MB, at most "
            f"{MAX_MANIFEST_BYTES / 1e6:g} MB; take a shorter span, or fewer cameras, under another name"
        )


def write(
    folder: Path,
    span: Span,
    entries: Sequence[tuple[Entry, str]],
    items: Sequence[ManifestItem],
    *,
    now_utc_ns: int,
    owner: Owner,
) -> Entry:
    """Puts the manifest in place, last of all: an archive with a manifest is complete.

    `entries`: each with its place in the archive; those of an earlier run stay, their originals may be gone by now.
    Returns: the archive's row, not yet added; protected if it was. Raises: OSError, LibraryBusy.
    """
    with lock_folder(folder):  # somebody may be protecting the archive of the run before
        entries = _add_earlier(folder, entries)
        started = min(entry.started_utc_ns for entry, _ in entries)
        ended = max(entry.started_utc_ns + round(entry.duration_s * 1e9) for entry, _ in entries)
        cameras = sorted({entry.camera for entry, _ in entries})
        entry = Entry(
            kind="archive",
            camera=cameras[0] if len(cameras) == 1 else "",
            path=folder / MANIFEST,
            started_utc_ns=started,
            duration_s=(ended - started) / 1e9,
            bytes=sum(item.bytes for item in items),
            frames=sum(entry.frames for entry, _ in entries),
            trigger="archive",
            label=folder.name,
            protected=(read_json(folder / MANIFEST) or {}).get("protected") is True,
        )
        manifest = {
            "format": FORMAT,
            "name": folder.name,
            INSTALLATION: owner.id,
            "created": to_iso(now_utc_ns),
            "since": None if span.since_utc_ns is None else to_iso(span.since_utc_ns),
            "until": None if span.until_utc_ns is None else to_iso(span.until_utc_ns),
            "cameras": cameras,
            "session": span.session or None,
            "label_wanted": span.label or None,
            "bytes": entry.bytes,
            "protected": entry.protected,
            **entry.to_description(),
            **_to_lists(entries, items),
        }
        with open_atomic(folder / MANIFEST, replace=True) as file:
            file.write(json.dumps(manifest, indent=1).encode())
    sync_folder(folder.parent)
    return entry


def _add_earlier(folder: Path, entries: Iterable[tuple[Entry, str]]) -> list[tuple[Entry, str]]:
    """Returns the entries with those of an earlier run."""
    by_place = {**_read_entries(folder), **{place: entry for entry, place in entries}}
    return [(entry, place) for place, entry in by_place.items()]


def _to_lists(entries: Iterable[tuple[Entry, str]], items: Iterable[ManifestItem]) -> dict[str, list[dict[str, Any]]]:
    """Returns the lists of a manifest, which are nearly all of it."""
    return {
        "entries": [{**entry.to_description(), "file": place} for entry, place in entries],
        "files": [asdict(item) for item in sorted(items, key=lambda item: item.file)],
    }
