"""From a frame or a stack to files, rows and an event: what is written about it, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from control.messages import Event, Saved, StackSaved
from exporter import darks, names
from exporter.camera import Camera
from exporter.pictures import Album, Picture
from exporter.settings import ExportSettings
from exporter.stacking import Stacked
from imaging.stack import Deep
from library.entry import Entry
from service.settings import Settings
from shm_ring import Frame

FORMATS = ("jpg", "png", "npy", "tiff")


@dataclass(frozen=True, slots=True)
class Wish:
    """How somebody wants it."""

    formats: Sequence[str] = ()
    """Of FORMATS; empty: as configured."""
    label: str = ""
    """For the file name."""
    trigger: str = "save"
    """What caused it; see Entry.trigger."""
    kind: str = "stack"
    """Kind of a stack's entry: stack or startrails."""


class Keeper:
    """Keeps frames and stacks. Used by one thread at a time."""

    def __init__(self, settings: Callable[[], Settings], album: Album, announce: Callable[[Event], None]) -> None:
        """`settings` gives those of this moment: they change while we run."""
        self._settings = settings
        self._album = album
        self._announce = announce

    def keep_frame(self, camera: Camera, frame: Frame, name: str, wish: Wish) -> list[Entry]:
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
        picture = Picture(np.asarray(frame.payload), frame.picture, meta, entry, more)
        entries = self._album.save(picture, checked(wish.formats or own.formats), own)
        kind = wish.trigger if wish.trigger in ("snapshot", "auto") else "picture"
        for one in entries:
            path = str(one.path)
            self._announce(
                Saved(camera=camera.name, path=path, kind=kind, frame_id=meta.frame_id, captured_ns=meta.captured_ns)
            )
        return entries

    def keep_stack(self, camera: Camera, result: Stacked, more: Mapping[str, Any], wish: Wish) -> list[Entry]:
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
        picture = Picture(samples, result.geometry, last, entry, {**more, "dark_frame": corrected})
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

    def _without_dark(self, camera: Camera, result: Stacked) -> tuple[Deep, bool]:
        last = result.metas[-1]
        place = self._folder() / darks.FOLDER
        known = darks.load_dark(place, camera.name, last.exposure_us, last.analogue_gain, result.samples.size)
        if known is None:
            return result.samples, False
        return darks.subtract_dark(result.samples, result.geometry, known), True


def checked(formats: Sequence[str]) -> list[str]:
    """The formats to write, each once. Raises: ValueError naming the unknown one."""
    wanted = [{"jpeg": "jpg", "tif": "tiff"}.get(word.lower(), word.lower()) for word in formats]
    if unknown := [word for word in wanted if word not in FORMATS]:
        raise ValueError(f"format {unknown[0][:16]!r}: must be of {', '.join(FORMATS)}")
    return list(dict.fromkeys(wanted))


def _rounded(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None
