"""The thread under ControlClient: one socket, reconnecting; a bounded queue out; decoded messages in.

Wakes a thread that waits in poll or select.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from shmcam.control.codec import READ_BYTES, Decoder, Received, encode
from shmcam.control.messages import PROCESS_BYTES_MAX, Chunk, Event, Message, Reply
from shmcam.runtime.stop import Stop
from shmcam.runtime.worker import Worker


class WakeUp:
    """An eventfd that any thread may ring, also while another closes it: its number may be another file's by then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rings = False

    def fileno(self) -> int:
        """Readable while it rings."""
        return self._descriptor

    def ring(self) -> None:
        """Wake whoever waits; once closed, nobody does."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it rings already
            if self._descriptor >= 0:
                self._rings = True
                os.eventfd_write(self._descriptor, 1)

    def hush(self) -> None:
        """Stop ringing; costs nothing where it does not, as it is asked once per frame."""
        if not self._rings:
            return
        with self._lock, contextlib.suppress(BlockingIOError):
            self._rings = False
            if self._descriptor >= 0:
                os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


log = logging.getLogger(__name__)

OUT_MAX = 256
"""Events waiting to be sent; then the oldest is dropped."""

RETRY_FIRST_S, RETRY_MAX_S = 0.05, 0.5
"""Pause before connecting again, doubling: a restarted hub has everyone back within 2 s."""

GONE_TOLD_S = 3.0
"""supervisord has a hub that died back within 2 s; one that stays away longer is worth a warning."""

TURN_S = 0.25
"""Longest wait of the loop, so that heartbeats and closing are never late by more."""

BEAT_PERIOD_S = 1.0
"""Heartbeats are sent this often at most (design.md §4)."""

CLOSING_S = 0.5
"""How long close() lets the thread send what waits."""


class ClientConnection:
    """Owner of the thread; everything public is safe from any thread."""

    def __init__(
        self,
        path: Path,
        greeting: Callable[[], list[tuple[Message, bool]]],
        deliver: Callable[[Message, object], None],
        due: Callable[[], Event | None],
        stop: Stop | None,
    ) -> None:
        self.welcomed = False
        self.lost = 0
        self.backlog_bytes = 0
        self._path, self._greeting, self._deliver, self._due = path, greeting, deliver, due
        self._out: deque[tuple[bytes, bool]] = deque()
        """Encoded messages, and whether each is an event (kept while the hub is away) or an answer (then worthless)."""
        self._lock = threading.Lock()
        self._wake = WakeUp()
        self._closing = False
        self._gone_s: float | None = None
        """When the hub hung up, until that was told or it is back."""
        self._bye = threading.Event()
        self._thread = Worker("control", self._run, stop)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, message: Message, ident: object = None) -> bool:
        """Queue a message; never blocks. Returns False for an answer that nobody waits for any more."""
        is_event = isinstance(message, Event)
        if not is_event and not self.welcomed:
            return False
        try:
            data = encode("msgpack", message, ident)
        except (ValueError, OverflowError, TypeError) as problem:
            log.error("message cannot be sent: %s", problem)
            self.lost += 1
            return False
        with self._lock:
            self._out.append((data, is_event))
            self.backlog_bytes += len(data)
            events = sum(kept for _, kept in self._out) if len(self._out) > OUT_MAX else 0
            if events > OUT_MAX:
                oldest = next(index for index, (_, kept) in enumerate(self._out) if kept)
                self.backlog_bytes -= len(self._out[oldest][0])
                del self._out[oldest]
                self.lost += 1
        self._wake.ring()
        return True

    def close(self) -> None:
        """Send what waits, hang up, end the thread."""
        self._closing = True
        self._bye.set()
        self._wake.ring()
        if self._thread.join(CLOSING_S + 2.0):
            self._wake.close()

    # ---- the thread

    def _run(self) -> None:
        pause_s = RETRY_FIRST_S
        while not self._closing:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                    link.settimeout(1.0)
                    link.connect(str(self._path))
                    self._session(link)
                pause_s = RETRY_FIRST_S
            except OSError as problem:
                log.debug("no hub at %s: %s", self._path, problem)
            self._hung_up()
            if not self._closing:
                self._tell_if_gone()
                self._bye.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _tell_if_gone(self) -> None:
        """Warn once the hub has been away for longer than its restart takes: a stop of everything is no trouble."""
        if self._gone_s is not None and time.monotonic() - self._gone_s > GONE_TOLD_S:
            self._gone_s = None
            log.warning("hub gone for %.0f s; going on without it", GONE_TOLD_S)

    def _hung_up(self) -> None:
        if self.welcomed:
            self._gone_s = time.monotonic()
        self.welcomed = False
        with self._lock:
            answers = [data for data, kept in self._out if not kept]
            self._out = deque(item for item in self._out if item[1])
            self.backlog_bytes -= sum(map(len, answers))

    def _session(self, link: socket.socket) -> None:
        """Talk until the hub hangs up or we close. *Raises* OSError when the hub is gone."""
        decoder = Decoder(limit=PROCESS_BYTES_MAX)
        unsent = bytearray(b"".join(encode("msgpack", said, again=again) for said, again in self._greeting()))
        link.setblocking(False)
        beat_s, end_s = time.monotonic(), None
        poll = select.poll()
        poll.register(self._wake.fileno(), select.POLLIN)
        while True:
            now_s = time.monotonic()
            if now_s >= beat_s and (beat := self._due()):
                self.put(beat)
                beat_s = now_s + BEAT_PERIOD_S
            self._take(unsent)
            if unsent:
                with contextlib.suppress(BlockingIOError):
                    del unsent[: link.send(unsent[: 256 * 1024])]
            if self._closing:
                end_s = end_s or now_s + CLOSING_S
                if now_s > end_s or not (unsent or self._out):
                    return
            poll.register(link, select.POLLIN | (select.POLLOUT if unsent else 0))
            ready = dict(poll.poll(TURN_S * 1000))
            self._wake.hush()
            if ready.get(link.fileno(), 0) & ~select.POLLOUT and not self._read(link, decoder):
                return

    def _take(self, unsent: bytearray) -> None:
        """Move queued messages to the bytes being sent, a little at a time so that the queue's bound counts."""
        with self._lock:
            while self.welcomed and self._out and len(unsent) < READ_BYTES:
                data, _ = self._out.popleft()
                self.backlog_bytes -= len(data)
                unsent += data

    def _read(self, link: socket.socket, decoder: Decoder) -> bool:
        """Take what has come. Returns False at the end of the connection."""
        try:
            data = link.recv(4 * READ_BYTES)
        except BlockingIOError:
            return True
        for one in decoder.feed(data, time.monotonic()):
            if not isinstance(one, Received):
                log.error("unreadable message from the hub: %s", one.reply.text)
                if one.fatal:
                    return False
            elif isinstance(one.message, Reply) and one.message.status == "welcome":
                self.welcomed, self._gone_s = True, None
                log.info("hub connected")
            elif not isinstance(one.message, Chunk):
                self._deliver(one.message, one.id)
        return bool(data)
