"""One TCP connection, and the limits no HTTP library sets for us (measured in shared/faults.md 0.11 and 0.12).

- At most so many connections at once, and so many per peer; when full, the longest idle one makes room, so that a flood
  of idle connections cannot lock a person out.
- A peer that takes no byte for `write_s` is reset (stall.py).
- The header of a request, and an idle connection, end after `header_s` (aiohttp's keep-alive timer does both).
- Errors are JSON with a reason, never a traceback.

How many connections there may be, in all and from one peer; when full, the longest idle one makes room.

The write deadline no HTTP library sets for us: a peer that takes no byte for `write_s` is reset.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import msgspec
from aiohttp import web

from streamer.http.errors import Problem, error_response

_RESET = struct.pack("ii", 1, 0)

WRITE_TOTAL_S = 60.0
"""A peer that takes a byte now and then still has to finish one write in this time."""


class WriteDeadline:
    """One time that the kernel has no room for a peer: made when it begins, given up when everything is out."""

    __slots__ = ("_left", "_loop", "_on_reset", "_since", "_timer", "_transport", "_write_s")

    def __init__(self, transport: asyncio.Transport, write_s: float, on_reset: Callable[[], None]) -> None:
        """Start the clock; `on_reset` is called when the peer has been reset."""
        self._loop = asyncio.get_running_loop()
        self._transport, self._write_s, self._on_reset = transport, write_s, on_reset
        self._since, self._left = self._loop.time(), count_unsent_bytes(transport)
        self._timer = self._loop.call_later(write_s, self._check)

    def end(self) -> None:
        """The peer has taken everything, or is gone."""
        self._timer.cancel()

    def _check(self) -> None:
        left = count_unsent_bytes(self._transport)
        if left >= self._left or self._loop.time() - self._since > WRITE_TOTAL_S:
            reset(self._transport)
            self._on_reset()
            return
        self._left = left
        self._timer = self._loop.call_later(self._write_s, self._check)


def reset(transport: asyncio.Transport) -> None:
    """End a connection at once and free the kernel's buffers (SO_LINGER 0 before the abort, shared/faults.md 0.11)."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def count_unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes the peer has not acknowledged: in our buffer and in the kernel's (SIOCOUTQ, tcp(7))."""
    waiting = struct.unpack("i", fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, b"\0" * 4))[0]
    return int(waiting) + transport.get_write_buffer_size()


class OpenConnection(Protocol):
    """An open connection, as the table sees it."""

    @property
    def peer(self) -> str:
        """Address of the other end."""

    @property
    def requests(self) -> int:
        """Requests being answered just now; none: the connection is idle."""

    def reset(self) -> None:
        """End it at once."""

    def force_close(self) -> None:
        """End it once what was written is out."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may cost."""

    connections: int
    per_peer: int
    header_s: float
    body_s: float
    write_s: float
    send_buffer_bytes: int


@dataclass(slots=True)
class ConnectionCounts:
    """What happened since start; shown in /metrics."""

    accepted: int = 0
    refused: int = 0
    """Turned away because every place was taken."""
    evicted: int = 0
    """Idle ones closed to make room."""
    reset: int = 0
    """Peers that did not take their bytes in time."""


class ConnectionTable:
    """All open connections."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.counts = ConnectionCounts()
        self.open: dict[OpenConnection, None] = {}  # in the order they came
        self._per_peer: dict[str, int] = {}

    def admit(self, connection: OpenConnection) -> bool:
        """Take a new connection in, if need be in place of the longest idle one."""
        peer = connection.peer
        crowded = not _is_local(peer) and self._per_peer.get(peer, 0) >= self.limits.per_peer
        if crowded or (len(self.open) >= self.limits.connections and not self._make_room()):
            self.counts.refused += 1
            return False
        self.open[connection] = None
        self._per_peer[peer] = self._per_peer.get(peer, 0) + 1
        self.counts.accepted += 1
        return True

    def forget(self, connection: OpenConnection) -> None:
        """A connection is gone."""
        if connection in self.open:
            del self.open[connection]
            left = self._per_peer[connection.peer] - 1
            self._per_peer[connection.peer] = left
            if not left:
                del self._per_peer[connection.peer]

    def replace(self, connection: OpenConnection, successor: OpenConnection) -> None:
        """Somebody else goes on with a connection, in the same place."""
        del self.open[connection]
        self.open[successor] = None

    def stalled(self, transport: asyncio.Transport) -> WriteDeadline:
        """A peer takes no more: begin to watch it."""
        return WriteDeadline(transport, self.limits.write_s, self._was_reset)

    def _was_reset(self) -> None:
        self.counts.reset += 1

    def _make_room(self) -> bool:
        idle = next((one for one in self.open if not one.requests), None)
        if idle is None:
            return False
        self.forget(idle)
        self.counts.evicted += 1
        idle.reset()
        return True


def _is_local(peer: str) -> bool:
    return peer.startswith("127.") or peer in {"::1", "?"}


log = logging.getLogger(__name__)

TCP_USER_TIMEOUT_MS = 15_000
"""A half-open peer is gone after this (shared/faults.md 2.D row 39)."""


class HttpConnection(web.RequestHandler):
    """aiohttp's connection with our limits around it."""

    __slots__ = ("_stall", "connections", "peer", "requests")

    def __init__(self, connections: ConnectionTable, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
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
        self._stall: WriteDeadline | None = None
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
            transport.write(_refusal_bytes())
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self.connections.forget(self)
        if self._stall is not None:
            self._stall.end()
        super().connection_lost(exc)

    def hand_over(self, successor: OpenConnection) -> None:
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


def _refusal_bytes() -> bytes:
    body = msgspec.json.encode(Problem(503, "too many connections; try again in a few seconds"))
    head = (
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"
    )
    return b"HTTP/1.1 503 Service Unavailable\r\n" + head.encode() + body
