"""One thread per camera for what goes on all day: timelapse, startrails, virtual long exposure.

It reads the ring on its own, so commands never wait for it; and a disk that refuses only pauses the film.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

import av
import numpy as np

from exporter.continuous.long_exposure import LongExposure
from exporter.continuous.startrails import NightStack, StarTrails
from exporter.films.running_film import RunningFilm
from exporter.frames import CameraFrames
from exporter.pictures.save import PictureSaver, SaveOptions
from exporter.settings import ExportSettings
from shm_ring import Frame, LiveRing, RingError, RingReader
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, LibraryError
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff, Interval
from shmcam.runtime.worker import Worker

log = logging.getLogger(__name__)

IDLE_S = 0.25
DEFAULT_INTERVAL_S = 10.0
"""`timelapse start` where timelapse_interval_s is 0."""
TROUBLE = (OSError, LibraryError, sqlite3.Error, av.FFmpegError, RingError)
"""What a disk, the library or the encoder may refuse; anything else is a bug and stops the process."""


class CameraFollower:
    """Follows one camera."""

    def __init__(
        self,
        camera: CameraFrames,
        settings: Callable[[], Settings],
        stop: Stop,
        saver: PictureSaver,
        catalogue: Catalogue,
    ) -> None:
        """`camera`, `saver` and `catalogue` are this thread's own; `settings` gives those of this moment."""
        self.thread = Worker(f"follow-{camera.name}", self._run, stop)
        """Started by `with`."""
        self._stop = stop
        self._camera = camera
        self._settings = settings
        self._saver = saver
        first = settings()
        self.film = RunningFilm(camera.name, settings, catalogue)
        self.trails_film = RunningFilm(camera.name, settings, catalogue, "startrails")
        self.trails = StarTrails(camera.name, lambda: settings().paths.captures)
        own = self._own()
        self.long = LongExposure(camera.name, first, own.long_exposure_s) if own.long_exposure_s else None
        self.forced: bool | None = None
        """timelapse start (True) or stop (False) by command; None: as configured."""
        self.trouble = ""
        """Why the film or the trails pause; empty: they do not."""
        self._ended_night: NightStack | None = None
        self._resting_until_ns = 0
        self._backoff = Backoff()
        self._timer = Interval()
        self._trails_timer = Interval()
        self._ring = LiveRing(first.ring_name(camera.name), stop)

    @property
    def frames(self) -> int:
        """Frames in the film that is growing; 0 without one."""
        film = self.film.film
        return 0 if film is None else film.frames

    @property
    def interval_s(self) -> float:
        """Seconds between frames of the film; 0: no film."""
        configured = self._own().timelapse_interval_s
        if self.forced is None:
            return configured
        return (configured or DEFAULT_INTERVAL_S) if self.forced else 0.0

    def _own(self) -> ExportSettings:
        return self._settings().table(ExportSettings, self._camera.name)

    def _run(self) -> None:
        if self._own().startrails:
            self.trails.resume()
        self._without_trouble(self.film.adopt_leftovers)
        self._without_trouble(self.trails_film.adopt_leftovers)
        while not self._stop.requested:
            self._watch()
        self._ended()

    def _watch(self) -> None:
        """Until something is switched on or off; idle costs nothing."""
        every = self._every()
        if not every and not self.interval_s and self.film.film is None:
            self._ring.let_go_if_retired()
            self._camera.let_go_if_retired()
            self._stop.wait(IDLE_S)
            return
        for found in self._ring.sequences(newest_first=not every, idle_s=IDLE_S):
            if found is not None:
                self._take(*found)
            self._without_trouble(self._tend)
            if self._every() != every or not (every or self.interval_s or self.film.film):
                return

    def _every(self) -> bool:
        """Whether each frame is wanted, not just one now and then."""
        return self._own().startrails or self.long is not None

    def _take(self, reader: RingReader, sequence: int) -> None:
        due = self._timer.take_due(now_ns(), self.interval_s) or (self.interval_s > 0 and self.film.film is None)
        every = self._every()
        if not due and not every:
            return
        try:
            frame = reader.copy(sequence)
        except RingError:
            return  # overwritten: a newer one is there already
        if self.long is not None:
            self.long.add(frame)
        if self._own().startrails:
            self._without_trouble(lambda: self._trails(frame))
        if due:
            self._without_trouble(lambda: self.film.add(np.asarray(frame.payload), frame.picture, frame.meta))

    def _trails(self, frame: Frame) -> None:
        ended = self.trails.add(frame)
        if ended is not None and ended.trails.count:
            self._ended_night = ended
        night = self.trails.night
        if night is None or not night.trails.count:
            return
        interval_s = self._own().startrails_film_interval_s
        if self._trails_timer.take_due(now_ns(), interval_s) or (interval_s and self.trails_film.film is None):
            self.trails_film.add(night.trails.value, night.geometry, night.last)

    def _keep_night(self, night: NightStack) -> None:
        self.trails_film.close()
        more = {"night": night.summary}
        self._saver.save_stack(
            self._camera, night.brightest, more, SaveOptions(trigger="auto", kind="startrails", label="startrails")
        )
        self._saver.save_stack(self._camera, night.average, more, SaveOptions(trigger="auto", label="night"))
        self._ended_night = None  # only now: where the disk refuses, it is tried again
        self.trails.forget()

    def _tend(self) -> None:
        """What is done by the clock."""
        self._camera.let_go_if_retired()
        if self.long is not None:
            self.long.publish(now_ns())
        if self._ended_night is not None:
            self._keep_night(self._ended_night)
        self.trails.keep(now_ns(), self._own().startrails_interval_s)
        if not self.interval_s and self.film.film is not None:
            self.film.close()

    def _without_trouble(self, work: Callable[[], object]) -> None:
        """Do it, unless the disk refused a moment ago; if it refuses now, rest and say so."""
        if now_ns() < self._resting_until_ns:
            return
        try:
            work()
        except TROUBLE as problem:
            delay_s = self._backoff.next_delay_s()
            self._resting_until_ns = now_ns() + round(delay_s * 1e9)
            log.warning(
                "timelapse and startrails pause camera=%s for_s=%g reason=%s", self._camera.name, delay_s, problem
            )
            self.trouble = str(problem)
            self.film.abandon()
            self.trails_film.abandon()
            return
        if self.trouble:
            self.trouble = ""
            self._backoff.reset()

    def _ended(self) -> None:
        self._without_trouble(self.film.close)
        self._without_trouble(self.trails_film.close)
        if self._own().startrails:
            self._without_trouble(lambda: self.trails.keep(now_ns() + (1 << 62), 0))
        if self.long is not None:
            self.long.close()
        self._ring.close()
