"""The thread of each camera: it waits on the ring and encodes each watched variant once, for the event loop to send.

It sleeps until the next frame is due for a viewer, and without viewers but for two looks a second.
The futex wait and libjpeg both run without the GIL, so that the event loop goes on serving. All encoding of a camera
happens in this one thread, which bounds it: if it is slower than the camera, it skips frames and takes the newest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from shm_ring import Frame, FrameMeta, FrameOverwritten, LiveRing, RingReader
from shm_ring.formats import Geometry
from shm_ring.records.scores import Score
from shmcam.imaging.jpeg import JpegEncoder
from shmcam.runtime.clock import RateMeter, now_ns, utc_offset_ns
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop
from streamer.pictures.fanout import Fanout
from streamer.pictures.jpeg_picture import JpegPicture, encode_picture
from streamer.pictures.live_overlay import Caption
from streamer.pictures.live_stack import LiveStacks
from streamer.pictures.long_exposure_reader import POLL_NS, LongExposureReader
from streamer.pictures.placeholder import DEFAULT_SIZE, STALE_FRAMES, draw_no_signal
from streamer.pictures.scores import ScoreReader
from streamer.pictures.variant import RateLimiter, Variant

IDLE_S = 0.5
"""The longest wait for a frame; then the newest picture is repeated, or 'No signal' is drawn with its age.

Without viewers one frame in so long is looked at, for the status.
"""

RATE_WINDOW_S = 1.0
"""The time over which the camera's rate is measured, and at least two frames."""


class FeedStatus(Struct, frozen=True):
    """The newest state of a camera; it is replaced as a whole, so any thread may read it."""

    meta: FrameMeta | None = None
    geometry: Geometry | None = None
    frames: int = 0
    """The frames published since start."""
    fps: float = 0.0
    head: int = 0
    generation: int = 0
    slots: int = 0
    skipped: int = 0
    """The frames skipped because encoding the one before took too long."""
    writer_pid: int = 0
    score: Score | None = None
    """The analyzer's newest record; None while it, or the camera, is away."""

    def get_age_s(self, now_ns: int) -> float | None:
        """Returns the age of the newest frame; None before the first one. `now_ns` is sensor time."""
        return None if self.meta is None else max(0.0, (now_ns - self.meta.captured_ns) / 1e9)

    def is_stale(self, now_ns: int, after_s: float) -> bool:
        """Returns whether the newest frame is so old that the camera must be away."""
        age_s = self.get_age_s(now_ns)
        if age_s is None or self.meta is None:
            return True
        return age_s > max(after_s, STALE_FRAMES * self.meta.frame_duration_us / 1e6)


class Feed:
    """The live pictures of one camera, encoded in a thread of their own."""

    def __init__(
        self,
        fanout: Fanout,
        ring: LiveRing,
        long_exposure: LongExposureReader,
        scores: ScoreReader,
        caption: Caption,
        *,
        loop: asyncio.AbstractEventLoop,
        stop: Stop,
        get_stale_after_s: Callable[[], float],
    ) -> None:
        self.status = FeedStatus()
        self.last_polled_s = time.monotonic()
        """The time at which the thread last waited on its ring, monotonic."""
        self._fanout, self._ring, self._long_exposure, self._scores = fanout, ring, long_exposure, scores
        self._caption = caption
        self._loop, self._get_stale_after_s = loop, get_stale_after_s
        self._limiters: dict[Variant, RateLimiter] = {}
        self._last = (0, 0)
        """Generation and sequence of the newest frame that was read."""
        self._skipped = 0
        self._due_ns = 0.0
        """No viewer needs frames that were captured before; 0: perhaps one does."""
        self._stacks, self._encoder = LiveStacks(), JpegEncoder()
        self._share = 1.0
        self._rate = RateMeter(window_s=RATE_WINDOW_S)
        self.thread = Worker(f"feed-{fanout.camera}", self._run, stop)
        """The thread; it checks `stop` at least every IDLE_S, and when a viewer joins."""

    @property
    def long_exposure_problem(self) -> str:
        """The reason why there is no virtual long exposure; empty if there is one."""
        return self._long_exposure.problem

    # ---- the thread

    def _run(self) -> None:
        for item in self._ring.sequences(newest_first=True, idle_s=IDLE_S):
            self.last_polled_s = time.monotonic()
            if item is None:
                self._handle_silence()
            elif not self._handle_frame(*item):
                continue
            self._deliver_long_exposure()
            self._sleep_until_due()

    def _sleep_until_due(self) -> None:
        """Sleeps while no frame is due for any viewer; the next one ends it."""
        self._fanout.joined.clear()
        now = now_ns()
        wait_ns, is_by_frames = self._find_wait_ns(now)
        if wait_ns > 0:
            has_joined = self._fanout.joined.wait(wait_ns / 1e9)
            self._due_ns = now + wait_ns if is_by_frames and not has_joined else 0.0

    def _find_wait_ns(self, now: int) -> tuple[float, bool]:
        """Returns the time until a frame is due, up to IDLE_S, in which the status is renewed.

        And whether frames captured before that are for nobody.
        """
        wait_ns, is_by_frames = IDLE_S * 1e9, False
        for variant in self._fanout.variants:
            limiter = self._limiters.get(variant)
            if variant.long:
                wait_ns, is_by_frames = min((wait_ns, is_by_frames), (float(POLL_NS), False))
            elif limiter is None or variant.stack > 1:  # a mean needs every frame
                return 0.0, False
            else:
                wait_ns, is_by_frames = min((wait_ns, is_by_frames), (limiter.get_wait_ns(now), True))
        return wait_ns, is_by_frames

    def _handle_frame(self, reader: RingReader, sequence: int) -> bool:
        """Encodes what is due of a frame. Returns: False if it came during the sleep, before the one that is due."""
        try:
            with reader.borrow(sequence) as frame:
                if frame.captured_ns < self._due_ns:
                    self._due_ns = 0.0  # once in a sleep: the clock may have gone back
                    return False
                self._update_status(reader, frame)
                self._caption.count_frame(frame)
                pictures = self._encode_due(reader, frame)
        except FrameOverwritten:
            return True  # too slow for this frame; a newer one is there already
        if pictures:
            self._skipped += max(0, reader.head - sequence - 2)
            self._loop.call_soon_threadsafe(self._fanout.deliver, pictures)
        return True

    def _deliver_long_exposure(self) -> None:
        variants = [variant for variant in self._fanout.variants if variant.long]
        if pictures := self._long_exposure.encode_newest(variants, self._fanout.share):
            self._loop.call_soon_threadsafe(self._fanout.deliver, pictures)

    def _list_live_variants(self) -> list[Variant]:
        """Returns the watched variants that show single frames."""
        return [variant for variant in self._fanout.variants if not variant.long]

    def _encode_due(self, reader: RingReader, frame: Frame) -> dict[Variant, JpegPicture]:
        self._stacks.add(reader, frame, (variant.stack for variant in self._list_live_variants() if variant.stack > 1))
        due = [variant for variant in self._select_due(frame.captured_ns) if self._stacks.has(variant.stack)]
        lengths = {variant.stack for variant in due}
        payloads = {length: self._caption.draw(self._stacks.payload_of(frame, length), frame) for length in lengths}
        return {
            variant: encode_picture(self._encoder, payloads[variant.stack], frame, variant, self.status.score)
            for variant in due
        }

    def _select_due(self, captured_ns: int) -> list[Variant]:
        variants, share = self._list_live_variants(), self._fanout.share
        if share != self._share:
            self._share, self._limiters = share, {}
        self._limiters = {
            variant: self._limiters.get(variant) or RateLimiter(variant.fps * share) for variant in variants
        }
        return [variant for variant in variants if self._limiters[variant].accept(captured_ns)]

    def _update_status(self, reader: RingReader, frame: Frame) -> None:
        passed = frame.sequence - self._last[1] if self._last[0] == reader.generation else 1
        self._last = (reader.generation, frame.sequence)
        self._rate.add(frame.captured_ns, frame.sequence)
        self.status = FeedStatus(
            meta=frame.meta,
            geometry=frame.picture_geometry,
            frames=self.status.frames + passed,
            fps=self._rate.per_s,
            head=reader.head,
            generation=reader.generation,
            slots=reader.slots,
            skipped=self._skipped,
            writer_pid=reader.writer_pid,
            score=self._scores.read(),
        )

    def _handle_silence(self) -> None:
        """Repeats the newest picture, or delivers 'No signal' if the camera is away."""
        now = now_ns()
        if not self.status.is_stale(now, self._get_stale_after_s()):
            self._loop.call_soon_threadsafe(self._fanout.repeat)
            return
        self.status = replace(self.status, fps=0.0, score=None)  # both are true of the last frame only
        meta, geometry, age_s = self.status.meta, self.status.geometry, self.status.get_age_s(now)
        size = (geometry.shown_width, geometry.height) if geometry else DEFAULT_SIZE
        frame_id = meta.frame_id if meta else -1
        pictures = {
            variant: draw_no_signal(variant, size, age_s, frame_id=frame_id, now_utc_ns=now + utc_offset_ns())
            for variant in self._list_live_variants()
        }
        self._loop.call_soon_threadsafe(self._fanout.deliver, pictures)
