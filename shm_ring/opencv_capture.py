"""`SharedCapture("cam0")`: a camera shared by many programs, with the face of cv2.VideoCapture."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

from shm_ring.attach import AttachedRing
from shm_ring.errors import FrameOverwritten, RingError, RingNotReady
from shm_ring.frame import Frame, Pixels
from shm_ring.layout import segment_name

READ_TIMEOUT_S = 5.0  # then read() answers (False, None), as VideoCapture does when a camera stalls
WIDTH, HEIGHT, FPS, POS_MSEC, POS_FRAMES = 3, 4, 5, 0, 1  # cv2.CAP_PROP_*, without importing OpenCV
EXPOSURE, GAIN = 15, 14

log = logging.getLogger(__name__)


class SharedCapture:
    """Drop-in for `cv2.VideoCapture(0)`: read(), grab(), retrieve(), isOpened(), get(), release().

    `read` waits for the next frame and returns the newest, so a slow program never sees old pictures. The camera's
    settings belong to the capture process: `set` answers False.
    """

    def __init__(self, camera: str, stream: str = "main", prefix: str = "shmcam", timeout_s: float = 10.0) -> None:
        self._ring: AttachedRing | None = AttachedRing(segment_name(prefix, camera, stream))
        self._frames = self._follow(self._ring)
        self._frame: Frame | None = None
        try:
            self._ring.wait_ready(timeout_s)
        except RingError as error:
            log.warning("%s", error)  # VideoCapture does not raise either; without a logging set up it goes to stderr
            self.release()

    def _follow(self, ring: AttachedRing) -> Iterator[Frame | None]:
        """Yields the newest frame each time, the one that is there already first; None after READ_TIMEOUT_S without."""
        for spot in ring.sequences(newest_first=True, start="oldest", idle_s=READ_TIMEOUT_S):
            yield None if spot is None else ring.hold(*spot)

    @staticmethod
    def _newest(ring: AttachedRing) -> Frame | None:
        with suppress(RingNotReady):  # its writer restarts
            return ring.latest()
        return None

    def isOpened(self) -> bool:
        """Tells whether there is a ring to read."""
        return self._ring is not None

    def grab(self) -> bool:
        """Waits for the next frame."""
        if self._ring is None:
            return False
        self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> tuple[bool, Pixels | None]:
        """Converts the grabbed frame to BGR, (height, width, 3) uint8."""
        if self._frame is None:
            return False, None
        try:
            return True, self._frame.bgr
        except FrameOverwritten:
            return False, None

    def read(self) -> tuple[bool, Pixels | None]:
        """Waits for the next frame and converts it."""
        for _ in range(3):  # a slow conversion in a very small ring may be lapped; take a newer frame then
            if not self.grab():
                return False, None
            done, picture = self.retrieve()
            if done:
                return True, picture
        return False, None

    def get(self, prop: int) -> float:
        """Returns a cv2.CAP_PROP_* of the grabbed or newest frame; 0.0 for what is unknown."""
        if self._ring is None:
            return 0.0
        frame = self._frame or self._newest(self._ring)
        if frame is None:
            return 0.0
        meta, geometry = frame.meta, frame.geometry
        period_us = meta.frame_duration_us
        return {
            WIDTH: float(geometry.width) if geometry else 0.0,
            HEIGHT: float(geometry.height) if geometry else 0.0,
            FPS: 1e6 / period_us if period_us else 0.0,
            POS_MSEC: meta.captured_ns / 1e6,
            POS_FRAMES: float(meta.frame_id),
            EXPOSURE: float(meta.exposure_us),
            GAIN: meta.analogue_gain,
        }.get(prop, 0.0)

    def set(self, prop: int, value: float) -> bool:
        """Refuses: use `shmcam set`."""
        return False

    def release(self) -> None:
        """Lets go of the ring."""
        if self._ring is not None:
            self._ring.close()
        self._ring = self._frame = None

    def __enter__(self) -> SharedCapture:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
