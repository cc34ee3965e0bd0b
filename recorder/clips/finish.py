"""The thread that puts closed files into their last form and into the library, while the next clip is written.

Everything here may take long and may be cut off at any moment: the file is complete and playable before it gets here.

Makes an mp4 a plain one with its index in front, by copying packets.

The old file is replaced when the new one is safely on disk, never before.
"""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import av

from recorder.clips import recovery
from recorder.clips.notices import Closed, Filed, Notice
from recorder.clips.writer import FINISHING, give_way
from recorder.encoding.encoder import TIME_BASE
from recorder.resume import EventMarks
from recorder.settings import RecorderSettings
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry, LibraryError
from shmcam.library.retention import keep_newest
from shmcam.library.room import DiskRoom, room_at
from shmcam.library.settings import LibrarySettings
from shmcam.runtime.files import whole_file
from shmcam.runtime.stop import Stop

ROOM_FACTOR = 1.02
"""Size of the copy in sizes of the original; it has the same samples and a smaller index."""
LOOK_EVERY = 100
"""Packets between two looks at `stop`."""


class _Stopped(Exception):
    """The process ends: the file stays as it is."""


def fits(path: Path, room: DiskRoom) -> bool:
    """Whether a copy of the file would leave the reserve untouched."""
    return room.short_bytes(int(path.stat().st_size * ROOM_FACTOR)) < 0


def faststart(path: Path, stop: Stop) -> bool:
    """Rewrite `path` with its index in front. Returns: False when stopped, with nothing changed.

    Raises: OSError, av.FFmpegError, ValueError (the copy is not what the original is); nothing has changed then.
    """
    try:
        with whole_file(path, replace=True) as file:
            copy = f"/proc/self/fd/{file.fileno()}"  # FFmpeg reads it again to put the index in front: it needs a name
            count = _copied(path, copy, stop)
            if (found := _packets(copy)) != count:
                raise ValueError(f"{path}: a copy of {found} frames of {count}")
            os.fchmod(file.fileno(), path.stat().st_mode)
    except _Stopped:
        return False
    return True


def _copied(path: Path, copy: str, stop: Stop) -> int:
    """Copy all packets. Returns: how many. Raises: _Stopped."""
    options = {"movflags": "+faststart", "video_track_timescale": str(TIME_BASE.denominator)}
    count = 0
    with av.open(str(path)) as source, av.open(copy, "w", format="mp4", container_options=options) as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        target.metadata.update(source.metadata)
        for packet in source.demux(video):
            if packet.size == 0:
                continue
            if count % LOOK_EVERY == 0 and stop.requested:
                raise _Stopped
            packet.stream = stream
            target.mux_one(packet)
            count += 1
    return count


def _packets(path: str) -> int:
    with av.open(path) as file:
        return file.streams.video[0].frames


log = logging.getLogger(__name__)


class Finisher:
    """`start`ed, fed through `closed`, and `close`d; reports through `notices`."""

    def __init__(
        self,
        settings: Settings,
        own: RecorderSettings,
        camera: str,
        *,
        marks: EventMarks,
        catalogue: Catalogue,
        closed: queue.SimpleQueue[Closed],
        notices: queue.SimpleQueue[Notice],
    ) -> None:
        self.own = own
        self.settings = settings
        """Both replaced by the loop when a live key changes."""
        self.failure: BaseException | None = None
        """What ended the thread: a bug; the process must end, too."""
        self._catalogue, self._marks = catalogue, marks
        self._closed, self._notices, self._camera = closed, notices, camera
        self._unfiled = recovery.unfiled(settings.paths.recordings, camera)
        self._returned = False
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run, name="finish", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop after the present file; a copy under way is given up."""
        self._stop.request()
        self._thread.join(timeout_s)

    def adopt(self) -> None:
        """Look for leftovers: a disk that was read-only, full or away can be written again."""
        self._returned = True

    # ---- in the thread

    def _run(self) -> None:
        give_way(FINISHING)
        try:
            self._catch_up()
            while not (self._stop.requested and self._closed.empty()):
                if self._returned:
                    self._returned = False
                    for closed in recovery.adopt(self.settings.paths.recordings, self._camera, alone=False):
                        self._finish(self._marks.onto(closed))
                with suppress(queue.Empty):
                    self._finish(self._closed.get(timeout=0.2))
        except BaseException as error:
            self.failure = error
            raise

    def _catch_up(self) -> None:
        """Finish what a recorder before us closed and did not live to finish."""
        for path in self._unfiled:
            with suppress(OSError):
                if not self._stop.requested and (closed := recovery.closed(path, self._camera)) is not None:
                    log.info("closed clip put into the library path=%s", path)
                    self._finish(self._marks.onto(closed))

    def _finish(self, closed: Closed) -> None:
        try:
            if not closed.path.exists():
                return
            if self._wants_copy(closed) and faststart(closed.path, self._stop):
                log.info("index moved to the front path=%s", closed.path)
        except (OSError, av.FFmpegError, ValueError) as error:
            log.warning("file stays as recorded path=%s reason=%s", closed.path, error)
        try:
            entry = self._catalogue.add(entry_of(closed))
            self._notices.put(Filed(closed, entry.bytes))
            if closed.order.trigger == "rolling":
                count = self.own.rolling_clips_count
                keep_newest(self._catalogue, count, kind="clip", camera=closed.camera, trigger="rolling")
        except (OSError, sqlite3.Error, LibraryError) as error:
            # The file is safe; the library finds it when it next compares itself with the disk.
            log.warning("not in the library yet path=%s reason=%s", closed.path, error)

    def _wants_copy(self, closed: Closed) -> bool:
        if self.own.on_close != "faststart" or closed.path.suffix != ".mp4" or self._stop.requested:
            return False
        if closed.order.kind == "rolling":
            return False  # written to be deleted: not worth writing twice
        if fits(closed.path, room_at(closed.path.parent, self.settings.table(LibrarySettings))):
            return True
        log.info("file stays as recorded path=%s reason=no room for a copy", closed.path)
        return False


def entry_of(closed: Closed) -> Entry:
    """The library's row of a clip."""
    totals, order = closed.totals, closed.order
    return Entry(
        kind="session" if order.kind == "session" else "clip",
        camera=closed.camera,
        path=closed.path,
        started_utc_ns=closed.started_utc_ns,
        duration_s=totals.duration_s,
        first_frame=totals.first_frame,
        last_frame=totals.last_frame,
        frames=totals.frames,
        drops=totals.drops,
        trigger=order.trigger,
        label=order.label,
        companions=(closed.timing.name,) if closed.timing else (),
        protected=order.protect,
    )
