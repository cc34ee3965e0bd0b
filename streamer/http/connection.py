"""The connections of the server, and the limits that no HTTP library sets (measured in shared/faults.md 0.11 and 0.12).

- The number of connections is limited, in all and per peer. When all are taken, the one that is idle longest makes
  room, so that a flood of idle connections cannot lock a person out.
- A peer that takes no byte for `write_s` is reset, also in the middle of an endless stream.
- The header of a request must be complete within `header_s`, and an idle connection ends after it (aiohttp's keep-alive
  timer does both).
- An error is answered as JSON with a reason, never with a traceback.
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

from streamer.auth.local_users import find_uid
from streamer.http.errors import Problem, error_response

log = logging.getLogger(__name__)

_LINGER_0 = struct.pack("ii", 1, 0)

WRITE_TOTAL_S = 60.0
"""The time for one write to a peer that takes a byte now and then."""

TCP_USER_TIMEOUT_MS = 15_000
"""The time after which the kernel ends a half-open connection (shared/faults.md 2.D row 39)."""


class WriteDeadline:
    """The time limit on one write: created when the kernel has no room, cancelled when everything is out."""

    __slots__ = ("_loop", "_on_reset", "_started_s", "_timer", "_transport", "_unsent_bytes", "_write_s")

    def __init__(self, transport: asyncio.Transport, write_s: float, on_reset: Callable[[], None]) -> None:
        """Starts the timer; `on_reset` is called when the peer has been reset."""
        self._loop = asyncio.get_running_loop()
        self._transport, self._write_s, self._on_reset = transport, write_s, on_reset
        self._started_s, self._unsent_bytes = self._loop.time(), count_unsent_bytes(transport)
        self._timer = self._loop.call_later(write_s, self._check)

    def cancel(self) -> None:
        """Stops the timer: the peer has taken everything, or is gone."""
        self._timer.cancel()

    def _check(self) -> None:
        unsent_bytes = count_unsent_bytes(self._transport)
        if unsent_bytes >= self._unsent_bytes or self._loop.time() - self._started_s > WRITE_TOTAL_S:
            reset(self._transport)
            self._on_reset()
            return
        self._unsent_bytes = unsent_bytes
        self._timer = self._loop.call_later(self._write_s, self._check)


def reset(transport: asyncio.Transport) -> None:
    """Ends a connection at once and frees the kernel's buffers: SO_LINGER 0, then abort (shared/faults.md 0.11)."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    transport.abort()


def count_unsent_bytes(transport: asyncio.Transport) -> int:
    """Returns the bytes that the peer has not acknowledged: in our buffer and in the kernel's (SIOCOUTQ, tcp(7))."""
    queued = struct.unpack("i", fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, b"\0" * 4))[0]
    return int(queued) + transport.get_write_buffer_size()


class OpenConnection(Protocol):
    """An open connection: an HttpConnection, or the RawStream that has replaced one."""

    @property
    def peer(self) -> str:
        """The address of the other end."""

    @property
    def requests(self) -> int:
        """The number of requests in progress; with none the connection is idle."""

    def reset(self) -> None:
        """Ends the connection at once."""

    def force_close(self) -> None:
        """Ends the connection when everything written is out."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits on connections."""

    connections: int
    per_peer: int
    header_s: float
    write_s: float
    send_buffer_bytes: int


@dataclass(slots=True)
class ConnectionCounts:
    """The counts since start, shown in /metrics."""

    accepted: int = 0
    refused: int = 0
    """Connections refused because a limit was reached."""
    evicted: int = 0
    """Idle connections closed to make room."""
    reset: int = 0
    """Connections reset because the peer did not take its bytes in time."""


class ConnectionTable:
    """The table of open connections."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.counts = ConnectionCounts()
        self.open: dict[OpenConnection, None] = {}  # in the order of arrival
        self._per_peer: dict[str, int] = {}

    def add(self, connection: OpenConnection) -> bool:
        """Adds a new connection, if necessary in place of the longest idle one. Returns: False if it is refused."""
        peer = connection.peer
        peer_full = not _is_local(peer) and self._per_peer.get(peer, 0) >= self.limits.per_peer
        if peer_full or (len(self.open) >= self.limits.connections and not self._evict_idle()):
            self.counts.refused += 1
            return False
        self.open[connection] = None
        self._per_peer[peer] = self._per_peer.get(peer, 0) + 1
        self.counts.accepted += 1
        return True

    def remove(self, connection: OpenConnection) -> None:
        """Removes a connection that is gone; a second call does nothing."""
        if connection in self.open:
            del self.open[connection]
            self._per_peer[connection.peer] -= 1
            if not self._per_peer[connection.peer]:
                del self._per_peer[connection.peer]

    def replace(self, connection: OpenConnection, successor: OpenConnection) -> None:
        """Puts another protocol in the place of a connection."""
        del self.open[connection]
        self.open[successor] = None

    def start_deadline(self, transport: asyncio.Transport) -> WriteDeadline:
        """Starts the write deadline of a peer that takes no more."""
        return WriteDeadline(transport, self.limits.write_s, self._count_reset)

    def _count_reset(self) -> None:
        self.counts.reset += 1

    def _evict_idle(self) -> bool:
        idle = next((connection for connection in self.open if not connection.requests), None)
        if idle is None:
            return False
        self.remove(idle)
        self.counts.evicted += 1
        idle.reset()
        return True


def _is_local(peer: str) -> bool:
    return peer.startswith("127.") or peer in {"::1", "?"}


class HttpConnection(web.RequestHandler):
    """aiohttp's protocol of one connection, with our limits."""

    __slots__ = ("_deadline", "_uid", "connections", "peer", "requests")

    def __init__(self, connections: ConnectionTable, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=connections.limits.header_s,
            lingering_time=2.0,
            access_log=None,  # type: ignore[arg-type]  # None switches it off; requests are counted in /metrics
            tcp_keepalive=True,
            auto_decompress=False,  # an honest body is a few hundred bytes; a compressed one may be a bomb
        )
        self.connections = connections
        self._deadline: WriteDeadline | None = None
        self._uid: asyncio.Task[int | None] | None = None
        self.peer = ""
        self.requests = 0
        """The number of requests in progress; with none the connection is idle."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sets the limits of the socket, then adds the connection to the table or refuses it."""
        transport = cast(asyncio.Transport, transport)
        self.peer = str((transport.get_extra_info("peername") or ("?",))[0])
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.connections.limits.send_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        super().connection_made(transport)
        if not self.connections.add(self):
            transport.write(_build_refusal())
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Removes the connection from the table."""
        self.connections.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    async def find_uid(self) -> int | None:
        """Returns the user at the other end of a local connection, who stays the same; None if it is not seen."""
        if self._uid is None:
            if self.transport is None:
                return None
            ends = (self.transport.get_extra_info(end)[:2] for end in ("peername", "sockname"))
            self._uid = asyncio.create_task(asyncio.to_thread(find_uid, *ends))
        return await self._uid

    def hand_over(self, successor: OpenConnection) -> None:
        """Puts another protocol, which has the transport already, in our place; to aiohttp the peer seems gone."""
        self.connections.replace(self, successor)
        self.transport = None
        self.connection_lost(None)

    def pause_writing(self) -> None:
        """Starts the write deadline: the kernel takes no more."""
        super().pause_writing()
        if self.transport is not None:
            self._deadline = self.connections.start_deadline(self.transport)

    def resume_writing(self) -> None:
        """Cancels the write deadline: the peer takes its bytes again."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().resume_writing()

    def reset(self) -> None:
        """Ends the connection at once."""
        if self.transport is not None:
            reset(self.transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers an error of the parser or of a handler: JSON, no traceback. Raises: ConnectionError."""
        if isinstance(exc, ConnectionError) and (self.transport is None or self.transport.is_closing()):
            raise exc  # the peer left before its answer: nothing to send and nothing to log
        if status >= 500:
            log.error("request failed path=%s", request.path, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun already")
        reason = (
            "something went wrong here; the log of the streamer says what" if status >= 500 else "not a valid request"
        )
        response = error_response(status, reason)
        response.force_close()
        return response


def _build_refusal() -> bytes:
    body = msgspec.json.encode(Problem(503, "too many connections; try again in a few seconds"))
    header = (
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"
    )
    return b"HTTP/1.1 503 Service Unavailable\r\n" + header.encode() + body
