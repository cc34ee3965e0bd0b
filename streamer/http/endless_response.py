"""A response written straight into the transport, for endless bodies whose bytes objects are shared by all viewers.

aiohttp would send such a body in chunks, which simple players do not know, wake a task per viewer and picture, and keep
the parser, request and tasks of each viewer. So a RawStream replaces aiohttp's protocol on the connection; to aiohttp
the peer seems gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from aiohttp import web

from streamer.http.connection import ConnectionTable, HttpConnection, TooManyConnections, WriteDeadline, reset
from streamer.http.context import CONTEXT, client_of
from streamer.http.middleware import security_headers_of

NO_STORE = {
    "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "Expires": "Mon, 03 Jan 2000 12:34:56 GMT",
    "X-Accel-Buffering": "no",  # nginx would buffer a few parts before it passes them on
}


class RawStream(asyncio.Protocol):
    """The protocol of one stream to a peer; whatever the peer still sends is ignored."""

    __slots__ = ("_connections", "_deadline", "_on_lost", "_on_writable", "peer", "transport")

    requests = 1
    """Never idle, so that no stream is closed to make room."""

    def __init__(
        self,
        transport: asyncio.Transport,
        connections: ConnectionTable,
        peer: str,
        on_writable: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.transport, self.peer = transport, peer
        self._connections, self._on_writable, self._on_lost = connections, on_writable, on_lost
        self._deadline: WriteDeadline | None = None

    def write(self, data: bytes) -> bool:
        """Writes, unless the connection is closing. Returns: whether the kernel took everything."""
        if self.transport.is_closing():
            return True
        self.transport.write(data)
        return self.transport.get_write_buffer_size() == 0

    def pause_writing(self) -> None:
        """Starts the write deadline: the kernel takes no more."""
        self._deadline = self._connections.start_deadline(self.transport)

    def resume_writing(self) -> None:
        """Cancels the write deadline: everything written has gone to the kernel."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._on_writable()

    def connection_lost(self, _exc: BaseException | None) -> None:
        """Removes the stream from the table of connections."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._connections.remove(self)
        self._on_lost()

    def reset(self) -> None:
        """Ends the connection at once."""
        reset(self.transport)

    def force_close(self) -> None:
        """Ends the connection when everything written is out."""
        self.transport.close()


def hold_connection(request: web.Request) -> None:
    """Takes a place for a response without end, until its connection or its handler ends.

    Raises: HTTPServiceUnavailable.
    """
    connection = cast(HttpConnection, request.protocol)
    try:
        connection.connections.hold(connection, client_of(request).address)
    except TooManyConnections as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None


def start_raw_stream(
    request: web.Request, content_type: str, on_writable: Callable[[], None], on_lost: Callable[[], None]
) -> RawStream:
    """Replaces aiohttp's protocol on the connection and sends the header of the response.

    `on_writable` is called when everything written has gone to the kernel, `on_lost` once, when the peer is gone or the
    stream was closed. aiohttp never sends the response that the handler returns. Raises: ConnectionResetError, after
    `on_lost`.
    """
    connection, transport = cast(HttpConnection, request.protocol), request.transport
    if transport is None:
        on_lost()
        raise ConnectionResetError("the viewer left before its stream began")
    stream = RawStream(transport, connection.connections, connection.peer, on_writable, on_lost)
    # One unsent byte means that the kernel is full; then the newest picture waits with us, not in asyncio's buffer.
    transport.set_write_buffer_limits(high=1, low=0)
    transport.set_protocol(stream)
    connection.hand_over(stream)
    stream.write(_build_header(request, {"Content-Type": content_type, "Connection": "close", **NO_STORE}))
    return stream


def _build_header(request: web.Request, fields: Mapping[str, str]) -> bytes:
    fields = {**fields, **security_headers_of(request.app[CONTEXT].identity, request.headers.get("Origin"))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.{request.version.minor} 200 OK\r\n{lines}\r\n".encode()
