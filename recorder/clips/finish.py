"""The thread that brings closed files into their last form and into the library, while the next clip is written.

An mp4 becomes a plain one with its index in front, by copying packets. Everything here may take long and may be cut
off at any moment: the file is complete and playable before it gets here.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av

from recorder.clips.recovery import adopt_leftovers, find_removed_cameras, find_unfiled, read_closed
from recorder.clips.writer import FINISHER_STEPS, lower_priority
from recorder.clips.writer_events import Closed, Filed, Notice
from recorder.encoding.encoder import TIME_BASE
from recorder.resume import EventMarks
from recorder.settings import RecorderSettings
from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry, LibraryError
from shmcam.library.disks.disk_space import DiskRoom, measure_room
from shmcam.library.retention import keep_newest
from shmcam.library.settings import LibrarySettings
from shmcam.runtime.atomic_files import open_atomic
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

COPY_FACTOR = 1.02
"""Size of the copy in sizes of the original; it has the same samples and a smaller index."""
UNPROVEN_AGE_S = 86_400.0
"""Of a camera that is not ours by its name: another machine on the same disk may be writing what is younger."""
WAIT_S = 0.5
"""Seconds between two looks at what waits for the disk, and at the request to end."""
RETRY_S = 15.0
"""Seconds until what was not possible is tried again: a clip not in the library yet, room that could not be made."""
WAITING_MAX = 1000
"""Clips that wait for that; earlier ones are found at the next start."""
STOP_CHECK_PACKETS = 100
"""Packets between two checks of `stop`."""


class _Stopped(Exception):
    """The process ends: the file stays as it is."""


def has_room_for_copy(path: Path, room: DiskRoom) -> bool:
    """Tells whether a copy of the file would leave the reserve untouched."""
    return room.missing_bytes(int(path.stat().st_size * COPY_FACTOR)) < 0


def move_index_to_front(path: Path, stop: Stop) -> bool:
    """Rewrites `path` with its index in front, by copying packets.

    The old file is replaced when the new one is safely on disk, never before.
    Returns: False when stopped, with nothing changed.

    Raises: OSError, av.FFmpegError, ValueError (the copy is not what the original is); nothing has changed then.
    """
    try:
        with open_atomic(path, replace=True) as file:
            copy = f"/proc/self/fd/{file.fileno()}"  # FFmpeg reads it again to put the index in front: it needs a name
            count = _copy_packets(path, copy, stop)
            if (frames := _count_frames(copy)) != count:
                raise ValueError(f"{path}: a copy of {frames} frames of {count}")
            os.fchmod(file.fileno(), path.stat().st_mode)
    except _Stopped:
        return False
    return True


def _copy_packets(path: Path, copy: str, stop: Stop) -> int:
    """Copies all packets. Returns: their number. Raises: _Stopped."""
    options = {"movflags": "+faststart", "video_track_timescale": str(TIME_BASE.denominator)}
    count = 0
    with av.open(str(path)) as source, av.open(copy, "w", format="mp4", container_options=options) as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        target.metadata.update(source.metadata)
        for packet in source.demux(video):
            if packet.size == 0:
                continue
            if count % STOP_CHECK_PACKETS == 0 and stop.requested:
                raise _Stopped
            packet.stream = stream
            target.mux_one(packet)
            count += 1
    return count


def _count_frames(path: str) -> int:
    with av.open(path) as file:
        return file.streams.video[0].frames


class Finisher:
    """The thread that finishes closed clips. `closed` feeds it; it reports through `notices`; `close` it."""

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
        stop: Stop,
        make_room_again: Callable[[], None] = lambda: None,
    ) -> None:
        """`stop` fails if the thread meets a bug; a stop alone does not end the thread, `close` does.

        `make_room_again` is called now and then.
        """
        self.own = own
        self.settings = settings
        """The loop replaces both when a live key changes."""
        self._catalogue, self._marks = catalogue, marks
        self._closed, self._notices, self._camera = closed, notices, camera
        self._unfiled = find_unfiled(settings.paths.recordings, camera)
        self._disk_is_back = False
        self._waiting: deque[Closed] = deque(maxlen=WAITING_MAX)
        self._retry_s = self._room_s = 0.0
        self._make_room_again = make_room_again
        self._close_request = Stop()
        self._worker = Worker("finish", self._finish_clips, stop)

    def start(self) -> None:
        """Starts the thread."""
        self._worker.start()

    def close(self, timeout_s: float) -> None:
        """Stops the thread after the present file; a copy under way is given up."""
        self._close_request.request()
        self._worker.join(timeout_s)

    def adopt_leftovers(self) -> None:
        """Adopts leftovers soon: a disk that was read-only, full or away can be written again."""
        self._disk_is_back = True

    # ---- in the thread

    def _finish_clips(self) -> None:
        lower_priority(FINISHER_STEPS)
        self._finish_unfiled()
        self._adopt_of_removed_cameras()
        while not (self._close_request.requested and self._closed.empty()):
            if self._disk_is_back:
                self._disk_is_back = False
                for closed in self._adopt_late():
                    self._finish(self._marks.apply_to(closed))
            with suppress(queue.Empty):
                self._finish(self._closed.get(timeout=WAIT_S))
            if self._waiting and time.monotonic() >= self._retry_s:
                self._finish(self._waiting.popleft())
            if time.monotonic() >= self._room_s:
                self._room_s = time.monotonic() + RETRY_S
                self._make_room_again()

    def _adopt_late(self) -> list[Closed]:
        recordings = self.settings.paths.recordings
        return adopt_leftovers(recordings, self._camera, self._catalogue.owner, alone=False)

    def _adopt_of_removed_cameras(self) -> None:
        """Adopts the leftovers of cameras that were renamed or removed; the recorder of the first camera does it."""
        settings, recordings = self.settings, self.settings.paths.recordings
        if self._camera != settings.cameras[0]:
            return
        for camera in find_removed_cameras(recordings, settings.cameras):
            with suppress(OSError):
                owner = self._catalogue.owner
                for closed in adopt_leftovers(recordings, camera, owner, alone=False, unproven_age_s=UNPROVEN_AGE_S):
                    self._finish(closed)

    def _finish_unfiled(self) -> None:
        """Finishes the clips that a recorder before us closed and did not live to finish."""
        for path in self._unfiled:
            with suppress(OSError):
                if (
                    not self._close_request.requested
                    and (closed := read_closed(path, self._camera, self._catalogue.owner)) is not None
                ):
                    log.info("closed clip put into the library path=%s", path)
                    self._finish(self._marks.apply_to(closed))

    def _finish(self, closed: Closed) -> None:
        try:
            if not closed.path.exists():
                return
            if self._needs_copy(closed) and move_index_to_front(closed.path, self._close_request):
                log.info("index moved to the front path=%s", closed.path)
        except (OSError, av.FFmpegError, ValueError) as error:
            log.warning("file stays as recorded path=%s reason=%s", closed.path, error)
        try:
            entry = self._catalogue.add(entry_of(closed))
        except (OSError, LibraryError) as error:
            # The file is safe, and its description is written when there is room again.
            log.warning("not in the library yet path=%s reason=%s", closed.path, error)
            self._waiting.append(closed)
            self._retry_s = time.monotonic() + RETRY_S
            return
        self._notices.put(Filed(closed, entry.bytes))
        if closed.order.trigger == "rolling":
            self._keep_newest(closed.camera)

    def _keep_newest(self, camera: str) -> None:
        """Deletes the rolling clips above their number; what cannot go now goes after the next clip."""
        try:
            keep_newest(
                *(self._catalogue, self.own.rolling_clips_count),
                only_uploaded=self.settings.table(LibrarySettings).delete_only_uploaded,
                kind="clip",
                camera=camera,
                trigger="rolling",
            )
        except (OSError, LibraryError) as error:
            log.warning("older rolling clips stay for now camera=%s reason=%s", camera, error)

    def _needs_copy(self, closed: Closed) -> bool:
        if self.own.on_close != "faststart" or closed.path.suffix != ".mp4" or self._close_request.requested:
            return False
        if closed.order.kind == "rolling":
            return False  # written to be deleted: not worth writing twice
        if has_room_for_copy(closed.path, measure_room(closed.path.parent, self.settings.table(LibrarySettings))):
            return True
        log.info("file stays as recorded path=%s reason=no room for a copy", closed.path)
        return False


def entry_of(closed: Closed) -> Entry:
    """Returns the library's row of a clip."""
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
