"""CPU per frame of ways to take frames from Picamera2, printed as JSON; run inside the rig by bench/areas/picamera.py.

The rig draws its pictures in this same process, so each way is measured against a camera whose frames nobody takes.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from capture.sources.base import CameraRequest
from capture.sources.picamera2.source import PicameraSource
from shm_ring import FrameMeta, RingWriter
from shmcam.runtime.stop import Stop

RATE = 50.0
SLOTS = 64
Take = Callable[[], object]


@contextmanager
def into_ring(size: tuple[int, int]) -> Iterator[Take]:
    """As capture does: from the request's buffer into a slot of a real ring."""
    source = PicameraSource(0)
    shape = source.open(CameraRequest(*size, RATE), Stop()).geometry
    with tempfile.TemporaryDirectory() as folder:
        ring = RingWriter.create(
            "/shmcam-cost.cam0.main",
            slots=SLOTS,
            payload_bytes=shape.payload_bytes,
            lock_dir=Path(folder),
            camera="cam0",
            stream="main",
        )

        def take() -> None:
            assert source.wait(5)
            with ring.slot() as slot:
                shot = source.write(slot.payload)
                slot.meta = FrameMeta(frame_id=0, captured_ns=shot.captured_ns, captured_utc_ns=shot.captured_utc_ns)
                slot.geometry = shape

        yield take
        source.close()
        ring.retire()
        ring.close()


@contextmanager
def picamera2(size: tuple[int, int], how: str) -> Iterator[Take]:
    """Picamera2 alone: `capture_array` (a private copy, nobody else sees it), or frames that nobody takes."""
    from libcamera import ColorSpace
    from picamera2 import Picamera2

    camera = Picamera2(0)
    main = {"size": size, "format": "YUV420"}
    limits = {"FrameDurationLimits": (round(1e6 / RATE), round(1e6 / RATE))}
    camera.configure(
        camera.create_video_configuration(main=main, raw=None, colour_space=ColorSpace.Sycc(), controls=limits)
    )
    camera.start()
    yield (lambda: camera.capture_array("main")) if how == "capture_array" else (lambda: time.sleep(1 / RATE))
    camera.stop()
    camera.close()


WAYS = {
    "ring": into_ring,
    "capture_array": lambda size: picamera2(size, "capture_array"),
    "nobody": lambda size: picamera2(size, "nobody"),
}


def cpu_us(way: str, size: tuple[int, int], frames: int) -> float:
    """Microseconds of CPU per frame, of the whole process."""
    with WAYS[way](size) as take:
        for _ in range(10):
            take()
        before = time.process_time()
        for _ in range(frames):
            take()
        return (time.process_time() - before) / frames * 1e6


def bare_copy_us(size: tuple[int, int]) -> float:
    """One memcpy of the frame, from and to memory that is not in the cache."""
    held = [np.zeros(size[0] * size[1] * 3 // 2, np.uint8) + i for i in range(SLOTS)]
    target = [np.empty_like(one) for one in held]
    times = []
    for i in range(4 * SLOTS):
        before = time.perf_counter()
        np.copyto(target[i % SLOTS], held[(i * 7) % SLOTS])
        times.append(time.perf_counter() - before)
    return statistics.median(times[SLOTS:]) * 1e6


def main() -> None:
    rounds, frames = (2, 60) if "--quick" in sys.argv else (5, 150)
    found: dict[str, dict[str, list[float]]] = {}
    for name, size in (("720p", (1280, 720)), ("1080p", (1920, 1080))):
        mine = found[name] = {way: [] for way in WAYS} | {"copy": [bare_copy_us(size)]}
        for turn in range(rounds):
            for way in list(WAYS)[:: 1 if turn % 2 else -1]:
                mine[way].append(cpu_us(way, size, frames))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
