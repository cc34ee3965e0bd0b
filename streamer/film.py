"""Live H.264 to viewers: `/live.mp4` for players, `/ws/live` for the page's Media Source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

import msgspec
from aiohttp import web

from control.messages import Watch
from streamer.connection import Connection
from streamer.context import CONTEXT, Camera, Context, camera_of
from streamer.fanout import TooMany
from streamer.fmp4 import Fragment
from streamer.ledger import Tally
from streamer.live import Opening
from streamer.takeover import NO_STORE, Outlet, taken_over

WAIT_S = 4.0
"""For the first key frame; two GOPs of the recorder's default. Then there is no recorder, and the reason is told."""

BEHIND_MAX = 120
"""Fragments that may wait for a WebSocket viewer: 4 s at 30 fps; beyond it everything up to the next key is dropped."""

HEARTBEAT_S = 20.0

WATCH_S = 12.0
"""The recorder goes on encoding for so long after each word of ours."""

HUB_S = 3.0


class Player:
    """A viewer of `/live.mp4`; what does not fit is dropped up to the next key frame."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        """The encoder was opened anew: a file cannot change its size, so the player must come again."""
        self._outlet: Outlet | None = None
        self._opening: Opening | None = None
        self._early: list[Fragment] = []
        self._blocked = False
        self._lost = True  # until the first key frame
        self._base_us = -1

    def open(self, opening: Opening) -> None:
        """A film begins; a second one ends this player."""
        if self._opening is not None:
            self.ended.set()
        self._opening = opening
        self.opened.set()

    def begin(self, outlet: Outlet) -> None:
        """Send the header, then what has come meanwhile."""
        self._outlet = outlet
        outlet.write(outlet.head + (self._opening.header if self._opening else b""))
        early, self._early = self._early, []
        for piece in early:
            self.play(piece)

    def writable(self) -> None:
        """There is room again."""
        self._blocked = False

    def play(self, piece: Fragment) -> None:
        """Write it, unless something before it is missing."""
        if self._outlet is None:
            self._early.append(piece) if len(self._early) < BEHIND_MAX else self._early.clear()
            return
        self._lost = (self._lost or self._blocked) and not (piece.key and not self._blocked)
        if self._lost:
            self.tally.skipped += 1
            return
        if self._base_us < 0:
            self._base_us = piece.time_us
        data = piece.at(self._base_us)
        self._blocked = not self._outlet.write(data)
        self.tally.sent += 1
        self.tally.bytes += len(data)


async def live_mp4(request: web.Request) -> web.StreamResponse:
    """Serve one player until it leaves."""
    context, camera = request.app[CONTEXT], camera_of(request.app[CONTEXT], request)
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": "video/mp4", **NO_STORE})
    player = Player()
    with joined(context, camera, player):
        await _opened(camera, player.opened)
        peer = cast(Connection, request.protocol).peer
        with (
            context.ledger.watching("h264", camera.name, peer, "mp4", player.tally),
            taken_over(request, "video/mp4", player.writable) as outlet,
        ):
            player.begin(outlet)
            await _first(outlet.gone, player.ended)
    return web.Response()  # never sent: the connection is gone


class Described(msgspec.Struct, frozen=True):
    """The text message before each film on the WebSocket."""

    type: str
    """film."""
    mime: str
    """For MediaSource.addSourceBuffer."""
    width: int
    height: int


class Screen:
    """A viewer on a WebSocket: a bounded queue of messages, emptied by a task."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.opened = asyncio.Event()
        self._queue: deque[str | bytes] = deque()
        self._came = asyncio.Event()
        self._lost = True
        self._base_us = -1

    def open(self, opening: Opening) -> None:
        """A film begins, the first or another."""
        mime = f'video/mp4; codecs="{opening.codec}"'
        said = Described("film", mime, opening.width, opening.height)
        self._queue.clear()
        self._queue.extend((msgspec.json.encode(said).decode(), opening.header))
        self._lost, self._base_us = True, -1
        self.opened.set()
        self._came.set()

    def play(self, piece: Fragment) -> None:
        """Queue it, unless something before it is missing."""
        if len(self._queue) > BEHIND_MAX:
            self._queue.clear()
            self._lost = True
        if self._lost and not piece.key:
            self.tally.skipped += 1
            return
        self._lost = False
        if self._base_us < 0:
            self._base_us = piece.time_us
        self._queue.append(piece.at(self._base_us))
        self._came.set()

    async def run(self, socket: web.WebSocketResponse) -> None:
        """Send what comes, until the socket ends."""
        while not socket.closed:
            await self._came.wait()
            self._came.clear()
            while self._queue and not socket.closed:
                message = self._queue.popleft()
                if isinstance(message, str):
                    await socket.send_str(message)
                    continue
                await socket.send_bytes(message)
                self.tally.sent += 1
                self.tally.bytes += len(message)


async def live_socket(request: web.Request) -> web.StreamResponse:
    """Serve one screen until it leaves."""
    context, camera = request.app[CONTEXT], camera_of(request.app[CONTEXT], request)
    screen = Screen()
    with joined(context, camera, screen):
        await _opened(camera, screen.opened)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=4096, compress=False)
        await socket.prepare(request)
        peer = cast(Connection, request.protocol).peer
        with context.ledger.watching("h264", camera.name, peer, "websocket", screen.tally):
            sending = asyncio.create_task(screen.run(socket))
            try:
                async for _ in socket:  # nothing is expected; reading is what notices that the peer has left
                    continue
            finally:
                sending.cancel()
    return socket


async def encourage(context: Context) -> None:
    """Ask the recorders for packets while somebody plays, until cancelled; they encode for nobody otherwise."""
    while True:
        for name, camera in context.cameras.items():
            if camera.live.viewers:
                await context.hub.ask(Watch(camera=name, seconds=WATCH_S), HUB_S)
        context.played.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S / 3):
                await context.played.wait()


@contextmanager
def joined(context: Context, camera: Camera, viewer: Player | Screen) -> Iterator[None]:
    """A place among the viewers of a camera's H.264 for the length of the block. Raises: HTTPServiceUnavailable."""
    try:
        context.places.take(new_variant=False)
    except TooMany as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    camera.live.join(viewer)
    context.played.set()
    try:
        yield
    finally:
        camera.live.leave(viewer)
        context.places.give_back(last_of_variant=False)


async def _opened(camera: Camera, opened: asyncio.Event) -> None:
    """Wait for the first key frame. Raises: HTTPServiceUnavailable."""
    try:
        async with asyncio.timeout(WAIT_S):
            await opened.wait()
    except TimeoutError:
        reason = f"no H.264 of {camera.name} (is the recorder running?); MJPEG is at /cam/{camera.name}/stream"
        raise web.HTTPServiceUnavailable(text=reason, headers={"Retry-After": "5"}) from None


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
