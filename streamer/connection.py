"""One TCP connection, and the limits no HTTP library sets for us (measured in shared/faults.md 0.11 and 0.12).

- At most so many connections at once, and so many per peer; when full, the longest idle one makes room, so that a flood
  of idle connections cannot lock a person out.
- A peer that takes no byte for `write_s` is reset: SO_LINGER 0 before the abort, else the kernel keeps its send buffer.
- The header of a request, and an idle connection, end after `header_s` (aiohttp's keep-alive timer does both).
- Errors are JSON with a reason, never a traceback.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable
from typing import cast

import msgspec
from aiohttp import web

from streamer.places import Connections
from streamer.problem import Problem, error_response

log = logging.getLogger(__name__)

_RESET = struct.pack("ii", 1, 0)
TCP_USER_TIMEOUT_MS = 15_000
"""A half-open peer is gone after this (shared/faults.md 2.D row 39)."""

PART_S = 60.0
"""A peer that takes a byte now and then still has to finish one write in this time."""


class Connection(web.RequestHandler):
    """aiohttp's connection with our limits around it."""

    __slots__ = ("_connections", "_loop_", "_progress", "_stall", "on_lost", "on_writable", "peer", "requests")

    def __init__(self, connections: Connections, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=connections.limits.header_s,
            lingering_time=2.0,
            access_log=None,  # type: ignore[arg-type]  # None switches it off; requests are counted in /metrics
            tcp_keepalive=True,
        )
        self._connections = connections
        self._loop_ = loop
        self._stall: asyncio.TimerHandle | None = None
        self._progress = (0.0, 0)
        self.peer = ""
        self.requests = 0
        """Requests being answered just now; none: the connection is idle."""
        self.on_writable: Callable[[], None] | None = None
        """Called when everything written has gone to the kernel."""
        self.on_lost: Callable[[], None] | None = None
        """Called once when the connection is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket's limits, then take the connection in or turn it away."""
        transport = cast(asyncio.Transport, transport)
        self.peer = str((transport.get_extra_info("peername") or ("?",))[0])
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._connections.limits.send_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        super().connection_made(transport)
        if not self._connections.admit(self):
            transport.write(_full())
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._connections.forget(self)
        if self._stall is not None:
            self._stall.cancel()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        """The kernel takes no more: start the clock."""
        super().pause_writing()
        self._progress = (self._loop_.time(), self._unsent())
        self._stall = self._loop_.call_later(self._connections.limits.write_s, self._check_progress)

    def resume_writing(self) -> None:
        """The peer takes its bytes again."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        super().resume_writing()
        if self.on_writable is not None:
            self.on_writable()

    def reset(self) -> None:
        """End the connection at once and free the kernel's buffers."""
        transport = self.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the HTTP parser or a handler choked on: JSON, no traceback."""
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

    # ---- inside

    def _unsent(self) -> int:
        """Bytes the peer has not acknowledged: in our buffer and in the kernel's (SIOCOUTQ, tcp(7))."""
        transport = self.transport
        if transport is None:
            return 0
        waiting = struct.unpack("i", fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, b"\0" * 4))[0]
        return int(waiting) + transport.get_write_buffer_size()

    def _check_progress(self) -> None:
        since, before = self._progress
        left = self._unsent()
        if left >= before or self._loop_.time() - since > PART_S:
            self._connections.counts.reset += 1
            self.reset()
            return
        self._progress = (since, left)
        self._stall = self._loop_.call_later(self._connections.limits.write_s, self._check_progress)


def _full() -> bytes:
    body = msgspec.json.encode(Problem(503, "too many connections; try again in a few seconds"))
    head = (
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"
    )
    return b"HTTP/1.1 503 Service Unavailable\r\n" + head.encode() + body
