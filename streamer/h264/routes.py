"""The routes of live H.264: `/live.mp4` for players, `/ws/live` for the page's Media Source."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from shmcam.control.messages import Watch
from streamer.h264.live_video import LiveViewer
from streamer.h264.viewers import HttpVideoViewer, WebSocketVideoViewer
from streamer.http.context import CONTEXT, Context, StreamedCamera, camera_of, client_of
from streamer.http.endless_response import NO_STORE, hold_connection, start_raw_stream
from streamer.pictures.fanout import TooManyViewers

KEY_FRAME_S = 4.0
"""The wait for the first key frame: two GOPs of the recorder's default. After it there is no recorder, and the answer
says so."""

KEY_FRAME_FRAMES = 3
"""The wait is never shorter than so many frames: at night one takes seconds, and the encoder begins with the next."""

KEY_FRAME_S_MAX = 60.0

HEARTBEAT_S = 20.0

WATCH_S = 12.0
"""The recorder encodes for so long after each Watch."""

HUB_S = 3.0


async def serve_live_mp4(request: web.Request) -> web.StreamResponse:
    """Serves one player until it leaves."""
    context, camera = request.app[CONTEXT], camera_of(request.app[CONTEXT], request)
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": "video/mp4", **NO_STORE})
    hold_connection(request)
    viewer = HttpVideoViewer()
    with join_live_video(context, camera, viewer):
        await _wait_for_key_frame(camera, viewer.opened)
        lost = asyncio.Event()
        with context.viewers.track("h264", camera.name, client_of(request).address, "mp4", viewer.counts):
            raw_stream = start_raw_stream(request, "video/mp4", viewer.resume, lost.set)
            viewer.begin(raw_stream, camera.live_video)
            try:
                await wait_for_first(lost, viewer.ended)
            finally:
                raw_stream.force_close()
    return web.Response()  # never sent: the connection is not aiohttp's any more


async def serve_live_websocket(request: web.Request) -> web.StreamResponse:
    """Serves one WebSocket until it ends."""
    context, camera = request.app[CONTEXT], camera_of(request.app[CONTEXT], request)
    hold_connection(request)
    viewer = WebSocketVideoViewer()
    with join_live_video(context, camera, viewer):
        await _wait_for_key_frame(camera, viewer.opened)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=4096, compress=False)
        await socket.prepare(request)
        with context.viewers.track("h264", camera.name, client_of(request).address, "websocket", viewer.counts):
            task = asyncio.create_task(viewer.run(socket))
            try:
                async for _ in socket:  # no message is expected; reading is what notices that the peer has left
                    continue
            finally:
                task.cancel()
    return socket


async def request_live_packets(context: Context) -> None:
    """Sends a Watch for each camera that has viewers, until cancelled; without it recorders write no live packets."""
    while True:
        context.video_joined.clear()  # first: what is requested while the hub answers is the next round's
        for name, camera in context.cameras.items():
            if camera.live_video.viewers:
                key, camera.live_video.is_key_wanted = camera.live_video.is_key_wanted, False
                await context.hub.ask(Watch(camera=name, seconds=WATCH_S, key=key), HUB_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S / 3):
                await context.video_joined.wait()


@contextmanager
def join_live_video(context: Context, camera: StreamedCamera, viewer: LiveViewer) -> Iterator[None]:
    """Adds a viewer to a camera's H.264 for the length of the block. Raises: HTTPServiceUnavailable."""
    try:
        context.viewer_slots.acquire(new_variant=False)
    except TooManyViewers as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    camera.live_video.join(viewer)
    context.video_joined.set()
    try:
        yield
    finally:
        camera.live_video.leave(viewer)
        context.viewer_slots.release(last_of_variant=False)


def key_frame_timeout_s(camera: StreamedCamera) -> float:
    """Returns the longest wait for the first key frame, seconds."""
    meta = camera.feed.status.meta
    frames_s = KEY_FRAME_FRAMES * meta.frame_duration_us / 1e6 if meta else 0.0
    return max(KEY_FRAME_S, min(KEY_FRAME_S_MAX, frames_s))


async def _wait_for_key_frame(camera: StreamedCamera, opened: asyncio.Event) -> None:
    """Waits for the first key frame. Raises: HTTPServiceUnavailable."""
    try:
        async with asyncio.timeout(key_frame_timeout_s(camera)):
            await opened.wait()
    except TimeoutError:
        reason = f"no H.264 of {camera.name} (is the recorder running?); MJPEG is at /cam/{camera.name}/stream"
        raise web.HTTPServiceUnavailable(text=reason, headers={"Retry-After": "5"}) from None


async def wait_for_first(*events: asyncio.Event) -> None:
    """Waits until one of the events is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
