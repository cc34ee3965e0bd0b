"""The control socket: round trips with 20 connections and 200 events/s, floods, reconnecting. Bounds of issue 8."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.measure import Json, Measured, Outcome, Row, Skipped, Table
from shmcam.config.settings import Settings
from shmcam.control.client import ControlClient
from shmcam.control.messages import NightBegan, Reply
from shmcam.library import Catalogue, Entry
from shmcam.runtime.atomic_files import sync_folder

CONNECTIONS = 20
EVENTS_PER_S = 200
LISTENERS = 5
ECHO = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
while data := link.recv(65536):
    link.sendall(data)
"""

COMMANDS = (
    *(("hub", line) for line in ("ping", "status", "health", "cameras", "version", "help save", "logs hub 20")),
    *(("hub", line) for line in ("get night", "get", "dump_config", "dump_config toml", "preview enabled=false")),
    *(("analyzer", line) for line in ("night_level", "night status")),
    *(("recorder", line) for line in ("record status", "watch seconds=1")),
    ("streamer", "viewers"),
    *(("exporter", line) for line in ("timelapse status", "clips limit=5", "pictures limit=5", "library list")),
    ("exporter", "archives list"),
    ("capture", "detect"),
)
"""Who answers what: all commands that make no picture and write no file."""

SET, SAVE = ("hub", "set night.dark_threshold 35"), ("hub", "set night.dark_threshold 35 --save")
"""The first adds a record to the journal in [paths] run, here on a disk. The second is shown with them without a bound:
it waits until config.toml is on the disk, and finds its comments again."""

LIBRARY_ROWS = 20_000
"""Pictures in the library beside what the run makes: a command that lists must not look at all of them."""

ASYNCIO_ECHO = """
import asyncio, sys
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_unix_server(Echo, sys.argv[1])
    await server.serve_forever()
asyncio.run(main())
"""

ROWS = (
    Row("round_trip_median", "ms", 1.0, "client → hub → owner → hub → client, 20 connections, 200 events/s, median"),
    Row(
        "command_median",
        "ms",
        1.0,
        "median round trip of the slowest command of all that tell, or change a setting; real processes, 0.5 frames/s",
    ),
    Row("command_ratio", "x", None, "the same / a bare asyncio echo over a Unix socket, between those commands"),
    Row("set_saved_ratio", "x", None, "`set --save` / writing, renaming and syncing the same bytes beside it"),
    Row("round_trip_p99", "ms", None, "the same, 99th percentile"),
    Row("round_trip_ratio", "x", None, "the same median / a bare echo over a Unix socket between the same processes"),
    Row("hub_ping_median", "ms", 1.0, "client → hub → client"),
    Row("events_lost", "events", 0, "events not delivered to subscribers that read, at 200/s"),
    Row("flood_p99", "ms", 100, "a valid client's round trip while another floods malformed messages, p99"),
    Row("flood_growth", "MB", 5, "growth of the hub over the flood"),
    Row("reconnect", "s", 2.0, "all clients back after kill -9 of the hub, from the moment it listens again"),
    Row("hub_rss", "MB", None, "resident memory of the hub with 20 connections"),
)


class Hub:
    """`python -m shmcam.hub` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "run/control.sock"
        self._config = folder / "config.toml"
        self._config.write_text("")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "shmcam.hub", "--config", str(self._config)])
        until(lambda: answers(self.socket))

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    yield from _commands(20 if quick else 200)
    trips = 200 if quick else 2000
    with tempfile.TemporaryDirectory(prefix="shmcam-b") as folder, ExitStack() as stack:
        hub = Hub(Path(folder))
        stack.callback(lambda: hub.process.kill())
        for _ in range(CONNECTIONS - LISTENERS - 3):
            stack.enter_context(connected(hub.socket))
        heard = stack.enter_context(listening(hub.socket))
        owner = stack.enter_context(answering(hub.socket))
        with announcing(hub.socket) as sent:
            link = stack.enter_context(connected(hub.socket))
            through = timed(link, b"save\n", trips)
            ping = timed(link, b"ping\n", trips)
        echo = echoed(trips)
        until(lambda: min(heard) >= sent[0], 5.0)
        runs = f"{trips} trips"
        yield "round_trip_median", Measured(1e3 * statistics.median(through), runs)
        yield "round_trip_p99", Measured(1e3 * quantile(through, 0.99), runs)
        yield "round_trip_ratio", Measured(statistics.median(through) / statistics.median(echo), runs)
        yield "hub_ping_median", Measured(1e3 * statistics.median(ping), runs)
        lost = sum(sent[0] - count for count in heard)
        yield "events_lost", Measured(float(lost), f"{sent[0]} events to {len(heard)} subscribers")
        yield "hub_rss", Measured(hub.rss_mb(), "")
        before = hub.rss_mb()
        flooded = flood(hub.socket, link, 2_000 if quick else 20_000)
        yield "flood_p99", Measured(1e3 * quantile(flooded, 0.99), f"{len(flooded)} trips")
        yield "flood_growth", Measured(hub.rss_mb() - before, "")
        clients = [owner, *[stack.enter_context(client(hub.socket, f"role{n}")) for n in range(8)]]
        until(lambda: all(one.is_connected for one in clients))
        hub.process.kill()
        hub.process.wait()
        hub.start()
        begun = time.monotonic()
        until(lambda: all(one.is_connected for one in clients))
        yield "reconnect", Measured(time.monotonic() - begun, f"{len(clients)} clients")


def _commands(trips: int) -> Iterator[tuple[str, Outcome]]:
    """Times what each real process answers, while it waits for a frame that is two seconds away."""
    try:
        from tests.pipeline import Pipeline
    except ImportError as error:
        yield "command_median", Skipped(f"needs the test packages: {error}")
        return
    camera = {"width": 640, "height": 480, "framerate": 0.5}
    lines: Table = []
    with ExitStack() as stack:
        pipeline = stack.enter_context(Pipeline(camera=camera, ready=("capture",)))
        link = stack.enter_context(connected(pipeline.socket))
        echo = stack.enter_context(echoing(pipeline.folder / "echo.sock"))
        pipeline.wait_running()
        until(lambda: "LEVEL" in pipeline.text("night_level"))
        fill_library(Settings.load(pipeline.config))
        for state, before in (("idle", "ping"), ("recording", "record start")):
            pipeline.text(before)
            for owner, command in (*COMMANDS, SET, SAVE):
                bare = statistics.median(timed(echo, b"echo\n", trips))
                took = timed(link, f"{command}\n".encode(), trips)
                median, worst = 1e3 * statistics.median(took), 1e3 * max(took)
                line: dict[str, Json] = {"answers": owner, "command": command, "recorder": state}
                lines.append({**line, "median ms": median, "max": worst, "x echo": median / (1e3 * bare)})
        text = pipeline.config.read_bytes()
        saved = [timed(link, f"{SAVE[1]}\n".encode(), 1)[0] / synced(pipeline.folder, text) for _ in range(20)]
    bounded = [line for line in lines if line["command"] != SAVE[1]]
    slowest = max(bounded, key=lambda line: float(str(line["median ms"])))
    detail = f"{slowest['command']} ({slowest['answers']}), of {len(COMMANDS) + 1} commands; {trips} trips each"
    yield "command_median", Measured(float(str(slowest["median ms"])), detail, {"commands": lines})
    yield "command_ratio", Measured(float(str(slowest["x echo"])), detail)
    yield "set_saved_ratio", Measured(statistics.median(saved), f"{len(text)} bytes, 20 pairs")


def fill_library(settings: Settings) -> None:
    """Add pictures to the library of a running pipeline."""
    with Catalogue.of(settings) as catalogue:
        folder = settings.paths.captures
        catalogue.insert(
            [
                Entry(kind="picture", camera="cam0", path=folder / f"{number}.jpg", started_utc_ns=number)
                for number in range(LIBRARY_ROWS)
            ]
        )


def synced(folder: Path, data: bytes) -> float:
    """Return seconds of writing bytes to a file so that they survive a power cut: what the disk takes."""
    begun = time.perf_counter()
    with (folder / "bare.part").open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    (folder / "bare.part").rename(folder / "bare")
    sync_folder(folder)
    return time.perf_counter() - begun


@contextmanager
def echoing(path: Path) -> Iterator[socket.socket]:
    """Yield a connection to a bare asyncio server in another process."""
    process = subprocess.Popen([sys.executable, "-c", ASYNCIO_ECHO, str(path)])
    try:
        until(lambda: answers(path))
        with connected(path) as link:
            yield link
    finally:
        process.kill()
        process.wait()


def timed(link: socket.socket, line: bytes, count: int) -> list[float]:
    """Return seconds of each round trip, waiting a little between them as a person or a script would."""
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        link.sendall(line)
        while not link.recv(65536).endswith(b"\n"):
            pass
        found.append(time.perf_counter() - begun)
        time.sleep(0.001)
    return found


def echoed(count: int) -> list[float]:
    """Return round trips of a bare echo in another process: what the kernel and two wake-ups cost."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    timed(ours, b"save\n", 20)
    found = timed(ours, b"save\n", count)
    ours.close()
    process.wait()
    return found


def flood(path: Path, valid: socket.socket, messages: int) -> list[float]:
    """Send malformed messages from another thread; return the valid client's round trips meanwhile."""
    done = threading.Event()

    def send() -> None:
        junk = [
            b"\x81\xa1a" + b"\xdc\x01\x00" * 1500,
            b'{"command": NaN}\n' * 50,
            b"nonsense line\n" * 50,
            b"\xff\xfe\x00",
        ]
        for number in range(messages // 20):
            with connected(path) as link:
                try:
                    link.sendall(junk[number % len(junk)])
                except OSError:
                    continue
        done.set()

    thread = threading.Thread(target=send)
    thread.start()
    found: list[float] = []
    while not (found and done.is_set()):
        found += timed(valid, b"ping\n", 5)
    thread.join()
    return found


@contextmanager
def client(path: Path, role: str, *commands: str) -> Iterator[ControlClient]:
    with ControlClient(role, socket_path=path, commands=commands) as one:
        until(lambda: one.is_connected)
        yield one


@contextmanager
def answering(path: Path) -> Iterator[ControlClient]:
    """An exporter that answers save at once."""
    with client(path, "exporter", "save") as owner:
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                if owner.wait(0.05):
                    for request in owner.receive():
                        request.reply(Reply(status="saved", text="Saved single full-resolution image: /x.jpg"))

        thread = threading.Thread(target=loop)
        thread.start()
        yield owner
        stop.set()
        thread.join()


@contextmanager
def announcing(path: Path) -> Iterator[list[int]]:
    """200 events a second; yields their count."""
    with client(path, "analyzer") as source:
        stop, sent = threading.Event(), [0]

        def loop() -> None:
            while not stop.wait(1 / EVENTS_PER_S):
                source.announce(NightBegan(camera="cam0"))
                sent[0] += 1

        thread = threading.Thread(target=loop)
        thread.start()
        yield sent
        stop.set()
        thread.join()
        time.sleep(0.3)


@contextmanager
def listening(path: Path) -> Iterator[list[int]]:
    """Subscribers that read; yields how many events each has had."""
    counts, links = [0] * LISTENERS, [socket.socket(socket.AF_UNIX) for _ in range(LISTENERS)]

    def loop(number: int) -> None:
        with links[number].makefile("rb") as lines:
            for line in lines:
                counts[number] += json.loads(line).get("event") == "night_began"

    threads = []
    for number, link in enumerate(links):
        link.connect(str(path))
        link.sendall(b'{"command": "subscribe", "topics": ["night"]}\n')
        threads.append(threading.Thread(target=loop, args=(number,), daemon=True))
        threads[-1].start()
    yield counts
    for link in links:
        link.shutdown(socket.SHUT_RDWR)


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        yield link


def answers(path: Path) -> bool:
    try:
        with connected(path):
            return True
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
