"""The thread that writes clips, so that a slow disk delays no frame on its way through the encoder.

Frames arrive in order in a bounded queue; each bears the order it belongs to, so this thread alone decides when a
file ends and the next begins. When the disk refuses, the file is closed as far as it is complete and another one is
tried, at a key frame, with growing pauses; the frames in between are counted.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import av

from recorder import names
from recorder.clip import Form, Track, about
from recorder.clip_file import ClipFile, Opener
from recorder.disk_file import DiskFile
from recorder.encoder import AccessUnit
from recorder.errors import StorageUnavailable
from recorder.notices import Closed, Notice, Opened, Trouble
from recorder.order import Order
from recorder.patience import Patience
from recorder.storage import AHEAD_S, Storage

log = logging.getLogger(__name__)

QUEUE_FRAMES = 600
"""20 s at 30 fps: an SD card that pauses for its garbage collection is back by then."""
QUEUE_BYTES = 32_000_000
"""What those frames may weigh; more, and the encoder waits, for which the ring has room."""

FULL_S = 0.02
"""How long a full queue is waited for at a time."""


@dataclass(frozen=True, slots=True)
class Item:
    """One frame on its way to the disk."""

    unit: AccessUnit
    track: Track


@dataclass(frozen=True, slots=True)
class End:
    """The clip is over."""

    reason: str


class ClipWriter:
    """Made, `start`ed, fed by one thread with `put`, and `close`d."""

    def __init__(self, camera: str, form: Form, storage: Storage, opener: Opener = DiskFile) -> None:
        self.form = form
        """How the next file is written."""
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.finished: queue.SimpleQueue[Closed] = queue.SimpleQueue()
        """Closed files, for whoever puts them into the library."""
        self.key_wanted = False
        """A file waits for a key frame to begin with."""
        self.unwritten = 0
        """Frames that were encoded while no file could be opened."""
        self._camera, self._storage, self._opener = camera, storage, opener
        self._queue: queue.SimpleQueue[Item | End | None] = queue.SimpleQueue()
        self._put_bytes = self._taken_bytes = 0  # each written by one thread only
        self._clip: ClipFile | None = None
        self._order: Order | None = None
        self._track: Track | None = None
        self._started_utc_ns = 0
        self._patience = Patience()
        self._room_s, self._rate = 0.0, 0.0
        self.failure: BaseException | None = None
        """What ended the thread: a bug; the process must end, too."""
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, item: Item | End, timeout_s: float) -> bool:
        """Hand a frame over. Returns: False if the queue is full, after a short wait; try again."""
        if self._queue.qsize() >= QUEUE_FRAMES or self._put_bytes - self._taken_bytes > QUEUE_BYTES:
            time.sleep(min(timeout_s, FULL_S))
            return False
        if isinstance(item, Item):
            self._put_bytes += item.unit.packet.size
        self._queue.put(item)
        return True

    def current(self) -> tuple[Order, Path, int, int] | None:
        """Order, path, frames and drops of the open clip, for status; callable from any thread."""
        clip, order = self._clip, self._order
        if clip is None or order is None:
            return None
        totals = clip.totals
        return order, clip.place.clip, totals.frames, totals.drops

    @property
    def trouble(self) -> str:
        """Why nothing is written although it should be; empty: it is."""
        return self._patience.trouble

    @property
    def waiting(self) -> int:
        """Frames in the queue."""
        return self._queue.qsize()

    def close(self, reason: str, timeout_s: float) -> bool:
        """End the open clip and the thread. Returns: whether that was done in time."""
        deadline = time.monotonic() + timeout_s
        self._queue.put(End(reason))
        self._queue.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    # ---- in the thread

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, End):
                    self._close(item.reason)
                else:
                    self._taken_bytes += item.unit.packet.size
                    self._take(item)
        except BaseException as error:
            self.failure = error
            raise

    def _take(self, item: Item) -> None:
        order = item.unit.order
        if order is None:
            return
        if self._clip is not None and self._order is not None and self._track is not None:
            if order.number != self._order.number:
                self._close("next file")
            elif item.track != self._track:
                self._close("the picture changed")
        if self._clip is None and not self._open(item, order):
            self.unwritten += 1
            return
        clip = self._clip
        if clip is None:
            return
        self._order = order
        try:
            clip.add(item.unit, item.unit.row)
            self._look_ahead(clip)
        except StorageUnavailable as error:
            self._close(str(error))
            self._suffered(str(error))
        except (OSError, av.FFmpegError) as error:
            self._abandon(str(error))

    def _open(self, item: Item, order: Order) -> bool:
        row, track = item.unit.row, item.track
        if not self._patience.over:
            return False
        if not item.unit.key:
            self.key_wanted = True
            return False
        folder = names.folder(self._storage.recordings, order.kind, self._camera, order.utc_ns)
        try:
            self._storage.prepare(folder, self._rate)
            size = (track.width, track.height)
            utc_ns = row.captured_utc_ns
            place = names.place(
                folder, self._camera, size=size, fps=track.fps, first_utc_ns=utc_ns, container=self.form.container
            )
            clip = ClipFile(place, self.form, track, about(self._camera, order, row), self._opener)
        except OSError as error:
            self._suffered(str(error))
            return False
        self._clip, self._order, self._track, self._started_utc_ns = clip, order, track, utc_ns
        self.key_wanted, self._room_s = False, time.monotonic()
        if self._patience.relieved(self.unwritten):
            self.notices.put(Trouble(""))
        self.notices.put(Opened(order, place.clip, row.frame_id, row.captured_ns))
        log.info("recording began path=%s trigger=%s frame_id=%d", place.clip, order.trigger, row.frame_id)
        return True

    def _close(self, reason: str) -> None:
        clip, order = self._clip, self._order
        if clip is None or order is None:
            return
        try:
            clip.close()
        except (OSError, av.FFmpegError) as error:
            self._abandon(str(error))
            return
        self._done(clip, order, reason, intact=True)

    def _abandon(self, reason: str) -> None:
        clip, order = self._clip, self._order
        if clip is None or order is None:
            return
        clip.abandon()
        self._suffered(reason)
        self._done(clip, order, reason, intact=False)

    def _done(self, clip: ClipFile, order: Order, reason: str, *, intact: bool) -> None:
        self._clip = self._order = None
        totals, path = clip.totals, clip.place.clip
        log.info(
            "recording ended path=%s reason=%s frames=%d drops=%d lost=%d duration_s=%.3f bytes=%d",
            *(path, reason, totals.frames, totals.hardware_drops, totals.lost, totals.duration_s, totals.bytes),
        )
        timing = clip.place.timing if clip.place.timing.exists() else None
        closed = Closed(order, path, timing, self._camera, self._started_utc_ns, totals, reason, intact)
        self.notices.put(closed)
        if path.exists():
            self.finished.put(closed)

    def _look_ahead(self, clip: ClipFile) -> None:
        """Twice per AHEAD_S: is there still room, and is the disk still there? Raises: StorageUnavailable."""
        now_s = time.monotonic()
        if now_s - self._room_s > AHEAD_S / 2:
            self._room_s = now_s
            totals = clip.totals
            self._rate = totals.bytes / max(1.0, totals.duration_s)
            self._storage.check_mounted()
            self._storage.make_room(clip.place.clip.parent, self._rate)

    def _suffered(self, reason: str) -> None:
        if self._patience.suffered(reason, self.unwritten):
            self.notices.put(Trouble(reason))
