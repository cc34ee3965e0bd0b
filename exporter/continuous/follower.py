"""Feeds timelapse, startrails and virtual long exposure of one camera from its ring, in a thread of its own.

Commands never wait for it, and a disk that refuses only pauses the films.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import av
import numpy as np

from exporter.continuous.long_exposure import LongExposure
from exporter.continuous.startrails import NightStack, StarTrails, format_reasons
from exporter.films.running_film import RunningFilm
from exporter.pictures.save import PictureSaver, SaveOptions
from exporter.ring_frames import CameraFrames
from exporter.settings import ExportSettings
from shm_ring import Frame, LiveRing, RingError, RingReader
from shmcam.config.settings import Settings
from shmcam.control.messages import Failed
from shmcam.library import Catalogue, LibraryError, retention
from shmcam.runtime.clock import now_ns
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff, Interval

log = logging.getLogger(__name__)

IDLE_S = 0.25
"""Seconds between two checks of the settings while no frame comes."""
DEFAULT_INTERVAL_S = 10.0
"""The interval of `timelapse start` where timelapse_interval_s is 0."""
EXPECTED_ERRORS = (OSError, LibraryError, av.FFmpegError, RingError)
"""The refusals of a disk, the library or the encoder; any other error is a bug and stops the process."""


class CameraFollower:
    """Follows the ring of one camera."""

    def __init__(
        self,
        camera: CameraFrames,
        settings: Callable[[], Settings],
        stop: Stop,
        saver: PictureSaver,
        catalogue: Catalogue,
    ) -> None:
        """`camera`, `saver` and `catalogue` are used by this thread only; `settings` returns the present settings."""
        self.thread = Worker(f"follow-{camera.name}", self._run, stop)
        """The thread; `with` starts it."""
        self._stop = stop
        self._camera = camera
        self._settings = settings
        self._saver = saver
        present = settings()
        self.timelapse = RunningFilm(camera.name, settings, catalogue)
        self.startrails_film = RunningFilm(camera.name, settings, catalogue, "startrails")
        self.startrails = StarTrails(
            camera.name,
            lambda: settings().paths.captures,
            lambda folder: retention.require_disk(settings().paths, catalogue, folder),
        )
        own = self._own()
        self.long_exposure = LongExposure(camera.name, present, own.long_exposure_s) if own.long_exposure_s else None
        self.forced: bool | None = None
        """True after `timelapse start`, False after `timelapse stop`; None: as configured."""
        self.trouble = ""
        """The reason why the films pause; empty: they do not. It ends when something is written, or nothing wanted."""
        self.last_night = ""
        """The end of the last night's startrails in words; empty: none since this process began."""
        self._ended_night: NightStack | None = None
        """The last night, until its pictures are saved."""
        self._saved_of_night: set[tuple[str, str]] = set()
        """Its pictures that are, by label and format: where the disk refuses one, no other is saved twice."""
        self._paused_until_ns = 0
        self._backoff = Backoff()
        self._timer = Interval()
        self._startrails_timer = Interval()
        self._ring = LiveRing(present.ring_name(camera.name), stop, waits_for_repair=True)

    @property
    def frames(self) -> int:
        """The number of frames in the growing timelapse; 0 without one."""
        film = self.timelapse.film
        return 0 if film is None else film.frames

    @property
    def startrails_state(self) -> str:
        """Tonight's startrails so far, or those of the last night, in words; empty: none are collected."""
        night = self.startrails.night
        return self.last_night if night is None else f"tonight so far {night.describe()}"

    @property
    def interval_s(self) -> float:
        """The seconds between two frames of the timelapse; 0: no timelapse."""
        configured = self._own().timelapse_interval_s
        if self.forced is None:
            return configured
        return (configured or DEFAULT_INTERVAL_S) if self.forced else 0.0

    def _own(self) -> ExportSettings:
        return self._settings().table(ExportSettings, self._camera.name)

    def _run(self) -> None:
        if self._own().startrails:
            self.startrails.load_state()
        self._try_work(self.timelapse.adopt_leftovers)
        self._try_work(self.startrails_film.adopt_leftovers)
        while not self._stop.requested:
            self._follow()
        self._finish()

    def _follow(self) -> None:
        """Follows the ring until a setting switches something on or off; while all is off it waits."""
        all_frames = self._needs_all_frames()
        if not (all_frames or self._writes_files()):
            self._end_trouble()
            self._ring.release_if_retired()
            self._camera.release_if_retired()
            self._stop.wait(IDLE_S)
            return
        for position in self._ring.sequences(newest_first=not all_frames, idle_s=IDLE_S):
            if position is not None:
                self._add_frame(*position)
            self._camera.release_if_retired()
            if self.long_exposure is not None:
                self.long_exposure.publish(now_ns())
            self._try_work(self._write_what_is_due)
            if not self._writes_files():
                self._end_trouble()
            if self._needs_all_frames() != all_frames or not (all_frames or self._writes_files()):
                return

    def _needs_all_frames(self) -> bool:
        """Tells whether every frame is needed, and not only one per interval."""
        return self._own().startrails or self.long_exposure is not None

    def _writes_files(self) -> bool:
        """Tells whether anything is to be written now or later; a long exposure needs no disk."""
        return bool(self.interval_s or self.timelapse.film or self._own().startrails or self._ended_night)

    def _add_frame(self, reader: RingReader, sequence: int) -> None:
        is_due = self._timer.take_due(now_ns(), self.interval_s) or (
            self.interval_s > 0 and self.timelapse.film is None
        )
        all_frames = self._needs_all_frames()
        if not is_due and not all_frames:
            return
        try:
            frame = reader.copy(sequence)
        except RingError:
            return  # overwritten: the ring holds a newer one
        if self.long_exposure is not None:
            self.long_exposure.add(frame)
        if self._own().startrails:
            self._add_to_startrails(frame)
        if is_due:
            self._try_work(lambda: self._add_to_timelapse(frame))

    def _add_to_timelapse(self, frame: Frame) -> bool:
        self.timelapse.add(np.asarray(frame.payload), frame.picture, frame.meta)
        return True

    def _add_to_startrails(self, frame: Frame) -> None:
        """Adds a frame to the night, in memory, also while the disk refuses files; and the trails to their film."""
        ended_night = self.startrails.add(frame)
        if ended_night is not None:
            if self._ended_night is not None:
                self._report_failed(f"startrails of a night are lost, the disk refused them: {self.trouble}")
            self._ended_night = ended_night
            self._saved_of_night.clear()
        self._try_work(self._add_to_startrails_film)

    def _add_to_startrails_film(self) -> bool:
        """Returns: whether the film got a frame."""
        night = self.startrails.night
        # The film of the night that has ended is closed first, with its pictures.
        if night is None or not night.trails.count or self._ended_night is not None:
            return False
        interval_s = self._own().startrails_film_interval_s
        is_due = self._startrails_timer.take_due(now_ns(), interval_s)
        if is_due or (interval_s and self.startrails_film.film is None):
            self.startrails_film.add(night.trails.value, night.geometry, night.last)
            return True
        return False

    def _save_night(self, night: NightStack) -> None:
        self.startrails_film.close()
        if night.trails.count:
            self._save_pictures(night)
            self.last_night = f"last night {night.describe()}"
        else:
            self.last_night = f"no startrails of last night: {night.describe()}"
            self._report_failed(self.last_night)
        log.info("night ended camera=%s %s", self._camera.name, self.last_night)
        self._ended_night = None  # only after all saves: where the disk refuses, the next try saves the others
        self.startrails.delete_state()

    def _save_pictures(self, night: NightStack) -> None:
        more, reason = {"night": night.summary}, format_reasons(night.left_out)
        for label, kind in (("startrails", "startrails"), ("night", "stack")):
            missing = [one for one in self._own().stack_formats if (label, one) not in self._saved_of_night]
            stack = night.brightest if label == "startrails" else night.average
            for picture_format in missing:
                options = SaveOptions((picture_format,), trigger="auto", kind=kind, label=label, reason=reason)
                self._saver.save_stack(self._camera, stack, more, options)
                self._saved_of_night.add((label, picture_format))

    def _report_failed(self, what: str) -> None:
        self._saver.announce(Failed(what=what, program="exporter", camera=self._camera.name))

    def _write_what_is_due(self) -> bool:
        """Returns: whether something was written."""
        has_saved = False
        if self._ended_night is not None:
            self._save_night(self._ended_night)
            has_saved = True
        has_saved |= self.startrails.save_state(now_ns(), self._own().startrails_interval_s)
        if not self.interval_s and self.timelapse.film is not None:
            has_saved |= self.timelapse.close() is not None
        return has_saved

    def _try_work(self, work: Callable[[], object]) -> None:
        """Does the work unless a refusal pauses it; a refusal now is logged and begins a longer pause.

        `work` returns something true where it has written: only that proves that the disk takes it again.
        """
        if now_ns() < self._paused_until_ns:
            return
        try:
            has_written = work()
        except EXPECTED_ERRORS as problem:
            delay_s = self._backoff.next_delay_s()
            self._paused_until_ns = now_ns() + round(delay_s * 1e9)
            log.warning(
                "timelapse and startrails pause camera=%s for_s=%g reason=%s", self._camera.name, delay_s, problem
            )
            self.trouble = str(problem)
            return
        if has_written:
            self._end_trouble()

    def _end_trouble(self) -> None:
        if self.trouble:
            log.info("timelapse and startrails go on camera=%s", self._camera.name)
            self.trouble = ""
        self._backoff.reset()
        self._paused_until_ns = 0

    def _finish(self) -> None:
        self._paused_until_ns = 0  # a last try
        self._try_work(self.timelapse.close)
        self._try_work(self.startrails_film.close)
        if self._own().startrails:
            self._try_work(lambda: self.startrails.save_state(now_ns() + (1 << 62), 0))
        if self.long_exposure is not None:
            self.long_exposure.close()
        self._ring.close()
