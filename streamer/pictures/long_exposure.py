"""`?exposure=long`: the virtual long exposure the exporter keeps in a ring of its own, `/<prefix>.<camera>.long`.

That ring has two pictures a second, so it needs no thread: the camera's feed looks at it between two frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shm_ring import FrameOverwritten, LiveRing, RingMismatch, RingNotReady, RingReader
from shmcam.runtime.clock import now_ns, utc_offset_ns
from streamer.pictures.caption import Caption
from streamer.pictures.jpeg_picture import JpegPicture, encoded
from streamer.pictures.placeholder import DEFAULT_SIZE, STALE_FRAMES, no_signal
from streamer.pictures.scores import ScoreReader
from streamer.pictures.variant import Pace, Variant

STREAM = "long"
LOOK_NS = 100_000_000
"""Time between two looks, however fast the camera is."""
PERIOD_S = 0.5
"""The exporter's time between two pictures."""


class LongExposureReader:
    """One camera's long exposure; used by the feed's thread, `reason` by any."""

    def __init__(
        self,
        ring: LiveRing,
        marks: ScoreReader,
        caption: Caption,
        seconds: Callable[[], float],
        stale_after_s: Callable[[], float],
    ) -> None:
        """`seconds`: export.long_exposure_s; it explains a missing ring, but does not tell whether it is missing."""
        self.reason = ""
        """Why there is none now; empty: there is one."""
        self._ring, self._marks, self._caption = ring, marks, caption
        self._seconds, self._stale_after_s = seconds, stale_after_s
        self._paces: dict[tuple[Variant, float], Pace] = {}
        self._shown = (0, 0)
        self._look_ns = 0
        self._size = DEFAULT_SIZE
        self._frame_id = -1

    def pictures(self, wanted: Sequence[Variant], share: float) -> dict[Variant, JpegPicture]:
        """What has come since the last call, encoded; a 'No signal' picture a second while nothing can come.

        `wanted`: variants that somebody watches; without any nothing is encoded. `share`: part of their rate.
        """
        now = now_ns()
        if now < self._look_ns:
            return {}
        self._look_ns = now + LOOK_NS
        reader = self._reader()
        sequence = None if reader is None else reader.latest()
        if reader is None or sequence is None:
            return self._nothing(wanted, share, now, None)
        try:
            return self._seen(reader, sequence, wanted, share, now)
        except FrameOverwritten:
            return {}  # the next look finds a newer one

    def _reader(self) -> RingReader | None:
        try:
            reader, self.reason = self._ring.reader(), ""
        except RingNotReady:
            self.reason = "the exporter is away" if self._seconds() else "export.long_exposure_s is 0"
            return None
        except RingMismatch:  # live video goes on without it
            self.reason = "its ring is of another version"
            return None
        return reader

    def _seen(
        self, reader: RingReader, sequence: int, wanted: Sequence[Variant], share: float, now: int
    ) -> dict[Variant, JpegPicture]:
        with reader.borrow(sequence) as frame:
            meta, geometry = frame.meta, frame.picture
            self._size, self._frame_id = (geometry.width, geometry.height), meta.frame_id
            age_s = (now - meta.captured_ns) / 1e9
            # By the newest frame in it, because the exporter shows it on while the camera is away.
            if age_s > max(self._stale_after_s(), STALE_FRAMES * max(PERIOD_S, meta.frame_duration_us / 1e6)):
                return self._nothing(wanted, share, now, age_s)
            due = self._due((reader.generation, sequence), meta.captured_ns, wanted, share)
            if not due:
                return {}
            mark, payload = self._marks.newest(), self._caption.on(frame.payload, frame)
            return {variant: encoded(payload, frame, variant, mark) for variant in due}

    def _nothing(
        self, wanted: Sequence[Variant], share: float, now: int, age_s: float | None
    ) -> dict[Variant, JpegPicture]:
        utc_ns = now + utc_offset_ns()
        return {
            variant: no_signal(
                variant, self._size, age_s, frame_id=self._frame_id, now_utc_ns=utc_ns, reason=self.reason
            )
            for variant in self._due((-1, now // 1_000_000_000), now, wanted, share)
        }

    def _due(self, shown: tuple[int, int], clock_ns: int, wanted: Sequence[Variant], share: float) -> list[Variant]:
        """Whom to send it to: everybody if it is new, else those who have only come."""
        known, fresh = self._paces, shown != self._shown
        self._shown = shown
        self._paces = {(variant, share): known.get((variant, share)) or Pace(variant.fps * share) for variant in wanted}
        return [
            one for (one, _), pace in self._paces.items() if (fresh or (one, share) not in known) and pace.due(clock_ns)
        ]
