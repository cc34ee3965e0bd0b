"""Viewers of the multipart stream: `/stream`, `/cam/<name>/stream` and the paths of ustreamer and mjpg-streamer.

A viewer writes straight into its transport: the same bytes object for all viewers, no task wake-up per frame. While the
kernel has no room, the newest picture waits, and only that one; a slow viewer skips pictures and never delays another.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from streamer.http.context import CONTEXT, Context, camera_of, client_of
from streamer.http.endless_response import NO_STORE, RawStream, hold_connection, start_raw_stream
from streamer.monitoring.viewers import Sent
from streamer.pictures.fanout import Fanout, TooManyViewers
from streamer.pictures.jpeg_picture import BOUNDARY_LINE, CONTENT_TYPE, NEXT_HEADER, JpegPicture, advance_part_of
from streamer.pictures.variant import InvalidVariant, Variant, parse_variant


class MjpegViewer:
    """The viewer of one open stream."""

    __slots__ = ("_advance", "_blocked", "_raw_stream", "_waiting", "counts")

    def __init__(self, *, advance: bool) -> None:
        self.counts = Sent()
        self._advance = advance
        self._raw_stream: RawStream | None = None
        self._waiting: JpegPicture | None = None
        self._blocked = True  # until `begin` is called

    def begin(self, raw_stream: RawStream) -> None:
        """Sends the first boundary, then the picture that has come meanwhile."""
        self._raw_stream = raw_stream
        raw_stream.write(NEXT_HEADER if self._advance else BOUNDARY_LINE)
        self.resume()

    def offer(self, picture: JpegPicture) -> None:
        """Writes the picture if there is room; else it replaces the one that waits."""
        if self._blocked:
            self.counts.skipped += self._waiting is not None
            self._waiting = picture
            return
        self._write(picture)

    def resume(self) -> None:
        """Writes the picture that waits; called when the kernel has taken everything."""
        self._blocked = False
        if self._waiting is not None:
            picture, self._waiting = self._waiting, None
            self._write(picture)

    def _write(self, picture: JpegPicture) -> None:
        if self._raw_stream is None:
            return
        part = advance_part_of(picture) if self._advance else picture.part
        self._blocked = not self._raw_stream.write(part)
        self.counts.sent += 1
        self.counts.bytes += len(part)


async def serve_mjpeg(request: web.Request) -> web.StreamResponse:
    """Adds one viewer to the fan-out, which serves it until it leaves."""
    context = request.app[CONTEXT]
    fanout = camera_of(context, request).fanout
    variant = read_variant(context, request)
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": CONTENT_TYPE, **NO_STORE})
    hold_connection(request)
    viewer = MjpegViewer(advance=request.query.get("advance_headers", "0") == "1")
    try:
        fanout.join(variant, viewer)
    except TooManyViewers as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    number = context.viewers.add("mjpeg", fanout.camera, client_of(request).address, str(variant), viewer.counts)
    on_lost = partial(_remove_viewer, context, fanout, variant, viewer, number)
    viewer.begin(start_raw_stream(request, CONTENT_TYPE, viewer.resume, on_lost))
    return web.Response()  # never sent: the connection belongs to the RawStream now


def _remove_viewer(context: Context, fanout: Fanout, variant: Variant, viewer: MjpegViewer, number: int) -> None:
    fanout.leave(variant, viewer)
    context.viewers.remove(number)


def read_variant(context: Context, request: web.Request) -> Variant:
    """Returns the variant that the request asks for. Raises: HTTPBadRequest."""
    try:
        return parse_variant(request.query, context.mjpeg)
    except InvalidVariant as error:
        raise web.HTTPBadRequest(text=str(error)) from None
