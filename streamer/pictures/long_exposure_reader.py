"""The variants with `?exposure=long`: the virtual long exposure of the exporter, read from `/<prefix>.<camera>.long`.

That ring gets two pictures a second, so it needs no thread: the camera's feed polls it between two frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shm_ring import FrameOverwritten, LiveRing, RingMismatch, RingNotReady, RingReader
from shmcam.imaging.jpeg import JpegEncoder
from shmcam.runtime.clock import now_ns, utc_offset_ns
from streamer.pictures.jpeg_picture import JpegPicture, encode_picture
from streamer.pictures.live_overlay import Caption
from streamer.pictures.placeholder import DEFAULT_SIZE, STALE_FRAMES, draw_no_signal
from streamer.pictures.scores import ScoreReader
from streamer.pictures.variant import RateLimiter, Variant

STREAM = "long"
POLL_NS = 100_000_000
"""The time between two polls, however fast the camera is."""
UNWATCHED_POLL_NS = 1_000_000_000
"""The same while nobody watches it: the status says whether there is one."""
PERIOD_S = 0.5
"""The exporter's time between two pictures."""


class LongExposureReader:
    """The reader of one camera's long exposure; the feed's thread uses it, any thread may read `problem`."""

    def __init__(
        self,
        ring: LiveRing,
        scores: ScoreReader,
        caption: Caption,
        get_long_exposure_s: Callable[[], float],
        get_stale_after_s: Callable[[], float],
    ) -> None:
        """`get_long_exposure_s` (export.long_exposure_s) only explains why the ring is missing."""
        self.problem = ""
        """The reason why there is no long exposure now; empty if there is one."""
        self._ring, self._scores, self._caption = ring, scores, caption
        self._get_long_exposure_s, self._get_stale_after_s = get_long_exposure_s, get_stale_after_s
        self._limiters: dict[tuple[Variant, float], RateLimiter] = {}
        self._encoder = JpegEncoder()
        self._last_position = (0, 0)
        self._polled_ns = 0
        self._size = DEFAULT_SIZE
        self._frame_id = -1

    def encode_newest(self, variants: Sequence[Variant], share: float) -> dict[Variant, JpegPicture]:
        """Returns what is new since the last call, encoded; a 'No signal' picture a second while the ring is silent.

        `variants`: those that are watched; without any nothing is encoded. `share`: the part of their rate to serve.
        """
        now = now_ns()
        if now - self._polled_ns < (POLL_NS if variants else UNWATCHED_POLL_NS):
            return {}
        self._polled_ns = now
        reader = self._open_reader()
        sequence = None if reader is None else reader.latest()
        if reader is None or sequence is None:
            return self._draw_no_signal(variants, share, now, None)
        try:
            return self._encode(reader, sequence, variants, share, now)
        except FrameOverwritten:
            return {}  # the next poll finds a newer one

    def _open_reader(self) -> RingReader | None:
        try:
            reader, self.problem = self._ring.reader(), ""
        except RingNotReady:
            self.problem = "the exporter is away" if self._get_long_exposure_s() else "export.long_exposure_s is 0"
            return None
        except RingMismatch:  # live video goes on without it
            self.problem = "its ring is of another version"
            return None
        return reader

    def _encode(
        self, reader: RingReader, sequence: int, variants: Sequence[Variant], share: float, now: int
    ) -> dict[Variant, JpegPicture]:
        with reader.borrow(sequence) as frame:
            meta, geometry = frame.meta, frame.picture_geometry
            self._size, self._frame_id = (geometry.shown_width, geometry.height), meta.frame_id
            age_s = (now - meta.captured_ns) / 1e9
            # The age of the newest frame in it, because the exporter goes on publishing while the camera is away.
            if age_s > max(self._get_stale_after_s(), STALE_FRAMES * max(PERIOD_S, meta.frame_duration_us / 1e6)):
                return self._draw_no_signal(variants, share, now, age_s)
            due = self._select_due((reader.generation, sequence), meta.captured_ns, variants, share)
            if not due:
                return {}
            score, payload = self._scores.read(), self._caption.draw(frame.payload, frame)
            return {variant: encode_picture(self._encoder, payload, frame, variant, score) for variant in due}

    def _draw_no_signal(
        self, variants: Sequence[Variant], share: float, now: int, age_s: float | None
    ) -> dict[Variant, JpegPicture]:
        utc_ns = now + utc_offset_ns()
        return {
            variant: draw_no_signal(
                variant, self._size, age_s, frame_id=self._frame_id, now_utc_ns=utc_ns, reason=self.problem
            )
            for variant in self._select_due((-1, now // 1_000_000_000), now, variants, share)
        }

    def _select_due(
        self, position: tuple[int, int], clock_ns: int, variants: Sequence[Variant], share: float
    ) -> list[Variant]:
        """Returns the variants to encode: all within their rate if the picture is new, else only the new variants."""
        former, is_new = self._limiters, position != self._last_position
        self._last_position = position
        self._limiters = {
            (variant, share): former.get((variant, share)) or RateLimiter(variant.fps * share) for variant in variants
        }
        return [
            key[0]
            for key, limiter in self._limiters.items()
            if (is_new or key not in former) and limiter.accept(clock_ns)
        ]
