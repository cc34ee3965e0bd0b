"""One thread per camera: waits on the ring, encodes each wanted variant once, hands pictures to the event loop.

The futex wait and libjpeg both run without the GIL, so the event loop goes on serving meanwhile. Encoding is bounded by
being done here, in one place: when it is slower than the camera, frames are skipped, newest first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from shm_ring import Frame, FrameMeta, FrameOverwritten, LiveRing, RingReader
from shm_ring.formats import Geometry
from shm_ring.records.scores import Score
from shmcam.runtime.clock import RateMeter, now_ns, utc_offset_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.worker import Worker
from streamer.pictures.caption import Caption
from streamer.pictures.fanout import Fanout
from streamer.pictures.jpeg_picture import JpegPicture, encoded
from streamer.pictures.live_stack import Stacks
from streamer.pictures.long_exposure import LongExposureReader
from streamer.pictures.placeholder import DEFAULT_SIZE, STALE_FRAMES, no_signal
from streamer.pictures.scores import ScoreReader
from streamer.pictures.variant import Pace, Variant

IDLE_S = 0.5
"""How often a silent ring is looked after: repeats, the 'No signal' picture and its age."""


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """What the feed last saw of its camera; replaced as a whole, readable from any thread."""

    meta: FrameMeta | None = None
    geometry: Geometry | None = None
    frames: int = 0
    """Frames seen since start."""
    fps: float = 0.0
    head: int = 0
    generation: int = 0
    slots: int = 0
    skipped: int = 0
    """Frames passed over because encoding the one before took too long."""
    writer_pid: int = 0
    mark: Score | None = None
    """The analyzer's newest word; None while it, or the camera, is away."""

    def age_s(self, now: int) -> float | None:
        """Age of the newest frame; None: there never was one."""
        return None if self.meta is None else max(0.0, (now - self.meta.captured_ns) / 1e9)

    def stale(self, now: int, after_s: float) -> bool:
        """Whether the camera is away, as far as one can see."""
        age_s = self.age_s(now)
        if age_s is None or self.meta is None:
            return True
        return age_s > max(after_s, STALE_FRAMES * self.meta.frame_duration_us / 1e6)


class Feed:
    """The thread of one camera."""

    def __init__(
        self,
        fanout: Fanout,
        ring: LiveRing,
        long: LongExposureReader,
        marks: ScoreReader,
        caption: Caption,
        *,
        loop: asyncio.AbstractEventLoop,
        stop: Stop,
        stale_after_s: Callable[[], float],
    ) -> None:
        self.sight = FeedStatus()
        self.looked_s = time.monotonic()
        """When this thread last looked at its ring."""
        self._fanout, self._ring, self._long, self._marks = fanout, ring, long, marks
        self._caption = caption
        self._loop, self._stale_after_s = loop, stale_after_s
        self._paces: dict[Variant, Pace] = {}
        self._stacks = Stacks()
        self._share = 1.0
        self._rate = RateMeter()
        self.thread = Worker(f"feed-{fanout.camera}", self._run, stop)
        """It looks at `stop` at least every IDLE_S."""

    @property
    def no_long(self) -> str:
        """Why there is no virtual long exposure; empty: there is one."""
        return self._long.reason

    # ---- the thread

    def _run(self) -> None:
        for item in self._ring.sequences(newest_first=True, idle_s=IDLE_S):
            self.looked_s = time.monotonic()
            if item is None:
                self._rest()
            else:
                self._see(*item)
            self._see_long()

    def _see(self, reader: RingReader, sequence: int) -> None:
        try:
            with reader.borrow(sequence) as frame:
                self._remember(reader, frame)
                self._caption.saw(frame)
                pictures = self._encoded(reader, frame)
        except FrameOverwritten:
            return  # too slow for this one; the next is waiting
        if pictures:
            self._loop.call_soon_threadsafe(self._fanout.deliver, pictures)

    def _see_long(self) -> None:
        wanted = [variant for variant in self._fanout.wanted if variant.long]
        if pictures := self._long.pictures(wanted, self._fanout.share):
            self._loop.call_soon_threadsafe(self._fanout.deliver, pictures)

    def _wanted(self) -> list[Variant]:
        """What single frames are encoded for."""
        return [variant for variant in self._fanout.wanted if not variant.long]

    def _encoded(self, reader: RingReader, frame: Frame) -> dict[Variant, JpegPicture]:
        self._stacks.add(reader, frame, (variant.stack for variant in self._wanted() if variant.stack > 1))
        due = [variant for variant in self._due(frame.captured_ns) if self._stacks.has(variant.stack)]
        lengths = {variant.stack for variant in due}
        shown = {length: self._caption.on(self._stacks.payload(frame, length), frame) for length in lengths}
        return {variant: encoded(shown[variant.stack], frame, variant, self.sight.mark) for variant in due}

    def _due(self, captured_ns: int) -> list[Variant]:
        wanted, share = self._wanted(), self._fanout.share
        if share != self._share:
            self._share, self._paces = share, {}
        self._paces = {variant: self._paces.get(variant) or Pace(variant.fps * share) for variant in wanted}
        return [variant for variant in wanted if self._paces[variant].due(captured_ns)]

    def _remember(self, reader: RingReader, frame: Frame) -> None:
        self._rate.add(frame.captured_ns)
        self.sight = FeedStatus(
            meta=frame.meta,
            geometry=frame.picture,
            frames=self.sight.frames + 1,
            fps=self._rate.per_s,
            head=reader.head,
            generation=reader.generation,
            slots=reader.slots,
            skipped=self._ring.skipped,
            writer_pid=reader.writer_pid,
            mark=self._marks.newest(),
        )

    def _rest(self) -> None:
        """Nothing new for IDLE_S: repeat the newest picture, or say that the camera is away."""
        now = now_ns()
        if not self.sight.stale(now, self._stale_after_s()):
            self._loop.call_soon_threadsafe(self._fanout.repeat)
            return
        self.sight = replace(self.sight, fps=0.0, mark=None)  # what was said of the last picture is not so any more
        meta, geometry, age_s = self.sight.meta, self.sight.geometry, self.sight.age_s(now)
        size = (geometry.width, geometry.height) if geometry else DEFAULT_SIZE
        frame_id = meta.frame_id if meta else -1
        pictures = {
            variant: no_signal(variant, size, age_s, frame_id=frame_id, now_utc_ns=now + utc_offset_ns())
            for variant in self._wanted()
        }
        self._loop.call_soon_threadsafe(self._fanout.deliver, pictures)
