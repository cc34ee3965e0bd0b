"""Saves frames and stacks: room on the disk first, then the file, whole or not at all, its row and an event.

Each format gets its own file and row. What a format cannot hold lies beside the file, in its sidecar.
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from exporter.hardware_id import read_camera_id
from exporter.pictures import encode, exif
from exporter.pictures.encode import Parts, Samples
from exporter.ring_frames import CameraFrames
from exporter.settings import ExportSettings
from exporter.stacking import dark_frames
from exporter.stacking.stack import StackResult
from shm_ring import Frame, FrameMeta
from shm_ring.formats import Geometry
from shmcam.config.settings import Settings
from shmcam.control.messages import Event, Saved, StackSaved
from shmcam.library import Catalogue, Entry, LibraryError, file_names, retention
from shmcam.library.disks.disk_space import is_limit_unseen
from shmcam.library.sidecar import FILE, INSTALLATION, PICTURES, sidecar_path_of
from shmcam.runtime.atomic_files import open_atomic
from shmcam.runtime.clock import read_clock_error_us
from shmcam.runtime.folder_checks import explain_unusable

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)
FORMATS = ("jpg", "png", "npy", "tiff")
NAME_TRIES = 100
"""Two saves of one frame in one second get numbers; a hundred of them mean that something else is wrong."""


class SaveOptions(Struct, frozen=True):
    """The options of a command that saves."""

    formats: Sequence[str] = ()
    """Some of FORMATS; empty: as configured."""
    label: str = ""
    """A label for the file name."""
    trigger: str = "save"
    """The cause; see Entry.trigger."""
    kind: str = "stack"
    """The kind of a stack's entry: stack or startrails."""
    folder: Path | None = None
    """The folder of the file; None: that of pictures."""
    reason: str = ""
    """Why frames were left out of a stack, for the event."""


class PictureToSave(Struct, frozen=True):
    """A frame or a stack, to be saved in any number of formats."""

    samples: Samples
    """A payload: uint8 for one frame, uint16 for a stack."""
    geometry: Geometry
    """The layout of the samples."""
    meta: FrameMeta
    """The metadata of the frame, or of the last one of a stack."""
    entry: Entry
    """The row, with the folder and any suffix as path."""
    more: Mapping[str, Any]
    """More fields for EXIF: how it was stacked, the scores."""


class SavedStack(Struct, frozen=True):
    """The rows of a saved stack, and its dark frame."""

    entries: list[Entry]
    dark: dark_frames.DarkChoice


class SavedInPart(LibraryError, OSError):
    """The disk refused a file after others of the same command were saved."""

    def __init__(self, problem: Exception, entries: list[Entry]) -> None:
        if isinstance(problem, OSError) and problem.errno is not None:
            super().__init__(problem.errno, problem.strerror, problem.filename)
        else:
            super().__init__(str(problem))
        self.entries = entries
        """The rows of those files."""


@contextmanager
def tell_saved(entries: list[Entry]) -> Iterator[None]:
    """Tells with an error of the block which files are saved all the same. Raises: SavedInPart instead of the error."""
    try:
        yield
    except (LibraryError, OSError) as problem:
        saved = [*entries, *(problem.entries if isinstance(problem, SavedInPart) else ())]
        if not saved:
            raise
        raise SavedInPart(problem, saved) from problem


class PictureSaver:
    """Writes pictures into one folder and one catalogue. Used by one thread at a time."""

    def __init__(
        self, settings: Callable[[], Settings], catalogue: Catalogue, announce: Callable[[Event], None]
    ) -> None:
        """`settings` returns the present settings: they change at run time."""
        self._settings = settings
        self._catalogue = catalogue
        self.announce = announce
        """Sends an event."""
        self._is_refused = False
        """The disk refused the last write for a limit that it does not show, and files were deleted for it."""

    def save_frame(self, camera: CameraFrames, frame: Frame, name: str, options: SaveOptions) -> list[Entry]:
        """Saves one frame in each format. Returns: the rows.

        Where the library cannot be written, rows have no number: it adopts the files later. Formats before a failing
        one stay saved.

        Raises: ValueError, NoRoom and OSError of the disk, SavedInPart.
        """
        own = self._settings().table(ExportSettings, camera.name)
        meta, score = frame.meta, camera.find_score(frame.frame_id)
        entry = Entry(
            kind="picture",
            camera=camera.name,
            path=(options.folder or self._folder) / name,
            started_utc_ns=meta.captured_utc_ns,
            first_frame=meta.frame_id,
            last_frame=meta.frame_id,
            drops=meta.dropped_before,
            score=_round(score.scene_brightness) if score else None,
            trigger=options.trigger,
            label=options.label,
        )
        more = {"dark_score": _round(score.dark_score), "sharpness": _round(score.sharpness)} if score else {}
        picture = PictureToSave(np.asarray(frame.payload), frame.picture, meta, entry, more)

        def event_of(path: str) -> Event:
            return Saved(
                camera=camera.name,
                path=path,
                trigger=options.trigger,
                frame_id=meta.frame_id,
                captured_ns=meta.captured_ns,
            )

        return self._save_formats(picture, options.formats or own.formats, own, event_of)

    def save_stack(
        self, camera: CameraFrames, result: StackResult, more: Mapping[str, Any], options: SaveOptions
    ) -> SavedStack:
        """Saves a stack in each format, its dark frame subtracted. Raises as `save_frame`."""
        settings = self._settings()
        own = settings.table(ExportSettings, camera.name)
        first, last = result.metas[0], result.metas[-1]
        count = result.count
        choice = self._choose_dark(camera, result) if own.dark_frames else dark_frames.NO_DARK
        samples, is_corrected = result.samples, choice.dark is not None
        if choice.dark is not None:
            samples = dark_frames.subtract_dark(samples, result.geometry, choice.dark)
        score = camera.find_score(last.frame_id)
        prefix = camera.name if len(settings.cameras) > 1 else ""
        name = file_names.name_stack(prefix, options.label, last.captured_utc_ns, last.frame_id, count=count)
        entry = Entry(
            kind=options.kind,
            camera=camera.name,
            path=self._folder / name,
            started_utc_ns=first.captured_utc_ns,
            duration_s=result.duration_s,
            first_frame=first.frame_id,
            last_frame=last.frame_id,
            frames=count,
            score=_round(score.scene_brightness) if score else None,
            trigger=options.trigger,
            label=options.label,
        )
        about_dark = {"dark_frame": is_corrected, **({"dark_frame_choice": choice.words} if choice.words else {})}
        picture = PictureToSave(samples, result.geometry, last, entry, {**more, **about_dark})

        def event_of(path: str) -> Event:
            return StackSaved(
                camera=camera.name,
                path=path,
                kind=options.kind,
                trigger=options.trigger,
                frame_id=last.frame_id,
                captured_ns=last.captured_ns,
                count=count,
                first=first.frame_id,
                last=last.frame_id,
                left_out=result.left_out,
                reason=options.reason,
            )

        entries = self._save_formats(picture, options.formats or own.stack_formats, own, event_of)
        if choice.words and not is_corrected:
            log.info("no dark frame used camera=%s %s", camera.name, choice.words)
        return SavedStack(entries, choice)

    @property
    def _folder(self) -> Path:
        return self._settings().paths.captures

    def _choose_dark(self, camera: CameraFrames, result: StackResult) -> dark_frames.DarkChoice:
        """Returns the dark frame that fits, or why none does."""
        folder = self._folder / dark_frames.FOLDER
        if not folder.is_dir():
            return dark_frames.NO_DARK
        socket_path = self._settings().socket_path
        wanted = dark_frames.facts_of(
            camera.name, result.metas[-1], result.geometry, read_camera_id(socket_path, camera.name)
        )
        return dark_frames.choose_dark(folder, wanted, result.samples.size, time.time_ns())

    def _save_formats(
        self, picture: PictureToSave, formats: Sequence[str], own: ExportSettings, event_of: Callable[[str], Event]
    ) -> list[Entry]:
        """Saves each format and announces it at once: a later one may fail."""
        entries: list[Entry] = []
        for kind in check_formats(formats):
            with tell_saved(entries):
                entries.append(self._save_format(picture, kind, own))
            self.announce(event_of(str(entries[-1].path)))
        return entries

    def _save_format(self, picture: PictureToSave, kind: str, own: ExportSettings) -> Entry:
        more = {**picture.more, "clock_error_us": read_clock_error_us(), INSTALLATION: self._catalogue.owner.id}
        description = exif.describe(picture.entry, picture.meta, more)
        tags = exif.tags_of(picture.entry, picture.meta, description)
        parts = encode.encode_picture(picture.samples, picture.geometry, kind, tags, own)
        path = picture.entry.path.with_suffix(f".{kind}")
        layout = encode.array_layout_of(picture.geometry, own.npy)
        beside = None if path.suffix in PICTURES else {**description, "layout": layout}
        need_bytes = sum(len(part) for part in parts)
        self._make_room(path, need_bytes, picture.entry)
        try:
            path = self._write(path, parts, beside)
        except OSError as error:
            is_unseen = is_limit_unseen(error.errno or 0, path.parent)
            if error.errno not in FULL or (is_unseen and self._is_refused):
                raise
            # The disk was fuller than it looked: another writer, a quota, or a file system that does not tell its room.
            # Make twice the room, once. For a limit that free space does not show the oldest files go, but not again
            # before a write has worked.
            log.warning("disk full path=%s need_bytes=%d reason=%s", path, need_bytes, error.strerror)
            self._is_refused = is_unseen
            self._make_room(path, 2 * need_bytes, picture.entry, at_least_bytes=2 * need_bytes * is_unseen)
            path = self._write(path, parts, beside)
        self._is_refused = False
        return self._catalogue.add_when_writable(replace(picture.entry, path=path))

    def _make_room(self, path: Path, need_bytes: int, entry: Entry, *, at_least_bytes: int = 0) -> None:
        retention.make_room(
            *(self._settings(), self._catalogue, need_bytes, path.parent),
            kind=entry.kind,
            trigger=entry.trigger,
            at_least_bytes=at_least_bytes,
        )
        if not path.parent.is_dir():  # only after make_room, which refuses where the disk is not mounted
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                reason = explain_unusable(self._settings().paths.captures) or problem.strerror
                raise OSError(problem.errno, reason, str(path.parent)) from problem

    def _write(self, path: Path, parts: Parts, beside: Mapping[str, Any] | None) -> Path:
        """Writes the file and its sidecar under a name that is free. Returns: the file's path."""
        for number in range(1, NAME_TRIES + 1):
            free = path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")
            if free.exists():
                continue
            try:
                _write_file(free, parts, beside)
            except FileExistsError:
                continue  # another program took the name between the check and the write
            return free
        raise FileExistsError(errno.EEXIST, "no free name", str(path))


def check_formats(formats: Sequence[str]) -> list[str]:
    """Returns the formats to write, each once. Raises: ValueError naming the unknown one."""
    kinds = [{"jpeg": "jpg", "tif": "tiff"}.get(word.lower(), word.lower()) for word in formats]
    if unknown := [kind for kind in kinds if kind not in FORMATS]:
        raise ValueError(f"format {unknown[0][:16]!r}: must be of {', '.join(FORMATS)}")
    return list(dict.fromkeys(kinds))


def _write_file(path: Path, parts: Parts, beside: Mapping[str, Any] | None) -> None:
    """Writes the sidecar's name before the file's: without it a file has no time and no frame number after a kill.

    While the file still bears its temporary name, that name shows that the sidecar is in use.
    """
    has_sidecar = False
    try:
        with open_atomic(path) as file:
            for part in parts:
                file.write(part)
            if beside is not None:
                with open_atomic(sidecar_path_of(path)) as description:
                    description.write(json.dumps({**beside, FILE: path.name}, indent=1).encode())
                has_sidecar = True
    except BaseException:
        if has_sidecar:
            sidecar_path_of(path).unlink(missing_ok=True)
        raise


def _round(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None
