"""The part of a pre-roll that only the small ring holds ([ring.downscale]): its frames enlarged to the full size.

A file has one size from its first frame to its last, so what the full-size ring no longer holds is enlarged.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from msgspec import Struct

from shm_ring import FrameMeta, FrameOverwritten, LiveRing, RingError, RingReader
from shm_ring.formats import Geometry, planes
from shm_ring.frame import Pixels

MARGIN = 4
"""The full-size ring takes over once the next frame lies this share (1/4) of it after its oldest."""


class EnlargedFrame(Struct, frozen=True):
    """A small frame in full size, as the encoder takes frames."""

    meta: FrameMeta
    picture_geometry: Geometry
    payload: Pixels


class SmallPreroll:
    """Yields the enlarged frames one by one; one thread uses it."""

    def __init__(self, ring: LiveRing) -> None:
        """`ring`: the small one, which need not exist."""
        self._ring = ring
        self._geometry: Geometry | None = None
        self._last_ns = 0
        self.seconds = 0.0
        """Length of the part that `begin` found to be missing in the full-size ring."""

    @property
    def is_active(self) -> bool:
        """True from `begin` until the full-size ring holds what follows."""
        return self._geometry is not None

    def begin(self, start_ns: int, full: RingReader | None) -> bool:
        """Begins at this instant, if the small ring reaches further back than the full-size one. Returns: whether."""
        self._geometry, self._last_ns, self.seconds = None, start_ns - 1, 0.0
        with suppress(RingError, FrameOverwritten, OSError):
            newest = None if full is None else full.latest()
            if full is None or newest is None:
                return False
            small, full_begins_ns = self._ring.reader(), full.meta(full.oldest).captured_ns
            begins_ns = max(start_ns, small.meta(small.oldest).captured_ns)
            if begins_ns < full_begins_ns:
                self.seconds = (full_begins_ns - begins_ns) / 1e9
                with full.borrow(newest) as frame:
                    self._geometry = frame.picture_geometry
        return self.is_active

    def next_frame(self, full: RingReader | None) -> EnlargedFrame | None:
        """Returns the next frame; None once the full-size ring holds what follows, or the small one has no more."""
        geometry, self._geometry = self._geometry, None
        if geometry is None or full is None:
            return None
        with suppress(RingError, FrameOverwritten, OSError):
            following = full.window(self._last_ns + 1, 1 << 62)
            if following and following.start - full.oldest >= full.slots // MARGIN:
                return None
            small = self._ring.reader()
            for sequence in small.window(self._last_ns + 1, 1 << 62)[:1]:
                frame = small.copy(sequence)
                payload = enlarge(frame.payload, frame.picture_geometry, geometry)
                if payload is None:  # the small ring is that of the format before the last change
                    return None
                self._last_ns, self._geometry = frame.captured_ns, geometry
                return EnlargedFrame(frame.meta, geometry, payload)
        return None

    @property
    def next_ns(self) -> int:
        """The first instant that has not been taken."""
        return self._last_ns + 1


def enlarge(payload: Pixels, small: Geometry, full: Geometry) -> Pixels | None:
    """Returns the pixels in the larger geometry, plane by plane; None if that has another pixel format."""
    import cv2  # only where there is a small ring

    if small.pixel_format != full.pixel_format:
        return None
    enlarged = np.zeros(full.payload_bytes, np.uint8)
    for little, large in zip(planes(payload, small), planes(enlarged, full), strict=True):
        large[...] = cv2.resize(little, (large.shape[1], large.shape[0]), interpolation=cv2.INTER_LINEAR)
    return enlarged
