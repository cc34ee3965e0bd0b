"""The beginning of a recording from the small ring: only frames of the format that the file has."""

from __future__ import annotations

import numpy as np
import pytest

from recorder.upscaled_preroll import SmallPreroll
from shm_ring.formats import Geometry, geometry


class FakeRing:
    """A ring of one-second frames of one brightness; also its own reader and each of its frames."""

    def __init__(self, picture: Geometry, begins_s: int, grey: int) -> None:
        self.picture_geometry, self._begins_s = picture, begins_s
        self.payload = np.full(picture.payload_bytes, grey, np.uint8)
        self.meta = lambda _sequence: self
        self.captured_ns, self.oldest, self.slots = begins_s * 10**9, 0, 1000

    def reader(self) -> FakeRing:
        return self

    def latest(self) -> int:
        return 0

    def window(self, start_ns: int, _end_ns: int) -> range:
        return range(start_ns > self.captured_ns, 1)

    def borrow(self, _sequence: int) -> FakeRing:
        return self

    copy = borrow

    def __enter__(self) -> FakeRing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("pixel_format", ["yuv420p", "gray", "nv12", "bgr24"])
def test_a_small_ring_of_another_format_gives_no_frames(pixel_format):
    """After a change from grey to colour the small ring that had ended ended the recorder, too: planes differ."""
    full = FakeRing(geometry("yuv420p", 128, 96), 10, 0)
    preroll = SmallPreroll(FakeRing(geometry(pixel_format, 64, 48), 5, 77))
    assert preroll.begin(0, full) and preroll.seconds == 5.0
    frame = preroll.next_frame(full)
    if pixel_format == "yuv420p":
        assert frame.picture_geometry == full.picture_geometry and (frame.payload == 77).all()
    else:
        assert frame is None and not preroll.is_active and preroll.next_ns == 0
