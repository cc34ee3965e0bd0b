"""One connection of the hub: bytes in to messages, messages out to bytes, and the limits on both.

What the kernel tells of the other end of a connection.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct
import time
from collections import deque
from typing import Any, Protocol, cast

from shmcam.control.codec import Decoded, Decoder, Received, Refused, encode, encode_or_error
from shmcam.control.messages import PROCESS_BYTES_MAX, Event, EventsLost, Message, PreviewFrame, Reply, error
from shmcam.hub.access import TokenGate


def is_gone(transport: asyncio.Transport) -> bool:
    """Tell whether the other end is closed altogether: a half-closed one (socat) shows no POLLHUP."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))


def credentials(link: socket.socket) -> str:
    """Return "pid/uid/gid" of the other end, as the kernel knows them."""
    pid, uid, gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"{pid}/{uid}/{gid}"


log = logging.getLogger(__name__)

READ_AT_ONCE = 4096
"""Bytes read before other connections get their turn: one that floods delays nobody by more than these take."""

EVENTS_UNSENT_MAX = 256 * 1024
"""Bytes that may wait before events for this connection are dropped and counted."""

UNSENT_MAX = 2 * 1024 * 1024
"""Bytes that may wait at all; a peer further behind never reads and is dropped."""

STUCK_S = 10.0
"""A peer that takes nothing for this long while bytes wait is dropped."""

WAITING_MAX = 400
"""Commands waiting for those before them; with more, nothing is read until there is room."""

TCP_IDLE_S = 60.0
REFUSALS_MAX = 100
"""So many unreadable messages in a row end the connection: it is not one of ours and not a person."""


class ConnectionOwner(Protocol):
    """What a connection asks of the server that made it."""

    def opened(self, connection: PeerConnection) -> bool:
        """Take a new connection in. Returns False if there are too many."""

    def closed(self, connection: PeerConnection) -> None:
        """Forget a connection."""

    def received(self, connection: PeerConnection, decoded: Decoded) -> None:
        """Act on one message."""

    def is_busy(self, number: int) -> bool:
        """Tell whether a connection waits for an answer."""

    def listens(self, number: int) -> bool:
        """Tell whether a connection wants events, so that it stays although it says nothing more."""


class PeerConnection(asyncio.BufferedProtocol):
    """See the module. Text and JSON commands without an id are answered one after the other, in order."""

    def __init__(
        self, server: ConnectionOwner, number: int, cameras: tuple[str, ...], *, trusted: bool, token: str
    ) -> None:
        self.number = number
        self.trusted = trusted
        self.address = "unix"
        self.credentials = ""
        self.lost = 0
        """Events dropped because the peer was too slow."""
        self._server = server
        self._decoder = Decoder(cameras)
        self._gate = TokenGate(token)
        self._buffer = bytearray(READ_AT_ONCE)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Decoded] = deque()
        self._untold = 0
        self._process = False
        self._ended = False
        """The peer has closed its sending half; what it asked for is still answered (socat)."""
        self._refusals = 0
        self._progress_s = time.monotonic()
        self._unsent = 0

    # ---- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or refuse where there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        if self.trusted:
            self.credentials = credentials(transport.get_extra_info("socket"))
        else:
            self.address = str(transport.get_extra_info("peername", ("?",))[0])
        if not self._server.opened(self):
            self.refuse("too many connections; close one")

    def get_buffer(self, sizehint: int) -> bytearray:
        """Lend asyncio the place to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes that came."""
        data = self._gate.feed(bytes(self._buffer[:nbytes]))
        if self._gate.refused:
            log.warning("trigger port: wrong token from %s", self.address)
            self.refuse("expected `token <the token of config.toml>` as the first line")
            return
        self._progress_s = time.monotonic()
        self._take(self._decoder.feed(data, self._progress_s))

    def eof_received(self) -> bool:
        """Keep answering a peer that only closed its sending half."""
        self._ended = True
        self._take(self._decoder.finish())
        self._next()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._waiting.clear()
        self._server.closed(self)

    # ---- the server calls these

    def send(self, message: Message, ident: Any, encoded: dict[str, bytes] | None = None) -> None:
        """Send a message, or drop it where the peer is too slow for it; `encoded` keeps bytes by dialect for others."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        unsent = transport.get_write_buffer_size()
        if isinstance(message, PreviewFrame) and unsent:
            return  # dropped rather than queued: the next one is newer
        if isinstance(message, Event) and unsent > EVENTS_UNSENT_MAX:
            self.lost += 1
            self._untold += 1
            return
        dialect = self._decoder.dialect or "text"
        kept = encoded if encoded is not None else {}
        if dialect not in kept:
            kept[dialect] = encode_or_error(dialect, message, ident)
        self._tell_losses(dialect)
        transport.write(kept[dialect])
        if transport.get_write_buffer_size() > UNSENT_MAX:
            log.warning("dropped a connection that does not read number=%d", self.number)
            transport.abort()
        elif isinstance(message, Reply) and not self._process:
            asyncio.get_running_loop().call_soon(self._next)

    def is_process(self) -> None:
        """Treat it as one of ours: longer messages, no waiting for one answer before the next command."""
        self._process = True
        self._decoder.limit = PROCESS_BYTES_MAX

    def refuse(self, why: str) -> None:
        """Say why, and hang up."""
        self.send(error(why, "refused"), None)
        self.close(why)

    def close(self, why: str) -> None:
        """Hang up once what was sent is out."""
        log.debug("closing number=%d: %s", self.number, why)
        self._waiting.clear()
        if self._transport:
            self._transport.close()

    def tick(self, now_s: float) -> None:
        """Look for messages never completed, peers that never read, losses to tell."""
        transport = self._transport
        if transport is None or transport.is_closing():
            if transport and self._is_stuck(transport, now_s):
                transport.abort()
            return
        if self._ended and is_gone(transport):
            transport.abort()
        elif self._decoder.is_overdue(now_s) and not self._is_paused(transport):
            self.refuse("message not complete within 5 s")
        elif self._is_stuck(transport, now_s):
            log.warning("dropped a connection that takes nothing number=%d unsent=%d", self.number, self._unsent)
            transport.abort()
        elif not self.trusted and now_s - self._progress_s > TCP_IDLE_S and not self._server.is_busy(self.number):
            self.close("idle")
        elif self._untold and self._unsent <= EVENTS_UNSENT_MAX // 2:
            self._tell_losses(self._decoder.dialect or "text")

    # ---- inside

    def _take(self, decoded: list[Decoded]) -> None:
        for one in decoded:
            self._refusals = self._refusals + 1 if isinstance(one, Refused) else 0
            if self._process or (isinstance(one, Received) and one.id is not None):
                self._server.received(self, one)
            else:
                self._waiting.append(one)
            if self._refusals > REFUSALS_MAX:
                self.refuse("too many unreadable messages")
                return
        self._next()
        if len(self._waiting) > WAITING_MAX and self._transport:
            self._transport.pause_reading()

    def _next(self) -> None:
        """Hand over what waits, one command at a time, so that answers come in order."""
        while self._waiting and not self._server.is_busy(self.number):
            one = self._waiting.popleft()
            self._server.received(self, one)
            if isinstance(one, Refused) and not self.trusted:
                self.close("unreadable")  # a browser's POST must not get as far as its body
        if self._transport and len(self._waiting) <= WAITING_MAX and self._is_paused(self._transport):
            self._decoder.restart_timer(time.monotonic())
            self._transport.resume_reading()
        server, number = self._server, self.number
        if self._ended and not (self._waiting or server.is_busy(number) or server.listens(number)):
            self.close("done")

    @staticmethod
    def _is_paused(transport: asyncio.Transport) -> bool:
        return not (transport.is_reading() or transport.is_closing())

    def _tell_losses(self, dialect: str) -> None:
        if self._untold and self._transport:
            self._transport.write(encode(dialect, EventsLost(count=self._untold)))
            self._untold = 0

    def _is_stuck(self, transport: asyncio.Transport, now_s: float) -> bool:
        unsent = transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._progress_s = max(self._progress_s, now_s)
        self._unsent = unsent
        return unsent > 0 and now_s - self._progress_s > STUCK_S
