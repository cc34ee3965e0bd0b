"""One connection of the hub: bytes in to messages, messages out to bytes, and the limits on both.

Rules: a peer costs its own connection only. One that floods, never reads, never completes a message or sends only
unreadable bytes is refused or dropped; the others wait for at most READ_AT_ONCE_BYTES of it. The kernel tells about
the other end: its credentials, and whether it is closed altogether.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from shmcam.control.codec import Decoded, Decoder, Received, Refused, encode, encode_or_error
from shmcam.control.messages import PROCESS_BYTES_MAX, Event, EventId, EventsLost, Message, PreviewFrame, Reply, error
from shmcam.hub.router import Router
from shmcam.hub.trigger_port_access import TOKEN_WITHIN_S, WRONG_TOKEN_S, TokenCheck
from shmcam.network.peer_address import peer_key_of

log = logging.getLogger(__name__)

READ_AT_ONCE_BYTES = 4096
"""Bytes read before other connections get their turn; a flooding peer delays them by no more than these take."""

EVENTS_UNSENT_BYTES_MAX = 256 * 1024
"""Unsent bytes above which events for this connection are dropped and counted."""

CHUNKS_UNSENT_BYTES_MAX = 256 * 1024
"""Unsent bytes above which who sends chunks has to wait; until a quarter is left."""

UNSENT_BYTES_MAX = 2 * 1024 * 1024
"""Unsent bytes at most; a peer further behind never reads and is dropped."""

STUCK_S = 10.0
"""Longest time in which a peer takes none of its unsent bytes; then it is dropped."""

QUEUED_MAX = 400
"""Commands that wait for those before them; with more, the hub stops reading until there is room."""

TCP_IDLE_S = 60.0
"""Longest time without a byte from a TCP connection that waits for no answer."""

LINE_END_S = 0.3
"""A line of text over TCP is whole without its end if nothing follows for so long: scripts of the former trigger server
send `save` alone, and wait for the answer."""

HELLO_WITHIN_S = 2.0
"""A connection at one of the last places must be known as a process of ours within this time."""

REFUSALS_MAX = 100
"""Unreadable messages in a row that end the connection: it is no process of ours and no person."""


class PeerConnection(asyncio.BufferedProtocol):
    """One connection. Text and JSON commands without an id are answered one after the other, in order.

    They are carried out also if the peer is gone by then: `nc` may close at once. Over TCP the connection is closed
    after the answers to its lines of text, as most kinds of `nc` wait for that.
    """

    def __init__(
        self,
        number: int,
        router: Router,
        *,
        on_open: Callable[[PeerConnection], bool],
        on_close: Callable[[PeerConnection], None],
        on_message: Callable[[PeerConnection, Decoded], None],
        on_wrong_token: Callable[[PeerConnection], None],
        on_drained: Callable[[PeerConnection], None],
        trusted: bool,
        token: str,
    ) -> None:
        """`on_open` returns False if there are too many connections. `trusted`: a Unix socket, not TCP."""
        self.number = number
        self.trusted = trusted
        self.address = "unix"
        """IP address of the other end."""
        self.peer_key = "unix"
        """The key under which the limits of this peer are counted."""
        self.opened_s = time.monotonic()
        self.is_provisional = False
        """True if it has one of the last places, which are for processes of ours: it must say hello soon."""
        self.credentials = ""
        self.is_behind = False
        """True while more than CHUNKS_UNSENT_BYTES_MAX wait for the peer."""
        self.lost_count = 0
        """Events dropped because the peer was too slow."""
        self._router = router
        self._on_open, self._on_close, self._on_message = on_open, on_close, on_message
        self._on_wrong_token, self._on_drained = on_wrong_token, on_drained
        self._decoder = Decoder(router.registry.cameras)
        self._token_check = TokenCheck(token)
        self._buffer = bytearray(READ_AT_ONCE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Decoded] = deque()
        """Messages that wait for the answers to those before them."""
        self._unreported_losses = 0
        self._is_process = False
        self._is_half_closed = False
        """True once the peer has closed its sending half; its commands are still answered (socat)."""
        self._is_lost = False
        """True once the connection is gone; what it had sent is still carried out."""
        self._refusals = 0
        self._heard_s = time.monotonic()
        self._progress_s = time.monotonic()
        self._unsent_bytes = 0

    # ---- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts, or refuses the peer if there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(CHUNKS_UNSENT_BYTES_MAX)
        if self.trusted:
            self.credentials = credentials_of(transport.get_extra_info("socket"))
        else:
            self.address = str(transport.get_extra_info("peername", ("?",))[0])
            self.peer_key = peer_key_of(self.address)
        if not self._on_open(self):
            self.refuse("too many connections; close one")

    def get_buffer(self, sizehint: int) -> bytearray:
        """Returns the buffer that asyncio reads into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Takes new bytes."""
        data = self._token_check.feed(bytes(self._buffer[:nbytes]))
        if self._token_check.is_refused:
            self._on_wrong_token(self)
            if self._transport:
                self._transport.pause_reading()
            why = "expected `token <the token of config.toml>` as the first line"
            asyncio.get_running_loop().call_later(WRONG_TOKEN_S, self.refuse, why)
            return
        if not self._token_check.is_passed:
            return
        self._heard_s = self._progress_s = time.monotonic()
        self._take_messages(self._decoder.feed(data, self._heard_s))
        if self.trusted or not data:
            return
        if not self._decoder.dialect:  # nothing but line ends
            self.send(Reply(ok=False, status="unknown_command", text="UNKNOWN_COMMAND"), None)
            self.close("an empty line")
        elif self._decoder.dialect == "text" and self._decoder.pending_bytes:
            asyncio.get_running_loop().call_later(LINE_END_S, self._end_line, self._heard_s)

    def eof_received(self) -> bool:
        """Keeps the connection: a peer that closed only its sending half still gets its answers."""
        self._is_half_closed = True
        if not self._token_check.is_passed:
            return self._token_check.is_refused  # kept only for the answer to a wrong token
        self._take_messages(self._decoder.finish())
        self._take_next()
        return True

    def pause_writing(self) -> None:
        """Notes that the peer is behind: chunks for it have to wait."""
        self.is_behind = True

    def resume_writing(self) -> None:
        """Notes that the peer has read most of what waited."""
        self.is_behind = False
        self._on_drained(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends it, after the commands that have come."""
        self._is_lost = True
        self._take_next()

    # ---- the server calls these

    def send(
        self,
        message: Message,
        ident: Any,
        encoded: dict[str, bytes] | None = None,
        event_id: EventId | None = None,
    ) -> None:
        """Sends a message, or drops it if the peer is too slow. `encoded`: its bytes by dialect, for all recipients."""
        transport = self._transport
        if transport is None or transport.is_closing():
            self._after_reply(message)
            return
        unsent_bytes = transport.get_write_buffer_size()
        if isinstance(message, PreviewFrame) and unsent_bytes:
            return  # dropped rather than queued: the next one is newer
        if isinstance(message, Event) and unsent_bytes > EVENTS_UNSENT_BYTES_MAX:
            self.lost_count += 1
            self._unreported_losses += 1
            return
        dialect = self._decoder.dialect or "text"
        by_dialect = encoded if encoded is not None else {}
        if dialect not in by_dialect:
            by_dialect[dialect] = encode_or_error(dialect, message, ident, event_id)
        self._report_losses(dialect)
        transport.write(by_dialect[dialect])
        if transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            log.warning("dropped a connection that does not read number=%d", self.number)
            transport.abort()
        else:
            self._after_reply(message)

    def _after_reply(self, message: Message) -> None:
        if isinstance(message, Reply) and not self._is_process:
            asyncio.get_running_loop().call_soon(self._take_next)

    @property
    def may_make_room(self) -> bool:
        """True if nobody would miss it: not let in yet; or without an answer under way, a process or a subscriber."""
        if not self._token_check.is_passed:
            return True
        is_needed = self._is_process or self._router.wants_events(self.number)
        return not self._router.is_busy(self.number) and (self.is_gone or not is_needed)

    @property
    def is_gone(self) -> bool:
        """True if the other end has closed the connection altogether, which asyncio tells only of those that send."""
        transport = self._transport
        return self._is_half_closed and (transport is None or transport.is_closing() or is_gone(transport))

    @property
    def last_heard_s(self) -> float:
        """The time of the last bytes that counted, monotonic."""
        return self._heard_s

    def treat_as_process(self) -> None:
        """Grants what a process of ours needs: a place of its own, longer messages, and commands side by side."""
        self._is_process = True
        self.is_provisional = False
        self._decoder.limit_bytes = PROCESS_BYTES_MAX

    def refuse(self, why: str) -> None:
        """Sends the reason and closes the connection."""
        self.send(error(why, "refused"), None)
        self.close(why)

    def close(self, why: str) -> None:
        """Closes the connection after its unsent bytes are out."""
        log.debug("closing number=%d: %s", self.number, why)
        self._queue.clear()
        if self._transport:
            self._transport.close()

    def tick(self, now_s: float) -> None:
        """Ends the connection of a peer that never completes a message or never reads; reports lost events."""
        transport = self._transport
        if transport is None or transport.is_closing():
            if transport and self._is_stuck(transport, now_s):
                transport.abort()
            return
        if self.is_gone:
            transport.abort()
        elif not self._token_check.is_passed and now_s - self.opened_s > TOKEN_WITHIN_S:
            self.refuse(f"token not complete within {TOKEN_WITHIN_S:g} s")
        elif self.is_provisional and now_s - self.opened_s > HELLO_WITHIN_S:
            self.refuse("too many connections; close one")
        elif self._decoder.is_overdue(now_s) and not self._is_paused(transport):
            self.refuse("message not complete within 5 s")
        elif self._is_stuck(transport, now_s):
            log.warning("dropped a connection that takes nothing number=%d unsent=%d", self.number, self._unsent_bytes)
            transport.abort()
        elif not self.trusted and now_s - self._heard_s > TCP_IDLE_S and not self._is_in_use:
            self.close("idle")
        elif self._unreported_losses and self._unsent_bytes <= EVENTS_UNSENT_BYTES_MAX // 2:
            self._report_losses(self._decoder.dialect or "text")

    # ---- inside

    def _take_messages(self, messages: list[Decoded]) -> None:
        """Hands over messages at once if they have an id or come from a process; the others wait their turn."""
        for decoded in messages:
            self._refusals = self._refusals + 1 if isinstance(decoded, Refused) else 0
            if self._is_process or (isinstance(decoded, Received) and decoded.id is not None):
                self._on_message(self, decoded)
            else:
                self._queue.append(decoded)
            if self._refusals > REFUSALS_MAX:
                self.refuse("too many unreadable messages")
                return
        self._take_next()
        if len(self._queue) > QUEUED_MAX and self._transport:
            self._transport.pause_reading()

    def _end_line(self, heard_s: float) -> None:
        """Takes what has come as a whole line, if nothing has come since `heard_s`."""
        if heard_s == self._heard_s and self._transport and not self._transport.is_closing():
            self._take_messages(self._decoder.finish())

    def _take_next(self) -> None:
        """Hands over queued messages one at a time, so that answers come in order; closes when all is done."""
        while self._queue and not self._router.is_busy(self.number):
            decoded = self._queue.popleft()
            self._on_message(self, decoded)
            if isinstance(decoded, Refused) and not self.trusted:
                self.close("unreadable")  # a browser's POST must not get as far as its body
        if self._transport and len(self._queue) <= QUEUED_MAX and self._is_paused(self._transport):
            self._decoder.restart_timer(time.monotonic())
            self._transport.resume_reading()
        if self._is_lost:
            if not (self._queue or self._router.is_busy(self.number)):
                self._on_close(self)
        elif (self._is_half_closed or self._is_answered_line) and not self._is_in_use:
            self.close("done")

    @property
    def _is_in_use(self) -> bool:
        """True while it waits for answers or gets events."""
        router, number = self._router, self.number
        return bool(self._queue) or router.is_busy(number) or router.wants_events(number)

    @property
    def _is_answered_line(self) -> bool:
        """True for a TCP connection that speaks text, once a whole line has come and nothing behind it."""
        return not self.trusted and self._decoder.dialect == "text" and not self._decoder.pending_bytes

    @staticmethod
    def _is_paused(transport: asyncio.Transport) -> bool:
        return not (transport.is_reading() or transport.is_closing())

    def _report_losses(self, dialect: str) -> None:
        if self._unreported_losses and self._transport:
            self._transport.write(encode(dialect, EventsLost(count=self._unreported_losses)))
            self._unreported_losses = 0

    def _is_stuck(self, transport: asyncio.Transport, now_s: float) -> bool:
        unsent_bytes = transport.get_write_buffer_size()
        if not unsent_bytes or unsent_bytes < self._unsent_bytes:
            self._progress_s = max(self._progress_s, now_s)
        self._unsent_bytes = unsent_bytes
        return unsent_bytes > 0 and now_s - self._progress_s > STUCK_S


# ---- what the kernel tells about the other end


def is_gone(transport: asyncio.Transport) -> bool:
    """Returns whether the other end is closed altogether: a half-closed one (socat) shows no POLLHUP."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))


def credentials_of(sock: socket.socket) -> str:
    """Returns "pid/uid/gid" of the other end, as the kernel knows them."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"{pid}/{uid}/{gid}"
