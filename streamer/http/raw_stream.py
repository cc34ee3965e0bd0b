"""A response written straight into the transport: for endless bodies, where every byte object is shared by all viewers.

aiohttp would send such a body in chunks, which simple players do not know, wake a task per viewer and picture, and keep
the parser, request and tasks of each viewer. So an outlet takes the place of aiohttp on the connection; for aiohttp the
peer has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from aiohttp import web

from streamer.http.connection import ConnectionTable, HttpConnection, WriteDeadline, reset
from streamer.http.middleware import IDENTITY, security_headers_of

NO_STORE = {
    "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "Expires": "Mon, 03 Jan 2000 12:34:56 GMT",
    "X-Accel-Buffering": "no",  # nginx would collect a few parts before passing them on
}


class RawStream(asyncio.Protocol):
    """The way to one peer; what the peer still says is not listened to."""

    __slots__ = ("_connections", "_on_lost", "_on_writable", "_stall", "peer", "transport")

    requests = 1
    """Never idle: nobody is put out of a stream to make room."""

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
        self._stall: WriteDeadline | None = None

    def write(self, data: bytes) -> bool:
        """Write unless the peer is leaving. Returns: whether the kernel took all of it."""
        if self.transport.is_closing():
            return True
        self.transport.write(data)
        return self.transport.get_write_buffer_size() == 0

    def pause_writing(self) -> None:
        """The kernel takes no more: start the clock."""
        self._stall = self._connections.stalled(self.transport)

    def resume_writing(self) -> None:
        """Everything written has gone to the kernel."""
        if self._stall is not None:
            self._stall.end()
            self._stall = None
        self._on_writable()

    def connection_lost(self, _exc: BaseException | None) -> None:
        """Give the place back."""
        if self._stall is not None:
            self._stall.end()
        self._connections.forget(self)
        self._on_lost()

    def reset(self) -> None:
        """End the connection at once."""
        reset(self.transport)

    def force_close(self) -> None:
        """End it once what was written is out."""
        self.transport.close()


def start_raw_stream(
    request: web.Request, kind: str, on_writable: Callable[[], None], on_lost: Callable[[], None]
) -> RawStream:
    """Take the connection out of aiohttp's hands and send the answer's header, with `kind` as its content type.

    `on_writable` is called when everything written has gone to the kernel, `on_lost` once when the peer is gone or was
    closed. What the handler returns afterwards is never sent. Raises: ConnectionResetError, after `on_lost`.
    """
    connection, transport = cast(HttpConnection, request.protocol), request.transport
    if transport is None:
        on_lost()
        raise ConnectionResetError("the viewer left before its stream began")
    outlet = RawStream(transport, connection.connections, connection.peer, on_writable, on_lost)
    # One unsent byte means that the kernel is full; what is newest then waits with us, not in asyncio's buffer.
    transport.set_write_buffer_limits(high=1, low=0)
    transport.set_protocol(outlet)
    connection.hand_over(outlet)
    outlet.write(_header_bytes(request, {"Content-Type": kind, "Connection": "close", **NO_STORE}))
    return outlet


def _header_bytes(request: web.Request, named: Mapping[str, str]) -> bytes:
    every = {**named, **security_headers_of(request.app[IDENTITY])}
    lines = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    return f"HTTP/1.{request.version.minor} 200 OK\r\n{lines}\r\n".encode()
