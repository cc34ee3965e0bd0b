"""What capture costs beside the copy of the frame and what its source costs. Bound of issue 3."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import simplejpeg

from bench.areas.ring.ring import lent
from bench.measure import Measured, Outcome, Row, compared, paired
from capture.desired_request import DesiredRequest
from capture.loop import CaptureLoop
from capture.rings import Rings
from capture.settings import SyntheticSettings
from capture.sources.base import CameraRequest, FrameSource, OpenedSource, Payload, ShotMeta
from capture.sources.mjpeg.source import HttpSource
from capture.sources.pyav_stream import LiveSource
from capture.sources.select import Choice
from capture.sources.stream_address import Address, parse_url
from capture.sources.synthetic.source import SyntheticSource
from capture.sources.video_file import FileSource
from capture.status import CaptureStatus
from shm_ring import RingWriter
from shm_ring.color import to_bgr
from shm_ring.formats import Geometry, geometry, planes
from shmcam.config.settings import Settings
from shmcam.control.client import ControlClient
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
HELD = 6  # Picamera2 has six buffers
SLOTS = 64  # two seconds: as in use, a slot is never still in the cache
CLIP_FRAMES = 120
FIRST = 10  # the first frames also log and announce that the camera was found

ROWS = (
    Row(
        "capture_720p",
        "x",
        1.3,
        "CPU of the capture loop per frame / bare copy of it into the same slots, 720p yuv420p",
    ),
    Row("capture_1080p", "x", 1.3, "the same, 1080p"),
    Row("file_720p", "x", 1.0, "CPU per frame from an H.264 file / (decoding it + 1.3 x bare copy), 720p"),
    Row("file_1080p", "x", 1.0, "the same, 1080p"),
    Row(
        "url_720p",
        "x",
        1.2,
        "CPU per picture of MJPEG over HTTP, all threads / (libjpeg-turbo to BGR + 1.3 x bare copy)",
    ),
    Row("url_1080p", "x", 1.3, "the same, 1080p"),
    Row("webcam_720p", "x", 1.5, "the same of 4:2:2 MJPEG through FFmpeg's reader, as webcams send it, 720p"),
    Row("webcam_1080p", "x", 1.5, "the same, 1080p"),
    Row("synthetic_720p", "ms", None, "CPU per frame of the synthetic camera, drawing included, 720p"),
    Row("synthetic_1080p", "ms", None, "the same, 1080p"),
)


class HeldFrames:
    """A camera whose frames lie in memory already, as a mapped request's do; each is copied once, plane by plane."""

    description = "held frames"

    def __init__(self, shape: Geometry) -> None:
        rng = np.random.default_rng(0)
        self._shape = shape
        self._held = [rng.integers(0, 256, shape.payload_bytes, np.uint8) for _ in range(HELD)]
        self._count = 0

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        return OpenedSource(self._shape, framerate=30.0)

    def wait(self, timeout_s: float) -> bool:
        return True

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        payload[:] = self._held[self._count % HELD]
        self._count += 1
        return ShotMeta(now_ns(), 8000, 2.0, frame_duration_us=33_333)

    def apply(self, request: CameraRequest) -> bool:
        return True

    def close(self) -> None: ...


class Counted:
    """Ends the loop after so many frames; measures the CPU time once everything has been announced."""

    def __init__(self, source: FrameSource, frames: int, stop: Stop, clock: Callable[[], float]) -> None:
        self._source, self._frames, self._stop, self._clock = source, frames, stop, clock
        self._left = frames + FIRST
        self._started_s = 0.0
        self.cpu_us = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def wait(self, timeout_s: float) -> bool:
        if self._left == self._frames:
            self._started_s = self._clock()
        if self._left == 0:
            self.cpu_us = (self._clock() - self._started_s) / self._frames * 1e6
            self._stop.request()
            return False
        self._left -= 1
        return self._source.wait(timeout_s)


def loop_us(
    make: Callable[[], FrameSource],
    size: tuple[int, int],
    frames: int,
    clock: Callable[[], float] = time.thread_time,
) -> float:
    """CPU per frame of a whole capture loop, in this process, without a hub; of all its threads by process_time."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        prefix = f"bench{uuid.uuid4().hex[:8]}"
        config.write_text(
            f"[camera]\nwidth = {size[0]}\nheight = {size[1]}\nframerate = 0\nmemory_limit_mb = 0\n"
            f'[ring]\nsize = {SLOTS}\nprefix = "{prefix}"\n'
        )
        settings, stop = Settings.load(config, environ={}), Stop()
        source = Counted(make(), frames, stop, clock)
        wishes = DesiredRequest(settings, "cam0")
        with (
            ControlClient("capture", "cam0", socket_path=settings.socket_path, stop=stop) as control,
            Rings(prefix, "cam0", settings.paths.run) as rings,
        ):
            choice = Choice(source, "synthetic", "bench")  # type: ignore[arg-type]
            CaptureLoop(
                wishes, rings, control, CaptureStatus(control, "cam0"), stop, lambda _: choice, lambda _: None
            ).run()
        return source.cpu_us


def bare_us(size: tuple[int, int], frames: int) -> float:
    """CPU per frame of nothing but copying held frames into the slots of a ring."""
    shape = geometry("yuv420p", *size)
    rng = np.random.default_rng(0)
    held = [rng.integers(0, 256, shape.payload_bytes, np.uint8) for _ in range(HELD)]
    name = f"/bench{uuid.uuid4().hex[:8]}.cam0.main"
    with tempfile.TemporaryDirectory() as folder, RingWriter.create(
        name, slots=SLOTS, payload_bytes=shape.payload_bytes, lock_dir=Path(folder), camera="cam0", stream="main"
    ) as writer:  # fmt: skip
        slots = lent(writer)
        started = time.thread_time()
        for count in range(frames):
            slots[count % SLOTS][:] = held[count % HELD].data
        return (time.thread_time() - started) / frames * 1e6


def clip(folder: Path, size: tuple[int, int]) -> Path:
    """A clip of the synthetic scene, single-threaded decoding so that all of its cost is seen."""
    path = folder / f"{size[1]}.mp4"
    source = SyntheticSource(SyntheticSettings())
    opened = source.open(CameraRequest(*size, 0), Stop())
    payload = np.zeros(opened.geometry.payload_bytes, np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(CLIP_FRAMES):
            source.write(payload, frame_id=number)
            frame = av.VideoFrame(*size, "yuv420p")
            for plane, view in zip(frame.planes, planes(payload, opened.geometry), strict=True):
                padded = np.zeros((view.shape[0], plane.line_size), np.uint8)
                padded[:, : view.shape[1]] = view
                plane.update(padded.tobytes())
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def decode_us(path: Path, frames: int) -> float:
    """CPU per frame of decoding alone."""
    done, started = 0, time.thread_time()
    while done < frames:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "NONE"
            for _ in container.decode(video=0):
                done += 1
                if done == frames:
                    break
    return (time.thread_time() - started) / frames * 1e6


CAMERA = """
import itertools, pathlib, socket, sys, time
jpegs = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jpg"))]
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    link, _ = server.accept()
    is_http, due = sys.argv[2] == "http", time.monotonic()
    try:
        if is_http:
            link.recv(4096)
            link.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: multipart/x-mixed-replace; boundary=cut\\r\\n\\r\\n")
        for jpeg in itertools.cycle(jpegs):
            head = b"--cut\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(jpeg)
            link.sendall(head + jpeg + b"\\r\\n" if is_http else jpeg)
            due += 1 / 30
            time.sleep(max(0.0, due - time.monotonic()))
    except OSError:
        link.close()
"""
"""A camera of 30 pictures a second in a process of its own: over HTTP, or the bare JPEGs one after the other."""


@contextmanager
def camera(jpegs: list[bytes], kind: str) -> Iterator[int]:
    """Starts CAMERA with these pictures. Yields: its port."""
    with tempfile.TemporaryDirectory() as folder:
        for number, jpeg in enumerate(jpegs):
            (Path(folder) / f"{number:03}.jpg").write_bytes(jpeg)
        child = subprocess.Popen([sys.executable, "-c", CAMERA, folder, kind], stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline())
        finally:
            child.kill()
            child.wait()


def jpegs_of(size: tuple[int, int], subsampling: str) -> list[bytes]:
    """Pictures of the synthetic scene."""
    source = SyntheticSource(SyntheticSettings())
    opened = source.open(CameraRequest(*size, 0), Stop())
    payload, jpegs = np.zeros(opened.geometry.payload_bytes, np.uint8), []
    for number in range(HELD):
        source.write(payload, frame_id=number)
        jpegs.append(bytes(simplejpeg.encode_jpeg(to_bgr(payload, opened.geometry), 80, "BGR", subsampling)))
    return jpegs


def libjpeg_us(jpegs: list[bytes], frames: int) -> float:
    """CPU per picture of libjpeg-turbo alone, to BGR: no package gives its planes."""
    started = time.thread_time()
    for number in range(frames):
        simplejpeg.decode_jpeg(jpegs[number % len(jpegs)], "BGR")
    return (time.thread_time() - started) / frames * 1e6


def measure_jpegs(size: tuple[int, int], kind: str, frames: int, repeats: int) -> Measured:
    """Compares a source of JPEGs with libjpeg-turbo and a bare copy. `kind`: http (4:2:0) or webcam (4:2:2)."""
    jpegs = jpegs_of(size, "420" if kind == "http" else "422")
    with camera(jpegs, kind) as port:

        def make() -> FrameSource:
            if kind == "http":
                return HttpSource(parse_url(f"http://127.0.0.1:{port}/"))
            return LiveSource("v4l2", Address(f"tcp://127.0.0.1:{port}", "camera", format="mjpeg"))

        subjects = {
            kind: lambda: loop_us(make, size, frames, time.process_time),
            "allowed": lambda: libjpeg_us(jpegs, frames) + 1.3 * bare_us(size, frames),
        }
        return compared(paired(subjects, repeats), kind, "allowed")


class OneThread(FileSource):
    """Decodes in the calling thread, whose CPU time is the one measured."""

    def _rewind(self) -> None:
        super()._rewind()
        assert self._container is not None
        self._container.streams.video[0].thread_type = "NONE"


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    cv2.setNumThreads(1)
    frames, repeats, some = (60, 3, 60) if quick else (600, 7, 150)
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            shape = geometry("yuv420p", *size)
            copies: dict[str, Callable[[], float]] = {
                "capture": partial(loop_us, partial(HeldFrames, shape), size, frames),
                "bare": partial(bare_us, size, frames),
            }
            yield f"capture_{name}", compared(paired(copies, repeats), "capture", "bare")
            path = clip(Path(folder), size)
            files = {
                "file": lambda size=size, path=path: loop_us(lambda: OneThread(path, realtime=False), size, some),
                "allowed": lambda size=size, path=path: decode_us(path, some) + 1.3 * bare_us(size, some),
            }
            yield f"file_{name}", compared(paired(files, repeats), "file", "allowed")
            yield f"url_{name}", measure_jpegs(size, "http", some, 3)
            yield f"webcam_{name}", measure_jpegs(size, "webcam", some, 3)
            drawn = [loop_us(lambda: SyntheticSource(SyntheticSettings()), size, some) / 1e3 for _ in range(3)]
            yield f"synthetic_{name}", Measured(sorted(drawn)[1], f"{min(drawn):.2f} … {max(drawn):.2f}")
