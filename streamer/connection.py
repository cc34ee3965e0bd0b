"""One TCP connection, and the limits no HTTP library sets for us (measured in shared/faults.md 0.11 and 0.12).

- At most so many connections at once, and so many per peer; when full, the longest idle one makes room, so that a flood
  of idle connections cannot lock a person out.
- A peer that takes no byte for `write_s` is reset (stall.py).
- The header of a request, and an idle connection, end after `header_s` (aiohttp's keep-alive timer does both).
- Errors are JSON with a reason, never a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import cast

import msgspec
from aiohttp import web

from streamer.places import Connections, Place
from streamer.problem import Problem, error_response
from streamer.stall import Stall, reset

log = logging.getLogger(__name__)

TCP_USER_TIMEOUT_MS = 15_000
"""A half-open peer is gone after this (shared/faults.md 2.D row 39)."""


class Connection(web.RequestHandler):
    """aiohttp's connection with our limits around it."""

    __slots__ = ("_stall", "connections", "peer", "requests")

    def __init__(self, connections: Connections, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=connections.limits.header_s,
            lingering_time=2.0,
            access_log=None,  # type: ignore[arg-type]  # None switches it off; requests are counted in /metrics
            tcp_keepalive=True,
            auto_decompress=False,  # nobody compresses a few hundred bytes, but a bomb may be made of them
        )
        self.connections = connections
        self._stall: Stall | None = None
        self.peer = ""
        self.requests = 0
        """Requests being answered just now; none: the connection is idle."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket's limits, then take the connection in or turn it away."""
        transport = cast(asyncio.Transport, transport)
        self.peer = str((transport.get_extra_info("peername") or ("?",))[0])
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.connections.limits.send_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        super().connection_made(transport)
        if not self.connections.admit(self):
            transport.write(_full())
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self.connections.forget(self)
        if self._stall is not None:
            self._stall.end()
        super().connection_lost(exc)

    def hand_over(self, successor: Place) -> None:
        """Let another protocol have our place, as it has the transport already; for aiohttp the peer has left."""
        self.connections.replace(self, successor)
        self.transport = None
        self.connection_lost(None)

    def pause_writing(self) -> None:
        """The kernel takes no more: start the clock."""
        super().pause_writing()
        if self.transport is not None:
            self._stall = self.connections.stalled(self.transport)

    def resume_writing(self) -> None:
        """The peer takes its bytes again."""
        if self._stall is not None:
            self._stall.end()
            self._stall = None
        super().resume_writing()

    def reset(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            reset(self.transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the HTTP parser or a handler choked on: JSON, no traceback. Raises: ConnectionError."""
        if isinstance(exc, ConnectionError) and (self.transport is None or self.transport.is_closing()):
            raise exc  # the peer left while its answer was made: nobody to tell, nothing for the log
        if status >= 500:
            log.error("request failed path=%s", request.path, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun already")
        reason = (
            "something went wrong here; the log of the streamer says what" if status >= 500 else "not a valid request"
        )
        answer = error_response(status, reason)
        answer.force_close()
        return answer


def _full() -> bytes:
    body = msgspec.json.encode(Problem(503, "too many connections; try again in a few seconds"))
    head = (
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"
    )
    return b"HTTP/1.1 503 Service Unavailable\r\n" + head.encode() + body
