"""The thread that writes clips, so that a slow disk delays no frame on its way through the encoder.

Frames arrive in order in a bounded queue; each bears the order it belongs to, so this thread alone decides when a
file ends and the next begins. When the disk refuses, the file is closed as far as it is complete and another one is
tried, at a key frame, with growing pauses; the frames in between are counted.

What waits for the thread that writes: in order, bounded, and in bundles while a backlog goes through.

A thread that is woken for each frame takes a core from the encoder 30 times a second, which nobody notices, or 300
times while a pre-roll is encoded, which costs a twentieth of its speed. So frames of a backlog wake it together.

The clip that is being written: its file, what it was ordered for, and what is told of it in the end.

A disk that refuses: how long to wait before the next try, and how often to say so.

Which of the recorder's threads goes first on a busy machine: the one that takes frames out of the ring.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av

from recorder.clips import clip as names
from recorder.clips.clip import ClipOrder, Form, Track, about
from recorder.clips.clip_file import ClipFile, Opener
from recorder.clips.notices import Closed, Notice, Opened, Trouble
from recorder.clips.storage import AHEAD_S, Storage
from recorder.encoding.encoder import AccessUnit
from recorder.errors import StorageUnavailable
from shmcam.runtime.timers import Backoff
from shmcam.video.disk_file import DiskFile

FRAMES = 600
"""20 s at 30 fps: an SD card that pauses for its garbage collection is back by then."""
BYTES = 32_000_000
"""What those frames may weigh; more, and the encoder waits, for which the ring has room."""
BUNDLE = 16
"""Frames of a backlog that wake the writer together."""
FULL_S = 0.02
"""How long a full inbox is waited for at a time."""


@dataclass(frozen=True, slots=True)
class QueuedUnit:
    """One frame on its way to the disk."""

    unit: AccessUnit
    track: Track


@dataclass(frozen=True, slots=True)
class End:
    """The clip is over."""

    reason: str


class WriteQueue:
    """One thread puts, one takes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[QueuedUnit | End]] = queue.SimpleQueue()
        self._bundle: list[QueuedUnit | End] = []
        self._put = self._taken = 0  # frames; like the bytes, each is written by one thread only
        self._put_bytes = self._taken_bytes = 0

    def put(self, item: QueuedUnit | End, *, more: bool) -> bool:
        """Hand over; `more`: the next frame is there already. Returns: False, after a short wait, if it is full."""
        if self.waiting >= FRAMES or self._put_bytes - self._taken_bytes > BYTES:
            self._send()
            time.sleep(FULL_S)
            return False
        self._add(item)
        if not more or len(self._bundle) >= BUNDLE or isinstance(item, End):
            self._send()
        return True

    def close(self, reason: str) -> None:
        """End the clip and, after all that waits, the taker's work."""
        self._add(End(reason))
        self._send()
        self._queue.put([])

    def items(self) -> Iterator[QueuedUnit | End]:
        """Take one after the other, until closed; waits."""
        while bundle := self._queue.get():
            for item in bundle:
                self._taken += 1
                self._taken_bytes += _weight(item)
                yield item

    @property
    def waiting(self) -> int:
        """Frames that were not taken yet."""
        return self._put - self._taken

    def _add(self, item: QueuedUnit | End) -> None:
        self._bundle.append(item)
        self._put += 1
        self._put_bytes += _weight(item)

    def _send(self) -> None:
        if self._bundle:
            self._queue.put(self._bundle)
            self._bundle = []


def _weight(item: QueuedUnit | End) -> int:
    return item.unit.packet.size if isinstance(item, QueuedUnit) else 0


log = logging.getLogger(__name__)


@dataclass(slots=True)
class OpenClip:
    """An open clip."""

    camera: str
    file: ClipFile
    order: ClipOrder
    """What the newest frame was ordered for: an event may mark the clip while it grows."""
    track: Track
    started_utc_ns: int

    def ends_with(self, item: QueuedUnit, order: ClipOrder) -> str:
        """Why this frame belongs into another file; empty: it belongs into this one."""
        if order.number != self.order.number:
            return order.because
        return "the picture changed" if item.track != self.track else ""

    def closed(self, reason: str, *, intact: bool) -> Closed:
        """What became of it, for whoever waits for it; logged."""
        totals, place = self.file.totals, self.file.place
        kept = _is_there(place.clip)
        if not kept and _is_there(place.growing):
            reason += f"; what is whole stays in {place.growing.name} until the disk can be written"
        log.info(
            "recording ended path=%s reason=%s frames=%d drops=%d lost=%d duration_s=%.3f bytes=%d",
            *(place.clip, reason, totals.frames, totals.hardware_drops, totals.lost, totals.duration_s, totals.bytes),
        )
        timing = place.timing if _is_there(place.timing) else None
        return Closed(self.order, place.clip, timing, self.camera, self.started_utc_ns, totals, reason, intact, kept)


def _is_there(path: Path) -> bool:
    """Whether a file is there; a disk that does not answer has none."""
    try:
        return path.exists()
    except OSError:
        return False


SAY_AGAIN_S = 60.0
"""The same trouble is logged once a minute."""
_NUMBERS = re.compile(r"\d+")


class RetryState:
    """State of one writer's luck."""

    def __init__(self) -> None:
        self.trouble = ""
        """Why nothing can be written; empty: it can."""
        self._backoff, self._retry_s, self._said_s = Backoff(), 0.0, 0.0

    @property
    def over(self) -> bool:
        """Whether it is time to try (again)."""
        return time.monotonic() >= self._retry_s

    def suffered(self, reason: str, unwritten: int) -> bool:
        """Note a refusal. Returns: whether this is news."""
        now_s, news = time.monotonic(), _without_numbers(reason) != _without_numbers(self.trouble)
        self._retry_s = now_s + self._backoff.delay_s()
        if news or now_s - self._said_s > SAY_AGAIN_S:
            log.error("not recording reason=%s unwritten=%d", reason, unwritten)
            self._said_s = now_s
        self.trouble = reason
        return news

    def relieved(self, unwritten: int) -> bool:
        """Note that a file could be opened. Returns: whether there was trouble before."""
        self._backoff.reset()
        reason, self.trouble = self.trouble, ""
        if reason:
            log.info("recording again after reason=%s unwritten=%d", reason, unwritten)
        return bool(reason)


def _without_numbers(reason: str) -> str:
    """How many MB are missing, or how long the name is that was tried, makes no other trouble of it."""
    return _NUMBERS.sub("", reason)


WRITING, FINISHING = 5, 15
"""Steps of niceness behind it. What is encoded can wait in the inbox, a closed file for hours; frames in the ring
cannot."""
LAST = 19


def give_way(steps: int) -> None:
    """Put this thread behind the others of its process (setpriority(2) is per thread on Linux)."""
    thread = threading.get_native_id()
    with suppress(OSError):
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(LAST, own + steps))


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
        self._inbox = WriteQueue()
        self._present: OpenClip | None = None
        self._patience = RetryState()
        self._room_s, self._rate = 0.0, 0.0
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, item: QueuedUnit | End, *, more: bool = False) -> bool:
        """Hand a frame over; `more`: the next one is there already. Returns: False if too many wait; try again."""
        return self._inbox.put(item, more=more)

    def current(self) -> tuple[ClipOrder, Path, int, int] | None:
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

    def _take(self, item: QueuedUnit, order: ClipOrder) -> None:
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

    def _open(self, item: QueuedUnit, order: ClipOrder) -> OpenClip | None:
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
        self._present = OpenClip(self._camera, clip, order, track, utc_ns)
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
