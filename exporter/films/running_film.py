"""A film of one camera that grows all day: the timelapse, or the startrails of a night. Used by one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from exporter.films.film import FRAME_BYTES, ROOM_FRAMES, Film, adopt_film, read_camera
from exporter.settings import ExportSettings
from shm_ring import FrameMeta
from shm_ring.formats import Geometry
from shmcam.config.settings import Settings
from shmcam.imaging.accumulate import Payload
from shmcam.library import Catalogue, Entry, file_names, retention
from shmcam.library.sidecar import INSTALLATION
from shmcam.runtime.atomic_files import PART, find_unused_path

log = logging.getLogger(__name__)


@dataclass
class RunningFilm:
    """A film that grows, the next one when it is full, and their rows in the library."""

    camera: str
    settings: Callable[[], Settings]
    catalogue: Catalogue
    kind: str = "timelapse"
    """Kind of the entries and beginning of the file names: timelapse or startrails."""
    film: Film | None = None
    _metas: list[FrameMeta] = field(default_factory=list)
    """First and last frame in the film."""

    def add(self, payload: Payload, geometry: Geometry, meta: FrameMeta) -> None:
        """Appends a picture; begins a new film when there is none, it is full or of another size.

        Raises: OSError, av.FFmpegError; NoRoom, after which the film goes on when there is room again.
        """
        settings = self.settings()
        own = settings.table(ExportSettings, self.camera)
        if self.film is not None and self._is_over(geometry, meta, own):
            self.close()
        if self.film is None:
            self.film = self._begin(geometry, meta, settings, own)
        elif self.film.frames % ROOM_FRAMES == 0:
            self._make_room(settings)
        try:
            self.film.add(payload)
        except BaseException:
            self._abandon()
            raise
        self._metas = [self._metas[0] if self._metas else meta, meta]

    def close(self) -> Entry | None:
        """Ends the film and puts it into the library. Returns: its row. Raises: OSError."""
        film, self.film = self.film, None
        if film is None or not self._metas:
            return None
        first, last = self._metas
        self._metas = []
        path = film.close()
        if path is None:
            return None
        log.info("%s closed camera=%s path=%s frames=%d", self.kind, self.camera, path, film.frames)
        entry = Entry(
            kind=self.kind,
            camera=self.camera,
            path=path,
            started_utc_ns=first.captured_utc_ns,
            duration_s=round((last.captured_ns - first.captured_ns) / 1e9, 3),
            first_frame=first.frame_id,
            last_frame=last.frame_id,
            frames=film.frames,
            trigger="timer",
        )
        return self.catalogue.add_when_writable(entry)

    def adopt_leftovers(self) -> None:
        """Puts films that a kill left unfinished into the library; the first camera also those of removed cameras.

        Raises: OSError.
        """
        settings = self.settings()
        for part in sorted(settings.paths.captures.glob(f"{self.kind}_*.mp4{PART}")):
            # The film first: in its name a label looks like a part of the camera's.
            camera = read_camera(part) or file_names.film_camera_of(part.name, self.kind)
            is_of_removed = self.camera == settings.cameras[0] and camera not in settings.cameras
            if not camera or (camera != self.camera and not is_of_removed):
                continue
            entry = adopt_film(part, camera, self.catalogue.owner)
            if entry is not None:
                log.info("%s film adopted camera=%s path=%s frames=%d", self.kind, camera, entry.path, entry.frames)
                self.catalogue.add_when_writable(entry)

    def _abandon(self) -> None:
        """Leaves the film on a disk that refused, to be adopted later; the next picture begins a new one."""
        if self.film is not None:
            self.film.abandon()
        self.film, self._metas = None, []

    def _is_over(self, geometry: Geometry, meta: FrameMeta, own: ExportSettings) -> bool:
        assert self.film is not None  # noqa: S101 - called only while there is one
        is_full = meta.captured_ns - self._metas[0].captured_ns >= own.timelapse_roll_hours * 3600e9
        return is_full or geometry != self.film.geometry

    def _begin(self, geometry: Geometry, meta: FrameMeta, settings: Settings, own: ExportSettings) -> Film:
        self.adopt_leftovers()  # films that were abandoned when the disk was full
        self._make_room(settings)
        folder = settings.paths.captures
        folder.mkdir(parents=True, exist_ok=True)
        name = file_names.name_film(self.kind, self.camera, "", meta.captured_utc_ns)
        path = find_unused_path(folder / f"{name}.mp4")
        about = {
            "kind": self.kind,
            "camera": self.camera,
            "started_utc_ns": meta.captured_utc_ns,
            "first_frame": meta.frame_id,
            "trigger": "timer",
            INSTALLATION: self.catalogue.owner.id,
        }
        log.info("%s begun camera=%s path=%s fps=%g", self.kind, self.camera, path, own.timelapse_fps)
        return Film(path, geometry, fps=own.timelapse_fps, crf=own.timelapse_crf, about=about)

    def _make_room(self, settings: Settings) -> None:
        need_bytes = ROOM_FRAMES * FRAME_BYTES
        retention.make_room(
            settings, self.catalogue, need_bytes, settings.paths.captures, kind=self.kind, trigger="timer"
        )
