"""Stacks short frames into a virtual long exposure, so that a night picture does not interrupt live video.

It is published as a ring of its own, `/<prefix>.<camera>.long`, for the page, the stream and any other program;
`pastStack method=long` saves it with all its bits.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress

from exporter.stacking.stack import StackResult
from exporter.stacking.tone_map import stretch_to_8_bits
from shm_ring import Flags, Frame, FrameMeta, RingError, RingWriter
from shm_ring.formats import Geometry
from shm_ring.ownership import discard
from shmcam.config.settings import Settings
from shmcam.imaging.accumulate import RunningMean

log = logging.getLogger(__name__)

STREAM = "long"
SLOTS = 4
"""Its readers want only the newest frame: one slot for it, one for the writer, two for slow readers."""
PUBLISH_NS = 500_000_000
"""The time between two published pictures; tone-mapping one takes as long as adding twenty frames."""
RETRY_NS = 10_000_000_000
"""The time after which a ring that could not be made or written is tried again."""
MOST_FRAMES = 65_536
"""The most frames whose times are stored; at 120 fps nine minutes, and more frames hardly lower the noise."""
EXPOSURE_CHANGE = 1.1
"""The factor of exposure times gain from which on older frames belong to another picture."""


class LongExposure:
    """The running stack of one camera. One thread calls `add`; any thread may call `read_stack`."""

    def __init__(self, camera: str, settings: Settings, seconds: float) -> None:
        """`seconds`: the length of the exposure."""
        self._camera = camera
        self._settings = settings
        self._seconds = seconds
        self._lock = threading.Lock()
        self._mean = RunningMean(1)
        self._geometry: Geometry | None = None
        self._metas: deque[FrameMeta] = deque(maxlen=MOST_FRAMES)
        self._published_ns = 0
        self._writer: RingWriter | None = None
        self.trouble = ""
        """Why the picture is not shown; empty: it is. The stack itself continues."""

    def add(self, frame: Frame) -> None:
        """Adds one frame; another size or exposure begins a new stack."""
        meta, metas = frame.meta, self._metas
        if meta.flags & Flags.SETTLING:
            return
        with self._lock:
            if not metas or frame.geometry != self._geometry or not _is_same_exposure(metas[-1], meta):
                self._mean, self._geometry = RunningMean(1), frame.picture
                metas.clear()
            metas.append(meta)
            while meta.captured_ns - metas[0].captured_ns > self._seconds * 1e9:
                metas.popleft()
            self._mean.length = len(metas)
            self._mean.add(frame.payload)

    def read_stack(self) -> StackResult | None:
        """Returns the picture so far, 16 bits; None before the first frame."""
        with self._lock:
            if not self._metas or self._geometry is None:
                return None
            ends = (self._metas[0], self._metas[-1])
            return StackResult(self._mean.to_16_bits(), self._geometry, ends, 0, self.frames)

    @property
    def frames(self) -> int:
        """The number of frames that count in the picture."""
        return min(self._mean.count, self._mean.length)

    def publish(self, now_ns: int) -> None:
        """Publishes the picture so far in the ring, if it is time."""
        if now_ns - self._published_ns < PUBLISH_NS:
            return
        stack = self.read_stack()
        if stack is None:
            return
        self._published_ns = now_ns
        try:
            writer = self._open_writer(stack.samples.size)
            writer.publish(stretch_to_8_bits(stack.samples, stack.geometry), stack.metas[-1], stack.geometry)
        except (RingError, OSError) as problem:  # no shared memory left, another exporter, a run folder that is full
            trouble = f"{self._camera}: no long exposure is shown: {problem}"
            if trouble != self.trouble:
                log.warning("long exposure not shown camera=%s reason=%s", self._camera, problem)
            self.trouble = trouble
            self._published_ns = now_ns + RETRY_NS
            return
        if self.trouble:
            log.info("long exposure shown again camera=%s", self._camera)
            self.trouble = ""

    def close(self) -> None:
        """Retires the ring, also one that a killed exporter left behind."""
        if self._writer is not None:
            with suppress(RingError):
                self._writer.retire()
            self._writer.close()
            self._writer = None
            return
        with suppress(RingError, OSError):
            discard(self._settings.ring_name(self._camera, STREAM), self._settings.paths.run, self._camera, STREAM)

    def _open_writer(self, size: int) -> RingWriter:
        if self._writer is None or self._writer.payload_bytes < size:
            if self._writer is not None:
                self.close()
            self._writer = RingWriter.create(
                self._settings.ring_name(self._camera, STREAM),
                slots=SLOTS,
                payload_bytes=size,
                lock_dir=self._settings.paths.run,
                camera=self._camera,
                stream=STREAM,
            )
        return self._writer


def _is_same_exposure(before: FrameMeta, now: FrameMeta) -> bool:
    old, new = (meta.exposure_us * meta.analogue_gain for meta in (before, now))
    if not old or not new:
        return old == new
    return 1 / EXPOSURE_CHANGE < new / old < EXPOSURE_CHANGE
