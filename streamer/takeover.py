"""A response written straight into the transport: for endless bodies, where every byte object is shared by all viewers.

aiohttp would send such a body in chunks, which simple players do not know, and wake a task per viewer and picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from streamer.connection import Connection
from streamer.safety import HOUSE, secure_headers

NO_STORE = {
    "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "Expires": "Mon, 03 Jan 2000 12:34:56 GMT",
    "X-Accel-Buffering": "no",  # nginx would collect a few parts before passing them on
}


@dataclass(frozen=True, slots=True)
class Outlet:
    """The way to one peer."""

    transport: asyncio.Transport
    gone: asyncio.Event
    """Set when the peer has left."""
    head: bytes
    """Status line and headers, to be written first."""

    def write(self, data: bytes) -> bool:
        """Write unless the peer is leaving. Returns: whether the kernel took all of it."""
        if self.transport.is_closing():
            return True
        self.transport.write(data)
        return self.transport.get_write_buffer_size() == 0


@contextmanager
def taken_over(request: web.Request, kind: str, on_writable: Callable[[], None]) -> Iterator[Outlet]:
    """Take the connection out of aiohttp's hands until the end of the block, which closes it.

    `on_writable` is called when everything written has gone to the kernel. Raises: ConnectionResetError.
    """
    connection = cast(Connection, request.protocol)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the viewer left before its stream began")
    # One unsent byte means that the kernel is full; what is newest then waits with us, not in asyncio's buffer.
    transport.set_write_buffer_limits(high=1, low=0)
    gone = asyncio.Event()
    connection.on_writable, connection.on_lost = on_writable, gone.set
    try:
        yield Outlet(transport, gone, _head(request, {"Content-Type": kind, "Connection": "close", **NO_STORE}))
    finally:
        connection.on_writable = connection.on_lost = None
        transport.close()


def _head(request: web.Request, named: Mapping[str, str]) -> bytes:
    every = {**named, **secure_headers(request.app[HOUSE])}
    lines = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    return f"HTTP/1.{request.version.minor} 200 OK\r\n{lines}\r\n".encode()
