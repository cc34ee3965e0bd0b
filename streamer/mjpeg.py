"""Viewers of the multipart stream: `/stream`, `/cam/<name>/stream` and the paths of ustreamer and mjpg-streamer.

A viewer writes straight into its transport: the same bytes object for everybody, no task wake-up per frame. While the
kernel has no room the newest picture waits in a place for one; a slow viewer skips pictures and never delays another.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import web

from streamer.connection import Connection
from streamer.context import CONTEXT, Context, camera_of
from streamer.fanout import Fanout, TooMany
from streamer.ledger import Tally
from streamer.picture import ADVANCE, CONTENT_TYPE, OPENING, Picture, advance_part
from streamer.safety import secure_headers
from streamer.variant import BadWish, Variant, wish

NO_STORE = {
    "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "Expires": "Mon, 03 Jan 2000 12:34:56 GMT",
    "X-Accel-Buffering": "no",  # nginx would collect a few parts before passing them on
}


class MjpegViewer:
    """One open stream."""

    def __init__(self, transport: asyncio.Transport, *, advance: bool) -> None:
        self._transport = transport
        self._advance = advance
        self._waiting: Picture | None = None
        self._blocked = True  # until `begin`
        self.tally = Tally()

    def begin(self, head: bytes) -> None:
        """Send the answer's header, then whatever picture has come meanwhile."""
        self._transport.write(head + (ADVANCE if self._advance else OPENING))
        self.drained()

    def offer(self, picture: Picture) -> None:
        """Write it if there is room, else let it be the one that waits."""
        if self._blocked:
            self.tally.skipped += self._waiting is not None
            self._waiting = picture
            return
        self._write(picture)

    def drained(self) -> None:
        """Everything written has gone to the kernel: the newest picture is next."""
        self._blocked = False
        if self._waiting is not None:
            picture, self._waiting = self._waiting, None
            self._write(picture)

    def _write(self, picture: Picture) -> None:
        if self._transport.is_closing():
            return
        part = advance_part(picture) if self._advance else picture.part
        self._transport.write(part)
        self.tally.sent += 1
        self.tally.bytes += len(part)
        self._blocked = self._transport.get_write_buffer_size() > 0


async def stream(request: web.Request) -> web.StreamResponse:
    """Serve one viewer until it leaves."""
    context = request.app[CONTEXT]
    fanout = camera_of(context, request).fanout
    variant = wanted_variant(context, request)
    advance = request.query.get("advance_headers", "0") == "1"
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": CONTENT_TYPE, **NO_STORE})
    return await _serve(request, context, fanout, variant, advance=advance)


def wanted_variant(context: Context, request: web.Request) -> Variant:
    """Read the viewer's wish. Raises: HTTPBadRequest."""
    try:
        return wish(request.query, context.mjpeg)
    except BadWish as error:
        raise web.HTTPBadRequest(text=str(error)) from None


async def _serve(
    request: web.Request, context: Context, fanout: Fanout, variant: Variant, *, advance: bool
) -> web.StreamResponse:
    connection = cast(Connection, request.protocol)
    transport = cast(asyncio.Transport, request.transport)
    if transport is None:
        raise ConnectionResetError("the viewer left before its stream began")
    # One unsent byte means the kernel is full; the next picture then waits here, not in asyncio's buffer.
    transport.set_write_buffer_limits(high=1, low=0)
    viewer = MjpegViewer(transport, advance=advance)
    try:
        fanout.join(variant, viewer)
    except TooMany as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    gone = asyncio.Event()
    connection.on_writable, connection.on_lost = viewer.drained, gone.set
    try:
        with context.ledger.watching("mjpeg", fanout.camera, connection.peer, str(variant), viewer.tally):
            viewer.begin(_head(context, request))
            await gone.wait()
    finally:
        connection.on_writable = connection.on_lost = None
        fanout.leave(variant, viewer)
        transport.close()
    return web.Response()  # never sent: the connection is gone


def _head(context: Context, request: web.Request) -> bytes:
    """Written by us, because aiohttp would send chunks, which simple readers of multipart streams do not know."""
    named: dict[str, str] = {"Content-Type": CONTENT_TYPE, "Connection": "close", **NO_STORE}
    named.update(secure_headers(context.house))
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.{request.version.minor} 200 OK\r\n{lines}\r\n".encode()
