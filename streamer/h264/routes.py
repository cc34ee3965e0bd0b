"""Live H.264 to viewers: `/live.mp4` for players, `/ws/live` for the page's Media Source."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

from aiohttp import web

from shmcam.control.messages import Watch
from streamer.h264.viewers import HttpVideoViewer, WebSocketVideoViewer
from streamer.http.connection import HttpConnection
from streamer.http.context import CONTEXT, Context, StreamedCamera, camera_of
from streamer.http.raw_stream import NO_STORE, start_raw_stream
from streamer.pictures.fanout import TooManyViewers

WAIT_S = 4.0
"""For the first key frame; two GOPs of the recorder's default. Then there is no recorder, and the reason is told."""

WAIT_FRAMES = 3
"""But no less than so many frames: at night one takes seconds, and the encoder begins with the next."""

LONGEST_WAIT_S = 60.0

HEARTBEAT_S = 20.0

WATCH_S = 12.0
"""The recorder goes on encoding for so long after each word of ours."""

HUB_S = 3.0


async def live_mp4(request: web.Request) -> web.StreamResponse:
    """Serve one player until it leaves."""
    context, camera = request.app[CONTEXT], camera_of(request.app[CONTEXT], request)
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": "video/mp4", **NO_STORE})
    player = HttpVideoViewer()
    with joined(context, camera, player):
        await _opened(camera, player.opened)
        peer = cast(HttpConnection, request.protocol).peer
        gone = asyncio.Event()
        with context.viewers.track("h264", camera.name, peer, "mp4", player.counts):
            outlet = start_raw_stream(request, "video/mp4", player.writable, gone.set)
            player.begin(outlet)
            try:
                await _first(gone, player.ended)
            finally:
                outlet.force_close()
    return web.Response()  # never sent: the connection is not aiohttp's any more


async def live_socket(request: web.Request) -> web.StreamResponse:
    """Serve one screen until it leaves."""
    context, camera = request.app[CONTEXT], camera_of(request.app[CONTEXT], request)
    screen = WebSocketVideoViewer()
    with joined(context, camera, screen):
        await _opened(camera, screen.opened)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=4096, compress=False)
        await socket.prepare(request)
        peer = cast(HttpConnection, request.protocol).peer
        with context.viewers.track("h264", camera.name, peer, "websocket", screen.counts):
            sending = asyncio.create_task(screen.run(socket))
            try:
                async for _ in socket:  # nothing is expected; reading is what notices that the peer has left
                    continue
            finally:
                sending.cancel()
    return socket


async def request_live_packets(context: Context) -> None:
    """Ask the recorders for packets while somebody plays, until cancelled; they encode for nobody otherwise."""
    while True:
        for name, camera in context.cameras.items():
            if camera.live_video.viewers:
                await context.hub.ask(Watch(camera=name, seconds=WATCH_S), HUB_S)
        context.video_joined.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S / 3):
                await context.video_joined.wait()


@contextmanager
def joined(context: Context, camera: StreamedCamera, viewer: HttpVideoViewer | WebSocketVideoViewer) -> Iterator[None]:
    """A place among the viewers of a camera's H.264 for the length of the block. Raises: HTTPServiceUnavailable."""
    try:
        context.places.take(new_variant=False)
    except TooManyViewers as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    camera.live_video.join(viewer)
    context.video_joined.set()
    try:
        yield
    finally:
        camera.live_video.leave(viewer)
        context.places.give_back(last_of_variant=False)


def patience_s(camera: StreamedCamera) -> float:
    """How long the first key frame may take, seconds."""
    meta = camera.feed.sight.meta
    frames_s = WAIT_FRAMES * meta.frame_duration_us / 1e6 if meta else 0.0
    return max(WAIT_S, min(LONGEST_WAIT_S, frames_s))


async def _opened(camera: StreamedCamera, opened: asyncio.Event) -> None:
    """Wait for the first key frame. Raises: HTTPServiceUnavailable."""
    try:
        async with asyncio.timeout(patience_s(camera)):
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
