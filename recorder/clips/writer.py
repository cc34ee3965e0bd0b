"""The thread that writes clips, so that a slow disk delays no frame on its way through the encoder.

Frames arrive in order in a bounded queue; each bears the order it belongs to, so this thread alone decides when a
file ends and the next begins. When the disk refuses, the file is closed as far as it is complete and another one is
tried, at a key frame, with growing pauses; the frames in between are counted.

A thread that is woken for each frame takes a core from the encoder: 30 times a second, which does not matter, or 300
times while a pre-roll is encoded, which costs a twentieth of its speed. So frames of a backlog wake it in bundles.

The thread that takes frames out of the ring goes first on a busy machine: the writer and the finisher lower their
priority.
"""

from __future__ import annotations

import errno
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
from msgspec import Struct

from recorder.clips.clip import ClipFormat, ClipOrder, Track, describe, find_free_paths, folder_of
from recorder.clips.clip_file import ClipFile, FileOpener
from recorder.clips.storage import AHEAD_S, Storage
from recorder.clips.writer_events import Closed, Notice, Opened, Trouble
from recorder.encoding.encoder import AccessUnit
from shmcam.library.disks.disk_space import is_limit_unseen
from shmcam.library.errors import NotWritable
from shmcam.runtime.clock import read_clock_error_us
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff
from shmcam.video.disk_file import DiskFile

log = logging.getLogger(__name__)

MAX_FRAMES = 600
"""20 s at 30 fps: an SD card that pauses for its garbage collection is back by then."""
MAX_BYTES = 32_000_000
"""Limit of the size of those frames; above it the encoder waits, for which the ring has room."""
BUNDLE = 16
"""Frames of a backlog that wake the writer together."""
FULL_S = 0.02
"""Sleep between two tries when the queue is full."""


class QueuedUnit(Struct, frozen=True):
    """One frame on its way to the disk."""

    unit: AccessUnit
    track: Track


class End(Struct, frozen=True):
    """The clip is over."""

    reason: str


class WriteQueue:
    """The bounded queue before the writer thread; one thread puts, one takes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[QueuedUnit | End]] = queue.SimpleQueue()
        self._bundle: list[QueuedUnit | End] = []
        self._put_count = self._taken_count = 0  # like the bytes, each is written by one thread only
        self._put_bytes = self._taken_bytes = 0

    def put(self, item: QueuedUnit | End, *, more: bool) -> bool:
        """Adds an item; `more`: the next frame is there already. Returns: False, after a short sleep, if it is full."""
        if self.length >= MAX_FRAMES or self._put_bytes - self._taken_bytes > MAX_BYTES:
            self._send()
            time.sleep(FULL_S)
            return False
        self._add(item)
        if not more or len(self._bundle) >= BUNDLE or isinstance(item, End):
            self._send()
        return True

    def close(self, reason: str) -> None:
        """Ends the clip and, after all items before, the iteration of `take_items`."""
        self._add(End(reason))
        self._send()
        self._queue.put([])

    def take_items(self) -> Iterator[QueuedUnit | End]:
        """Takes one item after the other, until the queue is closed; waits for each."""
        while bundle := self._queue.get():
            for item in bundle:
                self._taken_count += 1
                self._taken_bytes += _bytes_of(item)
                yield item

    @property
    def length(self) -> int:
        """Items that were not taken yet."""
        return self._put_count - self._taken_count

    def _add(self, item: QueuedUnit | End) -> None:
        self._bundle.append(item)
        self._put_count += 1
        self._put_bytes += _bytes_of(item)

    def _send(self) -> None:
        if self._bundle:
            self._queue.put(self._bundle)
            self._bundle = []


def _bytes_of(item: QueuedUnit | End) -> int:
    return item.unit.packet.size if isinstance(item, QueuedUnit) else 0


FILE_TOO_LARGE = "the file system allows no larger file"
FILE_SHARE = 15 / 16
"""The share of the largest file after which the next one begins: the rest holds what comes until a key frame."""


@dataclass(slots=True)
class OpenClip:
    """The clip that is being written."""

    camera: str
    file: ClipFile
    order: ClipOrder
    """The order of the newest frame: an event may mark the clip while it grows."""
    track: Track
    started_utc_ns: int

    def reason_to_end(self, item: QueuedUnit, order: ClipOrder, max_bytes: int = 0) -> str:
        """Returns why this frame belongs into another file; empty: it belongs into this one.

        `max_bytes`: the file system's limit; the next file begins with a key frame before it, so no frame is lost.
        """
        if max_bytes and item.unit.is_key and self.file.totals.bytes > max_bytes * FILE_SHARE:
            return FILE_TOO_LARGE
        if order.number != self.order.number:
            return order.because
        return "the picture changed" if item.track != self.track else ""

    def to_closed(self, reason: str, *, intact: bool) -> Closed:
        """Returns and logs what became of the clip; its file is closed."""
        totals, paths = self.file.totals, self.file.paths
        kept = _is_there(paths.clip)
        if not kept and _is_there(paths.growing):
            reason += f"; what is whole stays in {paths.growing.name} until the disk can be written"
        log.info(
            "recording ended path=%s reason=%s frames=%d drops=%d lost=%d duration_s=%.3f bytes=%d",
            *(paths.clip, reason, totals.frames, totals.hardware_drops, totals.lost, totals.duration_s, totals.bytes),
        )
        timing = paths.timing if _is_there(paths.timing) else None
        return Closed(self.order, paths.clip, timing, self.camera, self.started_utc_ns, totals, reason, intact, kept)


def _is_there(path: Path) -> bool:
    """Tells whether a file is there; a disk that does not answer has none."""
    try:
        return path.exists()
    except OSError:
        return False


LOG_AGAIN_S = 60.0
"""Seconds between two log lines of the same trouble."""
_NUMBERS = re.compile(r"\d+")


class RetryState:
    """The state of a writer whose disk may refuse: when to try again, and when to log the trouble again."""

    def __init__(self) -> None:
        self.trouble = ""
        """The reason why nothing can be written; empty: it can."""
        self._backoff, self._retry_s, self._logged_s = Backoff(), 0.0, 0.0
        self._is_proven = True
        """The last try was a success: False also after the end of a recording that could not be written."""

    @property
    def is_due(self) -> bool:
        """True if it is time to try (again)."""
        return time.monotonic() >= self._retry_s

    def note_failure(self, reason: str, unwritten: int) -> bool:
        """Notes and logs a refusal. Returns: whether this is news."""
        now_s, news = time.monotonic(), _without_numbers(reason) != _without_numbers(self.trouble)
        self._retry_s = now_s + self._backoff.next_delay_s()
        if news or now_s - self._logged_s > LOG_AGAIN_S:
            log.error("not recording reason=%s unwritten=%d", reason, unwritten)
            self._logged_s = now_s
        self.trouble, self._is_proven = reason, False
        return news

    def note_success(self, unwritten: int) -> bool:
        """Notes that a file could be opened. Returns: whether there was trouble before."""
        had_trouble, self._is_proven = not self._is_proven, True
        if self.trouble:
            log.info("recording again after reason=%s unwritten=%d", self.trouble, unwritten)
        self.end()
        return had_trouble

    def end(self) -> None:
        """Notes that nothing is to be written any more: no trouble, and the next recording is tried at once."""
        self.trouble, self._retry_s = "", 0.0
        self._backoff.reset()


def _without_numbers(reason: str) -> str:
    """Returns the text by which trouble is compared: how many MB are missing makes no other trouble of it."""
    return _NUMBERS.sub("", reason)


WRITER_STEPS, FINISHER_STEPS = 5, 15
"""Steps of niceness behind the thread that takes frames. An encoded frame can wait in the queue, a closed file for
hours; a frame in the ring cannot."""
MAX_NICENESS = 19


def lower_priority(steps: int) -> None:
    """Puts this thread behind the others of its process (setpriority(2) is per thread on Linux)."""
    thread = threading.get_native_id()
    with suppress(OSError):
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(MAX_NICENESS, own + steps))


class ClipWriter:
    """The thread that writes clips. `start` it; one thread feeds it with `put`; `close` it."""

    def __init__(
        self, camera: str, clip_format: ClipFormat, storage: Storage, stop: Stop, opener: FileOpener = DiskFile
    ) -> None:
        """`stop` fails if the thread meets a bug."""
        self.clip_format = clip_format
        """The format of the next file."""
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.closed_clips: queue.SimpleQueue[Closed] = queue.SimpleQueue()
        """Closed files, for the finisher to put into the library."""
        self.needs_key = False
        """A file waits for a key frame to begin with."""
        self.unwritten = 0
        """Frames of recordings in no file: none could be opened, the disk refused, or the recorder was away."""
        self.resumed_after = -1
        """The last frame on the disk of a recording that goes on; those after it that the ring lost are drops."""
        self._unwritten_of_clip = 0
        """Those since the last frame that is in a closed file of this recording; the open file counts them."""
        self._camera, self._storage, self._opener = camera, storage, opener
        self._queue = WriteQueue()
        self._clip: OpenClip | None = None
        self._retry = RetryState()
        self._room_checked_s, self._bytes_per_s = 0.0, 0.0
        self._worker = Worker("clips", self._write, stop)

    def start(self) -> None:
        """Starts the thread."""
        self._worker.start()

    def put(self, item: QueuedUnit | End, *, more: bool = False) -> bool:
        """Queues a frame; `more`: the next one is there already. Returns: False if too many wait; try again."""
        return self._queue.put(item, more=more)

    @property
    def current(self) -> tuple[ClipOrder, Path, int, int] | None:
        """Order, path, frames and drops of the open clip, for status; any thread may ask."""
        clip = self._clip
        if clip is None:
            return None
        totals = clip.file.totals
        return clip.order, clip.file.paths.clip, totals.frames, totals.drops

    @property
    def trouble(self) -> str:
        """The reason why nothing is written although it should be; empty: it is."""
        return self._retry.trouble

    @property
    def retention_trouble(self) -> str:
        """What is wrong with making room on the disk; empty: nothing."""
        return self._storage.trouble

    @property
    def queue_length(self) -> int:
        """Frames that wait in the queue."""
        return self._queue.length

    def close(self, reason: str, timeout_s: float) -> bool:
        """Ends the open clip and the thread. Returns: whether that was done in time."""
        deadline = time.monotonic() + timeout_s
        self._queue.close(reason)
        return self._worker.join(max(0.0, deadline - time.monotonic()))

    # ---- in the thread

    def _write(self) -> None:
        lower_priority(WRITER_STEPS)
        for item in self._queue.take_items():
            if isinstance(item, End):
                self._close(item.reason)
                self._unwritten_of_clip = 0
                self._retry.end()
                self._storage.is_wanted = False
            elif item.unit.order is not None:
                if self.resumed_after >= 0:
                    self._count_unwritten(max(0, item.unit.meta.frame_id - self.resumed_after - 1))
                    self.resumed_after = -1
                self._take(item, item.unit.order)

    def _take(self, item: QueuedUnit, order: ClipOrder) -> None:
        if self._clip is not None and (reason := self._clip.reason_to_end(item, order, self._storage.max_file_bytes)):
            self._close(reason)
        clip = self._clip or self._open(item, order)
        if clip is None:
            self._count_unwritten(1)
            return
        clip.order = order
        try:
            clip.file.add(item.unit)
            self._check_storage(clip.file, order.trigger)
        except NotWritable as error:
            self._close(str(error))
            self._note_failure(str(error))
        except (OSError, av.FFmpegError) as error:
            is_refused = clip.file.totals.last_frame != item.unit.meta.frame_id
            self._abandon(str(error), error.errno or 0, unwritten=int(is_refused))

    def _open(self, item: QueuedUnit, order: ClipOrder) -> OpenClip | None:
        """Begins a file with this frame. Returns: None if the disk refuses, or if no file can begin with this frame."""
        meta, track = item.unit.meta, item.track
        if not self._retry.is_due:
            return None
        if not item.unit.is_key:
            self.needs_key = True
            return None
        folder = folder_of(self._storage.recordings, self._camera, order, self.clip_format.session_prefix)
        utc_ns = meta.captured_utc_ns
        try:
            self._storage.prepare(folder, self._bytes_per_s, order.trigger)
            container = self.clip_format.container
            paths = find_free_paths(
                folder, self._camera, track, first_utc_ns=utc_ns, label=order.label, container=container
            )
            about = describe(self._camera, order, meta, self._storage.owner.id, read_clock_error_us())
            unwritten = self._unwritten_of_clip
            file = ClipFile(paths, self.clip_format, track, about, self._opener, unwritten_before=unwritten)
        except OSError as error:
            self._note_failure(str(error))
            return None
        self._clip = OpenClip(self._camera, file, order, track, utc_ns)
        self.needs_key, self._room_checked_s = False, time.monotonic()
        if self._retry.note_success(self.unwritten):
            self.notices.put(Trouble(""))
        self.notices.put(Opened(order, paths.clip, meta.frame_id, meta.captured_ns))
        log.info("recording began path=%s trigger=%s frame_id=%d", paths.clip, order.trigger, meta.frame_id)
        return self._clip

    def _close(self, reason: str) -> None:
        if self._clip is None:
            return
        try:
            self._clip.file.close()
        except (OSError, av.FFmpegError) as error:
            self._abandon(str(error))
            return
        self._unwritten_of_clip = 0
        self._report_closed(reason, intact=True)

    def _abandon(self, reason: str, code: int = 0, *, unwritten: int = 0) -> None:
        if self._clip is None:
            return
        before, kept = self._clip.file.totals, self._clip.file.abandon()
        if kept.frames:  # else what its first line counted is in no file
            self._unwritten_of_clip = 0
        self._count_unwritten(before.frames - kept.frames + unwritten)
        if code == errno.EFBIG and not self._storage.refused_file_bytes:  # the limit is known now, and nothing is wrong
            reason = FILE_TOO_LARGE
            self._storage.refused_file_bytes = before.bytes
        else:
            self._storage.was_refused = before.frames > 0 and is_limit_unseen(code, self._storage.recordings)
            self._note_failure(reason)
        self._report_closed(reason, intact=False)

    def _count_unwritten(self, frames: int) -> None:
        self.unwritten += frames
        self._unwritten_of_clip += frames

    def _report_closed(self, reason: str, *, intact: bool) -> None:
        clip, self._clip = self._clip, None
        if clip is not None:
            closed = clip.to_closed(reason, intact=intact)
            self.notices.put(closed)
            if closed.kept:
                self.closed_clips.put(closed)

    def _check_storage(self, file: ClipFile, trigger: str) -> None:
        """Checks twice per AHEAD_S that there is still room, and the disk still there. Raises: NotWritable."""
        now_s = time.monotonic()
        if now_s - self._room_checked_s > AHEAD_S / 2:
            self._room_checked_s = now_s
            totals = file.totals
            self._bytes_per_s = totals.bytes / max(1.0, totals.duration_s)
            self._storage.check_mounted()
            self._storage.make_room(file.paths.clip.parent, self._bytes_per_s, trigger)

    def _note_failure(self, reason: str) -> None:
        if self._retry.note_failure(reason, self.unwritten):
            self.notices.put(Trouble(reason))
