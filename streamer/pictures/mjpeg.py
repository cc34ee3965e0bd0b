"""Viewers of the multipart stream: `/stream`, `/cam/<name>/stream` and the paths of ustreamer and mjpg-streamer.

A viewer writes straight into its transport: the same bytes object for everybody, no task wake-up per frame. While the
kernel has no room the newest picture waits in a place for one; a slow viewer skips pictures and never delays another.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from aiohttp import web

from streamer.http.connection import HttpConnection
from streamer.http.context import CONTEXT, Context, camera_of
from streamer.http.raw_stream import NO_STORE, RawStream, start_raw_stream
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import Fanout, TooManyViewers
from streamer.pictures.jpeg_picture import ADVANCE, CONTENT_TYPE, OPENING, JpegPicture, advance_part
from streamer.pictures.variant import InvalidVariant, Variant, wish


class MjpegViewer:
    """One open stream."""

    __slots__ = ("_advance", "_blocked", "_outlet", "_waiting", "counts")

    def __init__(self, *, advance: bool) -> None:
        self.counts = Sent()
        self._advance = advance
        self._outlet: RawStream | None = None
        self._waiting: JpegPicture | None = None
        self._blocked = True  # until `begin`

    def begin(self, outlet: RawStream) -> None:
        """Send the first boundary, then whatever picture has come meanwhile."""
        self._outlet = outlet
        outlet.write(ADVANCE if self._advance else OPENING)
        self.writable()

    def offer(self, picture: JpegPicture) -> None:
        """Write it if there is room, else let it be the one that waits."""
        if self._blocked:
            self.counts.skipped += self._waiting is not None
            self._waiting = picture
            return
        self._write(picture)

    def writable(self) -> None:
        """Everything written has gone to the kernel: the newest picture is next."""
        self._blocked = False
        if self._waiting is not None:
            picture, self._waiting = self._waiting, None
            self._write(picture)

    def _write(self, picture: JpegPicture) -> None:
        if self._outlet is None:
            return
        part = advance_part(picture) if self._advance else picture.part
        self._blocked = not self._outlet.write(part)
        self.counts.sent += 1
        self.counts.bytes += len(part)


async def stream(request: web.Request) -> web.StreamResponse:
    """Let one viewer in; from here on the fan-out serves it until it leaves."""
    context = request.app[CONTEXT]
    fanout = camera_of(context, request).fanout
    variant = wanted_variant(context, request)
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": CONTENT_TYPE, **NO_STORE})
    viewer = MjpegViewer(advance=request.query.get("advance_headers", "0") == "1")
    try:
        fanout.join(variant, viewer)
    except TooManyViewers as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    peer = cast(HttpConnection, request.protocol).peer
    number = context.viewers.add("mjpeg", fanout.camera, peer, str(variant), viewer.counts)
    left = partial(_left, context, fanout, variant, viewer, number)
    viewer.begin(start_raw_stream(request, CONTENT_TYPE, viewer.writable, left))
    return web.Response()  # never sent: the connection is not aiohttp's any more


def _left(context: Context, fanout: Fanout, variant: Variant, viewer: MjpegViewer, number: int) -> None:
    fanout.leave(variant, viewer)
    context.viewers.remove(number)


def wanted_variant(context: Context, request: web.Request) -> Variant:
    """Read the viewer's wish. Raises: HTTPBadRequest."""
    try:
        return wish(request.query, context.mjpeg)
    except InvalidVariant as error:
        raise web.HTTPBadRequest(text=str(error)) from None
