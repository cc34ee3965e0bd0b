"""The thread under ControlClient: one socket that reconnects, a bounded queue out, decoded messages in.

Rules: everything public here is safe from any thread and never blocks. Events wait in the queue while the hub is away,
the oldest is dropped beyond OUT_MAX; answers are dropped with the connection, as the hub has forgotten their commands.
Events that are sent once more wait in the same queue, in the order of their ids: the hub drops one after a later one.
WakeUp is the thread's and the client's way to end a poll or select in another thread.
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
from typing import NamedTuple

from shmcam.control.codec import READ_BYTES, UNSENDABLE, Decoder, Received, encode, encode_or_error
from shmcam.control.event_deduplication import SeenEvents
from shmcam.control.messages import PROCESS_BYTES_MAX, Chunk, ChunkFlow, Event, EventId, Hello, Message, Reply
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

OUT_MAX = 256
"""Events in the queue at most; then the oldest is dropped."""

RETRY_FIRST_S, RETRY_MAX_S = 0.05, 0.5
"""Pause before the next connect, doubling: within 2 s of a hub's restart every process is connected again."""

WARN_AFTER_S = 3.0
"""supervisord restarts a dead hub within 2 s; a longer absence is worth a warning."""

POLL_S = 0.25
"""Time between two looks for a heartbeat that is due and that the loop has not called beat() for yet."""

BEAT_PERIOD_S = 1.0
"""Shortest time between two heartbeats (design.md §4)."""

CLOSING_S = 0.5
"""Time that close() gives the thread to send its queue."""


class WakeUp:
    """An eventfd that any thread may set, also while another closes it: a closed number may be another file's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_set = False

    def fileno(self) -> int:
        """Returns the descriptor, readable while set."""
        return self._descriptor

    def set(self) -> None:
        """Wakes the waiting thread; does nothing once closed."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it is set already
            if self._descriptor >= 0:
                self._is_set = True
                os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Clears it; costs nothing while it is not set, as loops call this once per frame."""
        if not self._is_set:
            return
        with self._lock, contextlib.suppress(BlockingIOError):
            self._is_set = False
            if self._descriptor >= 0:
                os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Closes the descriptor; a second call does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


class _Queued(NamedTuple):
    """An encoded message in the queue."""

    data: bytes
    is_kept: bool
    """True for an event, kept while the hub is away; answers and events sent once more go with the connection."""
    event_id: EventId | None = None


class ClientConnection:
    """The thread and its connection to the hub."""

    def __init__(
        self,
        path: Path,
        hello: Hello,
        list_events: Callable[[], list[tuple[EventId, Event]]],
        deliver: Callable[[Message, object, EventId | None], None],
        take_heartbeat: Callable[[], Event | None],
        *,
        stop: Stop | None,
    ) -> None:
        """The three functions run in the thread; its failure requests `stop`, as no command could reach the process.

        `hello` begins each connection; `list_events` returns the events that each sends once more.
        `deliver` takes a message, its id and its event id. `take_heartbeat` returns the next heartbeat, if any.
        """
        self.is_welcomed = False
        """True from the hub's welcome until the connection ends."""
        self.lost_count = 0
        self.backlog_bytes = 0
        self.held: set[object] = set()
        """The ids of commands whose requester reads slower than chunks come; no more are queued meanwhile."""
        self._path = path
        self._hello, self._list_events = hello, list_events
        self._deliver = deliver
        self._take_heartbeat = take_heartbeat
        self._out: deque[_Queued] = deque()
        self._lock = threading.Lock()
        self._wake_up = WakeUp()
        self._is_closing = False
        self._disconnected_s: float | None = None
        """Time at which the hub closed the connection; None once it is back or a warning told of it."""
        self._stop_retrying = threading.Event()
        self._seen = SeenEvents()
        self._thread = Worker("control", self._run, stop)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, message: Message, ident: object = None, event_id: EventId | None = None) -> bool:
        """Queues a message; never blocks. Returns False for an answer without a connection to send it on."""
        is_event = isinstance(message, Event)
        if not is_event and not self.is_welcomed:
            return False
        try:
            data = encode("msgpack", message, ident, event_id=event_id)
        except UNSENDABLE as problem:
            self.lost_count += 1
            if not isinstance(message, Reply):
                log.error("message cannot be sent: %s", problem)
                return False
            data = encode_or_error("msgpack", message, ident)  # somebody waits for it
        with self._lock:
            self._out.append(_Queued(data, is_event, event_id))
            self.backlog_bytes += len(data)
            events = sum(item.is_kept for item in self._out) if len(self._out) > OUT_MAX else 0
            if events > OUT_MAX:
                oldest = next(index for index, item in enumerate(self._out) if item.is_kept)
                self.backlog_bytes -= len(self._out[oldest].data)
                del self._out[oldest]
                self.lost_count += 1
        self._wake_up.set()
        return True

    def close(self) -> None:
        """Sends the queue, closes the connection, ends the thread."""
        self._is_closing = True
        self._stop_retrying.set()
        self._wake_up.set()
        if self._thread.join(CLOSING_S + 2.0):
            self._wake_up.close()

    # ---- the thread

    def _run(self) -> None:
        pause_s = RETRY_FIRST_S
        while not self._is_closing:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.settimeout(1.0)
                    sock.connect(str(self._path))
                    self._exchange_messages(sock)
                pause_s = RETRY_FIRST_S
            except OSError as problem:
                log.debug("no hub at %s: %s", self._path, problem)
            self._end_connection()
            if not self._is_closing:
                self._warn_if_gone()
                self._stop_retrying.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _warn_if_gone(self) -> None:
        """Warns once when the hub is away for longer than its restart takes: a stop of everything is no trouble."""
        if self._disconnected_s is not None and time.monotonic() - self._disconnected_s > WARN_AFTER_S:
            self._disconnected_s = None
            log.warning("hub gone for %.0f s; going on without it", WARN_AFTER_S)

    def _end_connection(self) -> None:
        """Drops the answers, whose commands the hub forgot, and what the next connection sends once more."""
        if self.is_welcomed:
            self._disconnected_s = time.monotonic()
        self.is_welcomed = False
        self.held.clear()
        with self._lock:
            self._out = deque(item for item in self._out if item.is_kept)
            self.backlog_bytes = sum(len(item.data) for item in self._out)

    def _queue_again(self, events: list[tuple[EventId, Event]]) -> None:
        """Puts events into the queue that an earlier connection has sent, each once and before all later ones."""
        with self._lock:
            queued = {item.event_id for item in self._out}
            again = [
                _Queued(encode("msgpack", event, event_id=event_id), False, event_id)
                for event_id, event in events
                if event_id not in queued
            ]
            ordered = sorted(
                (item for item in [*again, *self._out] if item.event_id), key=lambda item: item.event_id or (0, 0)
            )
            self._out = deque([*ordered, *(item for item in self._out if not item.event_id)])
            self.backlog_bytes += sum(len(item.data) for item in again)

    def _exchange_messages(self, sock: socket.socket) -> None:
        """Sends and receives until one end closes. Raises: OSError when the hub is gone."""
        decoder = Decoder(limit_bytes=PROCESS_BYTES_MAX)
        unsent = bytearray(encode("msgpack", self._hello))
        self._queue_again(self._list_events())
        sock.setblocking(False)
        beat_s, end_s = time.monotonic(), None
        poll = select.poll()
        poll.register(self._wake_up.fileno(), select.POLLIN)
        while True:
            now_s = time.monotonic()
            wait_s = beat_s - now_s
            if wait_s <= 0:
                wait_s = POLL_S
                if beat := self._take_heartbeat():
                    self.put(beat)
                    beat_s, wait_s = now_s + BEAT_PERIOD_S, BEAT_PERIOD_S
            self._move_queue(unsent)
            if unsent:
                with contextlib.suppress(BlockingIOError):
                    del unsent[: sock.send(unsent[: 256 * 1024])]
            if self._is_closing:
                end_s = end_s or now_s + CLOSING_S
                if now_s > end_s or not (unsent or self._out):
                    return
            poll.register(sock, select.POLLIN | (select.POLLOUT if unsent else 0))
            ready = dict(poll.poll(wait_s * 1000))
            self._wake_up.clear()
            if ready.get(sock.fileno(), 0) & ~select.POLLOUT and not self._read_messages(sock, decoder):
                return

    def _move_queue(self, unsent: bytearray) -> None:
        """Moves queued messages to the unsent bytes, a little at a time so that the queue's bound counts."""
        with self._lock:
            while self.is_welcomed and self._out and len(unsent) < READ_BYTES:
                data = self._out.popleft().data
                self.backlog_bytes -= len(data)
                unsent += data

    def _read_messages(self, sock: socket.socket, decoder: Decoder) -> bool:
        """Reads and delivers the messages that have come. Returns False at the end of the connection."""
        try:
            data = sock.recv(4 * READ_BYTES)
        except BlockingIOError:
            return True
        for decoded in decoder.feed(data, time.monotonic()):
            if not isinstance(decoded, Received):
                log.error("unreadable message from the hub: %s", decoded.reply.text)
                if decoded.fatal:
                    return False
            elif isinstance(decoded.message, Reply) and decoded.message.status == "welcome":
                self.is_welcomed, self._disconnected_s = True, None
                log.info("hub connected")
            elif isinstance(decoded.message, ChunkFlow):
                (self.held.add if decoded.message.wait else self.held.discard)(decoded.id)
            elif not isinstance(decoded.message, Chunk) and (
                decoded.event_id is None or self._seen.add(decoded.event_id)
            ):
                self._deliver(decoded.message, decoded.id, decoded.event_id)
        return bool(data)
