"""The frames that the feed looks at, and those that it passes over."""

import secrets
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np

from shm_ring import FrameMeta, LiveRing, RingWriter
from shm_ring.formats import geometry
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop
from streamer.pictures.fanout import Fanout, ViewerSlots
from streamer.pictures.feed import Feed
from streamer.pictures.variant import Variant
from tests.machine import long_ago_ns

SHAPE = geometry("yuv420p", 64, 48)
MS = 1_000_000


def test_the_frame_at_the_end_of_a_sleep_is_passed_over_and_the_due_one_is_not(tmp_path):
    """For ten pictures of thirty frames a second twenty were looked at, which cost a fifth of each picture."""
    name, looked, delivered = f"/t{secrets.token_hex(4)}.cam0.main", [], []
    caption = SimpleNamespace(count_frame=lambda frame: looked.append(frame.meta.frame_id), draw=lambda plane, _: plane)
    loop = SimpleNamespace(call_soon_threadsafe=lambda _deliver, pictures: delivered.extend(pictures.values()))
    fanout = Fanout("cam0", ViewerSlots(9, 9), now_ns)
    writer = RingWriter.create(
        name, slots=8, payload_bytes=SHAPE.payload_bytes, lock_dir=tmp_path, camera="cam0", stream="main"
    )
    with writer, LiveRing(name) as ring:
        long, scores = SimpleNamespace(problem=""), SimpleNamespace(read=lambda: None)
        feed = Feed(fanout, ring, long, scores, caption, loop=loop, stop=Stop(), get_stale_after_s=lambda: 5.0)
        began_ns, reader = now_ns(), ring.reader()

        def publish(number, after_ms):
            at_ns = began_ns + after_ms * MS
            writer.publish(np.zeros(SHAPE.payload_bytes, np.uint8), FrameMeta(number, at_ns, at_ns), SHAPE)
            return feed._handle_frame(reader, reader.head - 1)

        fanout.join(Variant(10.0, 0, 80, gray=False, stack=1), Mock())
        assert publish(0, 0) and publish(1, 33)
        feed._sleep_until_due()
        assert now_ns() - began_ns >= 75 * MS
        assert not publish(2, 66)
        assert publish(3, 100)
        feed._sleep_until_due()
        ago_ms = long_ago_ns() // MS
        assert not publish(4, -ago_ms), "a clock that went back"
        assert publish(5, 33 - ago_ms)
    assert looked == [0, 1, 3, 5]
    assert [picture.frame_id for picture in delivered] == [0, 1, 3, 5]
