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
from pathlib import Path

import av

from recorder import names
from recorder.clip import Form, about
from recorder.clip_file import ClipFile, Opener
from recorder.disk_file import DiskFile
from recorder.errors import StorageUnavailable
from recorder.inbox import End, Inbox, Item
from recorder.notices import Closed, Notice, Opened, Trouble
from recorder.order import Order
from recorder.patience import Patience
from recorder.present import Present
from recorder.priority import WRITING, give_way
from recorder.storage import AHEAD_S, Storage

log = logging.getLogger(__name__)


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
        self.failure: BaseException | None = None
        """What ended the thread: a bug; the process must end, too."""
        self._camera, self._storage, self._opener = camera, storage, opener
        self._inbox = Inbox()
        self._present: Present | None = None
        self._patience = Patience()
        self._room_s, self._rate = 0.0, 0.0
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, item: Item | End, *, more: bool = False) -> bool:
        """Hand a frame over; `more`: the next one is there already. Returns: False if too many wait; try again."""
        return self._inbox.put(item, more=more)

    def current(self) -> tuple[Order, Path, int, int] | None:
        """Order, path, frames and drops of the open clip, for status; callable from any thread."""
        present = self._present
        if present is None:
            return None
        totals = present.file.totals
        return present.order, present.file.place.clip, totals.frames, totals.drops

    @property
    def trouble(self) -> str:
        """Why nothing is written although it should be; empty: it is."""
        return self._patience.trouble

    @property
    def waiting(self) -> int:
        """Frames that were not taken yet."""
        return self._inbox.waiting

    def close(self, reason: str, timeout_s: float) -> bool:
        """End the open clip and the thread. Returns: whether that was done in time."""
        deadline = time.monotonic() + timeout_s
        self._inbox.close(reason)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    # ---- in the thread

    def _run(self) -> None:
        give_way(WRITING)
        try:
            for item in self._inbox.items():
                if isinstance(item, End):
                    self._close(item.reason)
                elif item.unit.order is not None:
                    self._take(item, item.unit.order)
        except BaseException as error:
            self.failure = error
            raise

    def _take(self, item: Item, order: Order) -> None:
        if self._present is not None and (reason := self._present.ends_with(item, order)):
            self._close(reason)
        present = self._present or self._open(item, order)
        if present is None:
            self.unwritten += 1
            return
        present.order = order
        try:
            present.file.add(item.unit, item.unit.row)
            self._look_ahead(present.file)
        except StorageUnavailable as error:
            self._close(str(error))
            self._suffered(str(error))
        except (OSError, av.FFmpegError) as error:
            self._abandon(str(error))

    def _open(self, item: Item, order: Order) -> Present | None:
        """Begin a file with this frame; None if the disk refuses, or with a frame that none can begin with."""
        row, track = item.unit.row, item.track
        if not self._patience.over:
            return None
        if not item.unit.key:
            self.key_wanted = True
            return None
        folder = names.folder(self._storage.recordings, order.kind, self._camera, order.utc_ns)
        utc_ns, size = row.captured_utc_ns, (track.width, track.height)
        try:
            self._storage.prepare(folder, self._rate)
            place = names.place(
                folder, self._camera, size=size, fps=track.fps, first_utc_ns=utc_ns, container=self.form.container
            )
            clip = ClipFile(place, self.form, track, about(self._camera, order, row), self._opener)
        except OSError as error:
            self._suffered(str(error))
            return None
        self._present = Present(self._camera, clip, order, track, utc_ns)
        self.key_wanted, self._room_s = False, time.monotonic()
        if self._patience.relieved(self.unwritten):
            self.notices.put(Trouble(""))
        self.notices.put(Opened(order, place.clip, row.frame_id, row.captured_ns))
        log.info("recording began path=%s trigger=%s frame_id=%d", place.clip, order.trigger, row.frame_id)
        return self._present

    def _close(self, reason: str) -> None:
        if self._present is None:
            return
        try:
            self._present.file.close()
        except (OSError, av.FFmpegError) as error:
            self._abandon(str(error))
            return
        self._done(reason, intact=True)

    def _abandon(self, reason: str) -> None:
        if self._present is not None:
            self._present.file.abandon()
            self._suffered(reason)
            self._done(reason, intact=False)

    def _done(self, reason: str, *, intact: bool) -> None:
        present, self._present = self._present, None
        if present is not None:
            closed = present.closed(reason, intact=intact)
            self.notices.put(closed)
            if closed.kept:
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
