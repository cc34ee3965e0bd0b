"""From a frame or a stack to files, rows and an event: what is written about it, and where.

Puts pictures on disk: room first, then the file, whole or not at all, then its row in the library.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.frames import CameraFrames
from exporter.pictures import encode, exif, names
from exporter.pictures.encode import Parts, Samples
from exporter.settings import ExportSettings
from exporter.stacking import dark_frames
from exporter.stacking.stack import Stacked
from shm_ring import Frame, FrameMeta
from shm_ring.formats import Geometry
from shmcam.config.settings import Settings
from shmcam.control.messages import Event, Saved, StackSaved
from shmcam.imaging.accumulate import Samples16
from shmcam.library import Catalogue, Entry, retention
from shmcam.library.sidecar import PICTURES, sidecar
from shmcam.runtime.files import whole_file

log = logging.getLogger(__name__)

NAME_TRIES = 100
"""Two saves of one frame in one second are counted up; a hundred mean that something else is wrong."""


@dataclass(frozen=True, slots=True)
class PictureToSave:
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


class PictureFiles:
    """Writes into one folder and one catalogue. Used by one thread at a time."""

    def __init__(self, settings: Callable[[], Settings], catalogue: Catalogue) -> None:
        """`settings` gives those of this moment: retention's limits change while we run."""
        self._settings = settings
        self._catalogue = catalogue

    def save(self, picture: PictureToSave, formats: Sequence[str], own: ExportSettings) -> list[Entry]:
        """Save in each of the formats. Returns: the rows.

        Where the library cannot be written, rows have no number: it takes the files up when it can be again.
        Raises: NoRoom and OSError of the disk, sqlite3.Error. Formats before the failing one are safely there.
        """
        return [self._save(picture, kind, own) for kind in formats]

    def _save(self, picture: PictureToSave, kind: str, own: ExportSettings) -> Entry:
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


FORMATS = ("jpg", "png", "npy", "tiff")


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How somebody wants it."""

    formats: Sequence[str] = ()
    """Of FORMATS; empty: as configured."""
    label: str = ""
    """For the file name."""
    trigger: str = "save"
    """What caused it; see Entry.trigger."""
    kind: str = "stack"
    """Kind of a stack's entry: stack or startrails."""


class PictureSaver:
    """Keeps frames and stacks. Used by one thread at a time."""

    def __init__(
        self, settings: Callable[[], Settings], album: PictureFiles, announce: Callable[[Event], None]
    ) -> None:
        """`settings` gives those of this moment: they change while we run."""
        self._settings = settings
        self._album = album
        self._announce = announce

    def keep_frame(self, camera: CameraFrames, frame: Frame, name: str, wish: SaveOptions) -> list[Entry]:
        """Save one frame. Raises: OSError, ValueError."""
        own = self._settings().table(ExportSettings, camera.name)
        meta, score = frame.meta, camera.score(frame.frame_id)
        entry = Entry(
            kind="picture",
            camera=camera.name,
            path=self._folder() / name.rstrip("."),
            started_utc_ns=meta.captured_utc_ns,
            first_frame=meta.frame_id,
            last_frame=meta.frame_id,
            drops=meta.dropped_before,
            score=_rounded(score.scene_brightness) if score else None,
            trigger=wish.trigger,
            label=wish.label,
        )
        more = {"dark_score": _rounded(score.dark_score), "sharpness": _rounded(score.sharpness)} if score else {}
        picture = PictureToSave(np.asarray(frame.payload), frame.picture, meta, entry, more)
        entries = self._album.save(picture, checked(wish.formats or own.formats), own)
        kind = wish.trigger if wish.trigger in ("snapshot", "auto") else "picture"
        for one in entries:
            path = str(one.path)
            self._announce(
                Saved(camera=camera.name, path=path, kind=kind, frame_id=meta.frame_id, captured_ns=meta.captured_ns)
            )
        return entries

    def keep_stack(
        self, camera: CameraFrames, result: Stacked, more: Mapping[str, Any], wish: SaveOptions
    ) -> list[Entry]:
        """Save a stack, its dark frame taken off. Raises: OSError, ValueError."""
        settings = self._settings()
        own = settings.table(ExportSettings, camera.name)
        first, last = result.metas[0], result.metas[-1]
        count = result.count
        samples, corrected = self._without_dark(camera, result) if own.dark_frames else (result.samples, False)
        score = camera.score(last.frame_id)
        several = camera.name if len(settings.cameras) > 1 else ""
        name = names.stack(several, wish.label, last.captured_utc_ns, last.frame_id, count=count, kind="")
        entry = Entry(
            kind=wish.kind,
            camera=camera.name,
            path=self._folder() / name.rstrip("."),
            started_utc_ns=first.captured_utc_ns,
            duration_s=round((last.captured_ns - first.captured_ns) / 1e9, 6),
            first_frame=first.frame_id,
            last_frame=last.frame_id,
            frames=count,
            score=_rounded(score.scene_brightness) if score else None,
            trigger=wish.trigger,
            label=wish.label,
        )
        picture = PictureToSave(samples, result.geometry, last, entry, {**more, "dark_frame": corrected})
        entries = self._album.save(picture, checked(wish.formats or own.stack_formats), own)
        for one in entries:
            self._announce(
                StackSaved(
                    camera=camera.name,
                    path=str(one.path),
                    kind=wish.kind,
                    frame_id=last.frame_id,
                    captured_ns=last.captured_ns,
                    count=count,
                    first=first.frame_id,
                    last=last.frame_id,
                )
            )
        return entries

    def _folder(self) -> Path:
        return self._settings().paths.captures

    def _without_dark(self, camera: CameraFrames, result: Stacked) -> tuple[Samples16, bool]:
        last = result.metas[-1]
        place = self._folder() / dark_frames.FOLDER
        known = dark_frames.load_dark(place, camera.name, last.exposure_us, last.analogue_gain, result.samples.size)
        if known is None:
            return result.samples, False
        return dark_frames.subtract_dark(result.samples, result.geometry, known), True


def checked(formats: Sequence[str]) -> list[str]:
    """The formats to write, each once. Raises: ValueError naming the unknown one."""
    wanted = [{"jpeg": "jpg", "tif": "tiff"}.get(word.lower(), word.lower()) for word in formats]
    if unknown := [word for word in wanted if word not in FORMATS]:
        raise ValueError(f"format {unknown[0][:16]!r}: must be of {', '.join(FORMATS)}")
    return list(dict.fromkeys(wanted))


def _rounded(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None
