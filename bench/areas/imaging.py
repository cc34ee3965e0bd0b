"""JPEG from planes against the way through BGR, and what the views of a frame cost."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from bench.measure import Measured, Outcome, Row, paired, ratios, timed_us
from capture.settings import SyntheticSettings
from capture.sources.base import CameraRequest
from capture.sources.synthetic.source import SyntheticSource
from shm_ring.color import to_bgr
from shm_ring.formats import planes
from shmcam.imaging.jpeg import to_jpeg
from shmcam.runtime.stop import Stop

QUALITY = 85
SIZE = (1920, 1080)

ROWS = (
    Row("jpeg_gain", "x", 1.3, "1080p yuv420p → BGR → cv2.imencode / to_jpeg from the planes", better="higher"),
    Row("jpeg_bytes", "x", 1.1, "size of our JPEG / size of OpenCV's at the same quality"),
    Row("views", "µs", 10.0, "planes() of a 1080p frame"),
)


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    cv2.setNumThreads(1)
    source = SyntheticSource(SyntheticSettings())
    shape = source.open(CameraRequest(*SIZE, 0), Stop()).geometry
    payload = np.zeros(shape.payload_bytes, np.uint8)
    for number in range(30):
        source.write(payload, frame_id=number)
    times, repeats = (5, 3) if quick else (40, 7)
    stacked = payload.reshape(SIZE[1] * 3 // 2, SIZE[0])

    def through_bgr() -> bytes:
        picture = cv2.cvtColor(stacked, cv2.COLOR_YUV2BGR_I420)
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()

    figures = paired(
        {
            "planes": lambda: timed_us(lambda: to_jpeg(payload, shape, QUALITY), times),
            "bgr": lambda: timed_us(through_bgr, times),
        },
        repeats,
    )
    gains = sorted(ratios(figures, "bgr", "planes"))
    ours, theirs = (sorted(figures[name])[repeats // 2] / 1e3 for name in ("planes", "bgr"))
    spread = f"{gains[0]:.2f} … {gains[-1]:.2f}; planes {ours:.2f} ms, BGR {theirs:.2f} ms"
    yield "jpeg_gain", Measured(gains[len(gains) // 2], spread)
    opencv = cv2.imencode(".jpg", to_bgr(payload, shape), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    yield "jpeg_bytes", Measured(len(to_jpeg(payload, shape, QUALITY)) / opencv.size)
    yield "views", Measured(timed_us(lambda: planes(payload, shape), 2000))
