"""The public face: attach, follow, asyncio, SharedCapture, pairs."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from shm_ring import (
    FrameMeta,
    FrameOverwritten,
    RingMismatch,
    RingNotReady,
    RingWriter,
    SharedCapture,
    attach,
    layout,
    live_ring,
)
from shm_ring.formats import geometry
from tests.shm_ring.frames import meta

SHAPE = geometry("yuv420p", 64, 48)
LONG = 256
"""Slots: more than a second, so that a machine which stands still for a moment loses no frame that a test looks at."""


class Camera:
    """Publishes a grey that counts up, in a thread, until left."""

    def __init__(self, writer: RingWriter, fps: float = 200, offset_ns: int = 0) -> None:
        self.writer, self._period_s, self._offset_ns = writer, 1 / fps, offset_ns
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def publish(self) -> int:
        number = self.writer.next_frame_id
        picture = np.full(SHAPE.payload_bytes, 128, np.uint8)
        picture[: 64 * 48] = number % 200
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset_ns
        self.writer.publish(picture, FrameMeta(number, now_ns, now_ns, frame_duration_us=5000), SHAPE)
        return number

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self.publish()

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        self._thread.join()


def test_three_lines_give_pictures(prefix, make_writer):
    with make_writer(slots=LONG) as writer, Camera(writer), attach("cam0", prefix=prefix) as ring:
        for frame in islice(ring.follow(), 5):
            assert frame.bgr.shape == (48, 64, 3)
            assert frame.luma.mean() == frame.frame_id % 200
            assert frame.bgr.flags.writeable


def test_attach_waits_for_the_camera_and_gives_up_in_time(prefix, make_writer):
    with pytest.raises(RingNotReady, match="no such segment"):
        attach("cam0", prefix=prefix, timeout_s=0.1)
    timer = threading.Timer(0.2, make_writer)
    timer.start()
    with attach("cam0", prefix=prefix, timeout_s=20) as ring:
        assert ring.latest() is None


def test_following_in_order_misses_nothing(prefix, make_writer):
    with make_writer(slots=LONG) as writer, Camera(writer), attach("cam0", prefix=prefix) as ring:
        ids = [frame.frame_id for frame in islice(ring.follow(newest_first=False), 20)]
    assert ids == list(range(ids[0], ids[0] + 20))


def test_following_at_a_reduced_rate_gives_the_newest_each_time(prefix, make_writer):
    with make_writer() as writer, Camera(writer), attach("cam0", prefix=prefix) as ring:
        frames = list(islice(ring.follow(max_fps=20), 5))
        assert ring.skipped > 0
    gaps_s = np.diff([frame.captured_ns for frame in frames]) / 1e9
    assert gaps_s.mean() > 0.03  # 0.05 asked, 0.005 is the camera's


def test_a_frame_may_be_held_and_never_shows_another_picture(prefix, make_writer):
    with make_writer(slots=4) as writer, attach("cam0", prefix=prefix) as ring:
        camera = Camera(writer)
        camera.publish()
        looked_at, not_looked_at = ring.latest(), ring.latest()
        assert (looked_at.luma == 0).all()
        for _ in range(10):
            camera.publish()
        assert (looked_at.luma == 0).all()
        assert (looked_at.planes[0] == 0).all()
        assert looked_at.bgr.shape == (48, 64, 3)
        for ask in ("luma", "planes", "payload", "bgr"):
            with pytest.raises(FrameOverwritten):
                getattr(not_looked_at, ask)
        assert not_looked_at.frame_id == 0


def test_asyncio_programs_iterate_while_other_tasks_run(prefix, make_writer):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    async def main() -> list[int]:
        ticking = asyncio.create_task(tick())
        ids = []
        with attach("cam0", prefix=prefix) as ring:
            async for frame in ring.afollow():
                assert frame.luma.mean() == frame.frame_id % 200
                ids.append(frame.frame_id)
                if len(ids) == 10:
                    break
        ticking.cancel()
        return ids

    with make_writer(slots=LONG) as writer, Camera(writer):
        ids = asyncio.run(main())
    assert ids == sorted(set(ids))
    assert ticks > 0
    deadline_s = time.monotonic() + 10
    while any(thread.name.startswith("ring /") for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s, "the iterator's thread must end when the loop is left"
        time.sleep(0.05)


def test_an_asyncio_program_is_told_when_the_next_ring_cannot_be_read(prefix, make_writer, ring_name):
    header = np.zeros((), layout.SEGMENT_HEADER)
    header["magic"], header["version"] = layout.MAGIC, layout.VERSION + 1

    async def main() -> None:
        with attach("cam0", prefix=prefix) as ring:
            async for _ in ring.afollow(start="oldest"):
                writer.retire()
                Path(f"/dev/shm{ring_name}").write_bytes(header.tobytes())

    writer = make_writer()
    writer.publish(b"", meta(0))
    with pytest.raises(RingMismatch, match="layout version 2, this program reads 1"):
        asyncio.run(main())


def test_shared_capture_behaves_like_video_capture(prefix, make_writer):
    import cv2

    with make_writer(slots=LONG) as writer, Camera(writer), SharedCapture("cam0", prefix=prefix) as capture:
        assert capture.isOpened()
        seen = []
        for _ in range(5):
            ok, picture = capture.read()
            assert ok
            seen.append(capture.get(cv2.CAP_PROP_POS_FRAMES))
            assert abs(picture.mean() - seen[-1] % 200) < 2
        assert seen == sorted(set(seen))  # each read waits for a new frame
        assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (64.0, 48.0)
        assert capture.get(cv2.CAP_PROP_FPS) == 200.0
        assert capture.get(cv2.CAP_PROP_POS_FRAMES) >= 4
        assert capture.get(12345) == 0.0
        assert not capture.set(cv2.CAP_PROP_GAIN, 3)
        assert capture.grab()
        assert capture.retrieve()[1].shape == (48, 64, 3)
    assert not capture.isOpened()
    assert capture.read() == (False, None)
    assert capture.get(cv2.CAP_PROP_FPS) == 0.0


def test_shared_capture_without_a_camera_is_not_opened_and_says_why(prefix, caplog):
    capture = SharedCapture("cam0", prefix=prefix, timeout_s=0.05)
    assert not capture.isOpened()
    assert "no such segment; is its writer running?" in caplog.text
    assert capture.read() == (False, None)
    capture.release()


def test_shared_capture_goes_through_a_restart_of_its_camera(prefix, make_writer, monkeypatch):
    monkeypatch.setattr(live_ring, "LOOK_S", 0.0)
    writer = make_writer()
    with SharedCapture("cam0", prefix=prefix) as capture:
        writer.retire()
        assert capture.get(3) == 0.0
        with make_writer() as second:
            Camera(second).publish()
            assert capture.get(3) == 64.0
            assert capture.read()[0]
