"""The connections of the server, and the limits that no HTTP library sets.

- The number of connections is limited, in all and per peer. When all are taken, the one that is idle longest makes
  room, so that a flood of idle connections cannot lock a person out. One that waits for a body is as good as idle.
- Responses without end (streams, WebSockets) leave some connections to pages and logins, in all and of each peer.
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
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import msgspec
from aiohttp import web
from msgspec import Struct

from shmcam.network.peer_address import is_loopback, peer_key_of
from streamer.auth.peer_uid import find_uid
from streamer.http.errors import Problem, error_response

log = logging.getLogger(__name__)

_LINGER_0 = struct.pack("ii", 1, 0)

WRITE_TOTAL_S = 60.0
"""The time for one write to a peer that takes a byte now and then."""

REFUSED_S = 1.0
"""How long a refused connection waits for the request that it refuses."""

REFUSED_MAX = 64
"""Refused connections that wait at once; beyond it they are closed without waiting."""

_UID_THREAD = ThreadPoolExecutor(1, "find_uid")
"""A thread of its own: those that all share may wait for a disk that hangs, and then nobody new would get in."""

TCP_USER_TIMEOUT_MS = 15_000
"""The time after which the kernel ends a half-open connection."""


async def _look_up_uid(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    return await asyncio.get_running_loop().run_in_executor(_UID_THREAD, find_uid, client, server)


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
    """Ends a connection at once and frees the kernel's buffers: SO_LINGER 0, then abort."""
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
        """The number of requests that we work on; with none the connection is idle, and may make room."""

    def reset(self) -> None:
        """Ends the connection at once."""

    def force_close(self) -> None:
        """Ends the connection when everything written is out."""


class ConnectionLimits(Struct, frozen=True):
    """The limits on connections."""

    connections: int
    per_peer: int
    """Connections of one peer (`peer_key_of`); not for loopback and trusted proxies, which many clients share."""
    endless_shared: int
    """Responses without end of one address that many clients share."""
    header_s: float
    write_s: float
    send_buffer_bytes: int


@dataclass(slots=True)
class ConnectionCounts:
    """The counts since start, shown in /metrics."""

    accepted: int = 0
    refused: int = 0
    """Connections refused because a limit was reached."""
    refused_open: int = 0
    """Of them, those that still wait for their request."""
    evicted: int = 0
    """Connections closed to make room: idle, or in their TLS handshake for too long."""
    reset: int = 0
    """Connections reset because the peer did not take its bytes in time."""


class TooManyConnections(Exception):
    """A limit on responses without end is reached; the message says which."""


class ConnectionTable:
    """The table of open connections."""

    def __init__(self, limits: ConnectionLimits, is_shared: Callable[[str], bool] = is_loopback) -> None:
        """`is_shared` tells for an address whether many clients may come from it."""
        self.limits = limits
        self.counts = ConnectionCounts()
        self.open: dict[OpenConnection, str] = {}
        """Connection → key of its peer, in the order of arrival."""
        self._is_shared = is_shared
        self._per_peer: Counter[str] = Counter()
        self._endless: dict[OpenConnection, str] = {}
        """The connections with a response without end → key of the client."""

    def add(self, connection: OpenConnection) -> bool:
        """Adds a new connection, if necessary in place of the longest idle one. Returns: False if it is refused."""
        key, limits = peer_key_of(connection.peer), self.limits
        peer_full = not self._is_shared(connection.peer) and self._per_peer[key] >= limits.per_peer
        full = len(self.open) >= limits.connections
        if (peer_full and not self._evict_idle(key)) or (full and not peer_full and not self._evict_idle()):
            self.counts.refused += 1
            return False
        self.open[connection] = key
        self._per_peer[key] += 1
        self.counts.accepted += 1
        return True

    def remove(self, connection: OpenConnection) -> None:
        """Removes a connection that is gone; a second call does nothing."""
        if (key := self.open.pop(connection, None)) is not None:
            self._per_peer[key] -= 1
            if not self._per_peer[key]:
                del self._per_peer[key]
            self.release(connection)

    def replace(self, connection: OpenConnection, successor: OpenConnection) -> None:
        """Puts another protocol in the place of a connection."""
        self.open[successor] = self.open.pop(connection)
        if (client := self._endless.pop(connection, None)) is not None:
            self._endless[successor] = client

    def hold(self, connection: OpenConnection, client: str) -> None:
        """Lets a connection have a response without end for this client address. Raises: TooManyConnections."""
        limits, key = self.limits, peer_key_of(client)
        of_client = sum(holder == key for holder in self._endless.values())
        most, name = limits.per_peer - limits.per_peer // 4, "http.max_connections_per_peer"
        if self._is_shared(client):
            most, name = limits.endless_shared, "mjpeg_server.max_streams"
        if of_client >= most:
            raise TooManyConnections(f"too many connections: {of_client} streams from one address ({name})")
        if len(self._endless) >= limits.connections - limits.connections // 16:
            raise TooManyConnections("too many connections: the last are for pages and logins (http.max_connections)")
        self._endless[connection] = key

    def release(self, connection: OpenConnection) -> None:
        """Ends what `hold` began; a second call does nothing."""
        self._endless.pop(connection, None)

    def start_deadline(self, transport: asyncio.Transport) -> WriteDeadline:
        """Starts the write deadline of a peer that takes no more."""
        return WriteDeadline(transport, self.limits.write_s, self._count_reset)

    def count_eviction(self) -> None:
        """Counts a connection that was closed to make room."""
        self.counts.evicted += 1

    def _count_reset(self) -> None:
        self.counts.reset += 1

    def _evict_idle(self, peer_key: str = "") -> bool:
        """Ends the longest idle connection, of one peer or of all. Returns: False if there is none."""
        idle = next((one for one, key in self.open.items() if not one.requests and peer_key in {"", key}), None)
        if idle is None:
            return False
        self.remove(idle)
        self.count_eviction()
        idle.reset()
        return True


class HttpConnection(web.RequestHandler):
    """aiohttp's protocol of one connection, with our limits."""

    __slots__ = ("_deadline", "_is_refused", "_uid", "connections", "peer", "requests")

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
        self._is_refused = False
        self._uid: asyncio.Task[int | None] | None = None
        self.peer = ""
        self.requests = 0
        """The number of requests that we work on; with none the connection is idle."""

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
            self._is_refused = True
            if self.connections.counts.refused_open >= REFUSED_MAX:
                self.force_close()
            else:  # closed before its request has come, the peer would see a reset instead of the refusal
                self.connections.counts.refused_open += 1
                asyncio.get_running_loop().call_later(REFUSED_S, self._end_refused)

    def data_received(self, data: bytes) -> None:
        """Takes bytes of a request; of a refused peer, whose request ends here, none."""
        if self._is_refused:
            self.force_close()
        else:
            super().data_received(data)

    def _end_refused(self) -> None:
        self.connections.counts.refused_open -= 1
        self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Removes the connection from the table."""
        self.connections.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    @contextmanager
    def may_make_room(self) -> Iterator[None]:
        """For the length of the block the connection is as good as idle, as it is the peer who lets us wait."""
        self.requests -= 1
        try:
            yield
        finally:
            self.requests += 1

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends what a handler has returned; until it is out, a file of gigabytes too, the connection is not idle."""
        self.requests += 1
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.requests -= 1

    async def find_uid(self) -> int | None:
        """Returns the user at the other end of a local connection, who stays the same; None if it is not seen."""
        if self._uid is None:
            if self.transport is None:
                return None
            ends = (self.transport.get_extra_info(end)[:2] for end in ("peername", "sockname"))
            self._uid = asyncio.create_task(_look_up_uid(*ends))
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
