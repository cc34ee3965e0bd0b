"""What the streamer's tests share: a server in this process with a pretended camera and hub, and simple clients."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from aiohttp import ClientSession
from msgspec.structs import replace

from shm_ring import FrameMeta
from shmcam.config.settings import Settings
from shmcam.control.messages import Command, Reply
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns
from streamer.h264.live_video import LiveVideo
from streamer.http.context import Context, StreamedCamera
from streamer.http.listener import listen
from streamer.http.server import connections_of, guard_of, identity_of, load_tls, proxies_of, run_server
from streamer.monitoring.viewers import ViewerTable
from streamer.pictures.fanout import Fanout, ViewerSlots
from streamer.pictures.feed import FeedStatus
from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant
from streamer.settings import HttpSettings, MjpegServerSettings
from tests.machine import PATIENCE, Deadline

T = TypeVar("T")
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
"""What a client without a library says to open a WebSocket."""


class FakeHub:
    """Answers every command with `reply`, and remembers what was asked."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.asked: list[Command] = []
        self.reply = reply or Reply(status="done", text="OK", data={})
        self.replies: dict[type, Reply] = {}

    async def ask(self, command: Command, timeout_s: float) -> Reply:
        self.asked.append(command)
        return self.replies.get(type(command), self.reply)

    def restart_process(self, after_s: float) -> None:
        self.asked.append(("restart", after_s))


def jpeg_of(number: int, width: int = 160, height: int = 120, noise: int = 0) -> bytes:
    """A JPEG that carries `number` in its pixels; `noise` makes it large."""
    plane = np.full((height, width), 90, np.uint8)
    if noise:
        plane[:] = np.random.default_rng(number).integers(0, 255, plane.shape, np.uint8)
    frame_number_code.draw(plane, number)
    return simplejpeg.encode_jpeg_yuv_planes(plane, None, None, 90)


def number_in(jpeg: bytes) -> int | None:
    return frame_number_code.read(simplejpeg.decode_jpeg(jpeg, colorspace="GRAY")[:, :, 0])


def picture(number: int, jpeg: bytes | None = None, **more: Any) -> JpegPicture:
    fields: dict[str, Any] = {"width": 160, "height": 120, "captured_ns": now_ns(), "captured_utc_ns": time.time_ns()}
    return JpegPicture(jpeg=jpeg or jpeg_of(number), frame_id=number, **{**fields, **more})


class FakeCamera:
    """Delivers pictures to a fan-out as a feed would, without a ring."""

    def __init__(self, name: str, slots: ViewerSlots) -> None:
        self.fanout = Fanout(name, slots, now_ns)
        self.live_video = LiveVideo(name)
        self.feed = SimpleNamespace(
            status=FeedStatus(), last_polled_s=time.monotonic(), long_exposure_problem="export.long_exposure_s is 0"
        )
        self.camera = StreamedCamera(name, self.fanout, self.feed, self.live_video)
        self.number = 0

    def publish(self, **more: Any) -> int:
        """One more frame, encoded for each wanted variant."""
        self.number += 1
        meta = FrameMeta(self.number, now_ns(), time.time_ns(), frame_duration_us=33_333)
        self.feed.status = replace(self.feed.status, meta=meta, frames=self.number, fps=30.0)
        self.fanout.deliver({variant: picture(self.number, **more) for variant in self.fanout.variants})
        return self.number

    async def run(self, fps: float = 50.0, **more: Any) -> None:
        while True:
            self.publish(**more)
            await asyncio.sleep(1 / fps)


def settings_of(folder: Path, text: str = "") -> Settings:
    (folder / "config.toml").write_text(text)
    return Settings.load(folder / "config.toml", environ={})


class Server:
    """A running server and its pretended surroundings."""

    def __init__(self, settings: Settings, cameras: tuple[str, ...]) -> None:
        http, mjpeg = settings.table(HttpSettings), settings.table(MjpegServerSettings)
        identity = identity_of(http)
        self.hub = FakeHub()
        slots = ViewerSlots(mjpeg.max_streams, mjpeg.max_variants)
        self.cameras = {name: FakeCamera(name, slots) for name in cameras}
        self.context = Context(
            settings, identity, guard_of(http), {n: c.camera for n, c in self.cameras.items()},
            ViewerTable(), slots, connections_of(http, mjpeg), self.hub, proxies_of(http),
        )  # fmt: skip
        self.url = ""
        self.held: list[asyncio.StreamWriter] = []  # a writer that is collected closes its connection
        self.port = 0

    @property
    def camera(self) -> FakeCamera:
        return next(iter(self.cameras.values()))


@asynccontextmanager
async def running(folder: Path, text: str = "", cameras: tuple[str, ...] = ("cam0",), fps: float = 0.0, **more: Any):
    """A server on a free port; `fps` > 0 lets every camera deliver by itself."""
    server = Server(settings_of(folder, text), cameras)
    sock = listen("127.0.0.1", 0)
    server.port = sock.getsockname()[1]
    tasks = [asyncio.create_task(camera.run(fps, **more)) for camera in server.cameras.values() if fps]
    try:
        async with run_server(server.context, sock, load_tls(server.context.settings)) as url:
            server.url = url.rstrip("/")
            yield server
    finally:
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def browsing(server: Server):
    async with ClientSession(server.url) as session:
        yield session


async def parts(reader: asyncio.StreamReader):
    """Parse a multipart stream as a strict client would: yields (headers, body)."""
    while True:
        line = await reader.readline()
        if not line:
            return
        if not line.strip():
            continue
        assert line == b"--frame\r\n", line[:80]
        headers = {}
        while (line := await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await reader.readexactly(int(headers["content-length"]))
        yield headers, body


async def opened(server: Server, path: str, headers: str = "", receive_buffer: int = 0):
    """A raw connection that has sent one GET; returns (status line, headers, reader, writer)."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock)
    server.held.append(writer)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{headers}\r\n".encode())
    status = (await reader.readline()).decode()
    found = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        found[name.lower()] = value.strip()
    return status, found, reader, writer


async def soon(awaited: Awaitable[T], seconds: float = 10.0) -> T:
    """Wait for what should come at once; the deadline is against hangs only."""
    return await asyncio.wait_for(awaited, PATIENCE * seconds)


async def raw(port: int, data: bytes, seconds: float = 10.0) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await soon(reader.read(), seconds)
    finally:
        writer.close()


def body_of(answer: bytes) -> dict:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def eventually(condition, seconds: float = 10.0, what: str = "") -> Any:
    deadline = Deadline(seconds)
    while not (value := condition()):
        assert not deadline.has_passed(), f"{deadline}: {what or condition}"
        await asyncio.sleep(0.02)
    return value


def variant(**more: Any) -> Variant:
    return Variant(**{"fps": 30.0, "width": 0, "quality": 80, "gray": False, "stack": 1, **more})


class Threaded:
    """A running server in a thread of its own, for clients that know nothing of asyncio."""

    def __init__(self, folder: Path, text: str = "", **more: Any) -> None:
        self._folder, self._text, self._more = folder, text, more
        self._begun, self._end = threading.Event(), None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.server: Server

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with running(self._folder, self._text, **self._more) as self.server:
            self._begun.set()
            await self._end.wait()

    def call(self, work: Any) -> Any:
        """Run a coroutine function on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(PATIENCE * 20)

    def __enter__(self) -> Threaded:
        self._thread.start()
        assert self._begun.wait(PATIENCE * 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE * 20)
