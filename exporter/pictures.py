"""Puts pictures on disk: room first, then the file, whole or not at all, then its row in the library."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter import encode, exif
from exporter.encode import Parts, Samples
from exporter.settings import ExportSettings
from imaging.formats import Geometry
from library import Catalogue, Entry, retention
from library.sidecar import PICTURES, sidecar
from service.files import whole_file
from service.settings import Settings
from shm_ring import FrameMeta

log = logging.getLogger(__name__)

NAME_TRIES = 100
"""Two saves of one frame in one second are counted up; a hundred mean that something else is wrong."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Something to be saved, in any number of formats."""

    samples: Samples
    """A payload: uint8 for one frame, uint16 for a stack."""
    geometry: Geometry
    """What the samples are."""
    meta: FrameMeta
    """Of the frame, or of the last one of a stack."""
    entry: Entry
    """Its row, with the folder and any suffix as path: each format gets its own file and row."""
    more: Mapping[str, Any]
    """What else stands in EXIF: how it was stacked, the scores."""


class Album:
    """Writes into one folder and one catalogue. Used by one thread at a time."""

    def __init__(self, settings: Callable[[], Settings], catalogue: Catalogue) -> None:
        """`settings` gives those of this moment: retention's limits change while we run."""
        self._settings = settings
        self._catalogue = catalogue

    def save(self, picture: Picture, formats: Sequence[str], own: ExportSettings) -> list[Entry]:
        """Save in each of the formats. Returns: the rows.

        Where the library cannot be written, rows have no number: it takes the files up when it can be again.
        Raises: NoRoom and OSError of the disk, sqlite3.Error. Formats before the failing one are safely there.
        """
        return [self._save(picture, kind, own) for kind in formats]

    def _save(self, picture: Picture, kind: str, own: ExportSettings) -> Entry:
        known = exif.about(picture.entry, picture.meta, picture.more)
        parts = encode.encoded(
            picture.samples, picture.geometry, kind, exif.tags(picture.entry, picture.meta, known), own
        )
        path = picture.entry.path.with_suffix(f".{kind}")
        beside = None if path.suffix in PICTURES else {**known, "layout": encode.array_layout(picture.geometry)}
        need = sum(len(part) for part in parts)
        self._room(path, need, picture.entry.kind)
        try:
            path = self._write(path, parts, beside)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # The disk was fuller than it looked (quota, another writer): make twice the room, once.
            log.warning("disk full path=%s need_bytes=%d", path, need)
            self._room(path, 2 * need, picture.entry.kind)
            path = self._write(path, parts, beside)
        return self._catalogue.add_when_writable(replace(picture.entry, path=path))

    def _room(self, path: Path, need: int, kind: str) -> None:
        retention.make_room(self._settings(), self._catalogue, need, path.parent, kind=kind)
        if not path.parent.is_dir():  # only now: not where the disk is not mounted
            path.parent.mkdir(parents=True, exist_ok=True)

    def _write(self, path: Path, parts: Parts, beside: Mapping[str, Any] | None) -> Path:
        """Write the file, and beside it what its format has no place for. Returns: the name it got."""
        for number in range(1, NAME_TRIES + 1):
            free = path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")
            if free.exists():
                continue
            try:
                self._put(free, parts, beside)
            except FileExistsError:
                continue  # somebody took the name between looking and writing
            return free
        raise FileExistsError(errno.EEXIST, "no free name", str(path))

    def _put(self, path: Path, parts: Parts, beside: Mapping[str, Any] | None) -> None:
        """The sidecar gets its name first: a file that a kill left without one would have lost its time and number.

        Until the file has its name, too, its temporary one tells that the sidecar is not a leftover to be swept.
        """
        described = False
        try:
            with whole_file(path) as file:
                for part in parts:
                    file.write(part)
                if beside is not None:
                    with whole_file(sidecar(path)) as facts:
                        facts.write(json.dumps(beside, indent=1).encode())
                    described = True
        except BaseException:
            if described:
                sidecar(path).unlink(missing_ok=True)
            raise
