"""A process's connection to the hub: commands in, replies, events and heartbeats out, in a thread of its own.

    with ControlClient("analyzer", "cam0", socket_path=path, stop=stop, commands=("night_level",)) as control:
        while not stop.requested:
            …
            for request in control.receive():
                request.reply(Reply(text=…))
            control.beat(fps=fps)

Rules: nothing here blocks or raises into the caller. With the hub dead the process goes on; its events wait in a
bounded queue, the oldest is dropped and counted, and the thread reconnects by itself.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from shmcam.control.client_connection import ClientConnection, WakeUp
from shmcam.control.event_deduplication import LastEvents, has_id
from shmcam.control.messages import (
    JSON,
    RETAINED,
    Chunk,
    Event,
    EventId,
    Heartbeat,
    Hello,
    Message,
    Reply,
    error,
    wire_name,
)
from shmcam.runtime.procfs import read_memory
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

Item = TypeVar("Item")

QUEUE_MAX = 512
"""Received messages in the queue at most; a healthy process has none or one."""

CHUNK_BACKLOG_BYTES = 1024 * 1024
"""Unsent bytes at most while chunks are taken; beyond it reply() refuses them, and the sender tries again."""


class Request(Struct, frozen=True):
    """A command to answer, or an event of a subscribed topic."""

    message: Message
    _ident: object
    _connection: ClientConnection
    event_id: EventId | None = None
    """Of an event that has one."""

    def reply(self, answer: Reply | Chunk) -> bool:
        """Answers, now or later, from any thread; chunks first, the Reply last.

        Returns False if the answer was not queued: the requester or the hub is slower (try again), or the hub is gone.
        """
        connection = self._connection
        if self._ident is None:
            return True
        if isinstance(answer, Chunk):
            if self._ident in connection.held or connection.backlog_bytes > CHUNK_BACKLOG_BYTES:
                return False
        else:
            connection.held.discard(self._ident)
        return connection.put(answer, self._ident)


class Delegation:
    """The waits of a loop, during which the connection's thread handles requests in the loop's place.

    A context manager around each wait; outside of it only the loop handles them. So a command is answered at once,
    however long the next frame takes, and nothing of the loop's needs another lock.
    """

    def __init__(self, handle: Callable[[], None], has_requests: Callable[[], bool]) -> None:
        self.has_handled = False
        """True if requests were handled in the last wait."""
        self._handle, self._has_requests = handle, has_requests
        self._lock = threading.Lock()
        self._is_open = False
        self._problem: Exception | None = None

    def __enter__(self) -> Delegation:
        """Begins a wait; what came just before it is handled first."""
        with self._lock:
            self.has_handled, self._is_open = False, True
        if self._has_requests():
            self.handle()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends a wait, after the request that is being handled. Raises: what a request raised in the other thread."""
        with self._lock:
            self._is_open = False
        if self._problem is not None:
            raise self._problem

    def handle(self) -> None:
        """Handles the requests that came, if the loop waits."""
        with self._lock:
            if self._is_open and self._problem is None:
                self.has_handled = True
                try:
                    self._handle()
                except Exception as problem:  # noqa: BLE001  it is the loop's, which ends of it as ever
                    self._problem = problem

    def iterate(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yields the items, such as frames; the wait for each is a wait of the loop."""
        with suppress(StopIteration):
            while True:
                with self:
                    item = next(items)
                yield item


class ControlClient:
    """The connection of one process to the hub; see the module."""

    def __init__(
        self,
        role: str,
        camera: str = "",
        *,
        socket_path: Path | str,
        stop: Stop | None = None,
        commands: tuple[str, ...] = (),
        subscribe: tuple[str, ...] = (),
        since_ns: int = 0,
    ) -> None:
        """`since_ns`: the monotonic time from which on it wants events that the hub still has; 0: from now on."""
        program = os.environ.get("SUPERVISOR_PROCESS_NAME", "")
        self._hello = Hello(
            role=role,
            camera=camera,
            pid=os.getpid(),
            program=program,
            commands=tuple(commands),
            subscribe=tuple(subscribe),
            since_ns=since_ns or time.monotonic_ns(),
        )
        self._stop = stop
        self._requests: deque[Request] = deque(maxlen=QUEUE_MAX)
        self._ready = WakeUp()
        self._delegation: Delegation | None = None
        self._beat: Heartbeat | None = None
        self._beat_lock = threading.Lock()
        self._announce_lock = threading.Lock()
        self._retained: dict[tuple[str, str], tuple[EventId, Event]] = {}
        self._recent = LastEvents()
        self._sender = secrets.randbits(62) | 1
        self._announced_ns = 0
        self._connection = ClientConnection(
            Path(socket_path), self._hello, self._list_events, self._deliver, self._take_heartbeat, stop=stop
        )

    def __enter__(self) -> ControlClient:
        """Starts the thread; returns at once, connected or not."""
        self._connection.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sends the queue (within half a second), then closes the connection."""
        self._connection.close()
        self._ready.close()

    @property
    def is_connected(self) -> bool:
        """True from the hub's welcome until the connection ends."""
        return self._connection.is_welcomed

    @property
    def lost_count(self) -> int:
        """The number of events dropped because the hub was away or slow for too long."""
        return self._connection.lost_count

    def receive(self) -> Iterator[Request]:
        """Yields the requests that came since the last call; never waits."""
        self._ready.clear()
        while self._requests:
            yield self._requests.popleft()

    def delegate(self, handle: Callable[[], None]) -> Delegation:
        """Returns the context for the loop's waits for something else than requests.

        In it the connection's thread calls `handle`, which takes them from receive(), whenever some come.
        """
        self._delegation = Delegation(handle, lambda: bool(self._requests))
        return self._delegation

    received, connected, lost = receive, is_connected, lost_count
    """Their former names, which programs use."""

    def announce(self, event: Event) -> None:
        """Sends an event to its subscribers, to each of them once; it waits in the queue while the hub is away."""
        if not has_id(event):
            self._connection.put(event)
            return
        name = wire_name(event)
        with self._announce_lock:
            self._announced_ns = max(self._announced_ns + 1, time.monotonic_ns())
            event_id = (self._sender, self._announced_ns)
            if name in RETAINED:
                self._retained[RETAINED[name], str(getattr(event, "camera", ""))] = (event_id, event)
            self._recent.add(event_id, event)
            self._connection.put(event, event_id=event_id)

    def beat(
        self,
        state: str = "running",
        reason: str = "",
        *,
        fps: float = -1.0,
        lag: int = -1,
        laps: int = 0,
        **figures: JSON,
    ) -> None:
        """Notes that the loop runs, and its figures; call it on every pass, the thread sends one heartbeat a second."""
        hello = self._hello
        beat = Heartbeat(
            role=hello.role,
            camera=hello.camera,
            pid=hello.pid,
            state=state[:32],
            reason=reason[:300],
            fps=round(float(fps), 2),
            lag=int(lag),
            laps=int(laps),
            figures=figures,
        )
        with self._beat_lock:
            self._beat = beat

    def fileno(self) -> int:
        """Returns a descriptor that is readable while receive() has requests."""
        return self._ready.fileno()

    def wait(self, timeout_s: float) -> bool:
        """Sleeps until a request comes or stop is requested, at most so long. Returns whether a request came.

        It is a wait of the loop, too: what is delegated has been handled when it returns.
        """
        ready = self._ready.fileno()
        descriptors = [ready, *([self._stop.fileno()] if self._stop else [])]
        with self._delegation or nullcontext():
            return ready in select.select(descriptors, [], [], max(0.0, timeout_s))[0]

    # ---- in the thread

    def _list_events(self) -> list[tuple[EventId, Event]]:
        """Returns the events that every connection sends once more: the retained and the last ones."""
        with self._announce_lock:
            return list(dict([*self._retained.values(), *self._recent.since(0)]).items())

    def _deliver(self, message: Message, ident: object, event_id: EventId | None) -> None:
        if isinstance(message, Reply):
            if not message.ok:
                log.warning("the hub refused a message: %s", message.text)
            return
        if len(self._requests) == QUEUE_MAX and ident is not None:
            self._connection.put(error(f"{self._hello.role} is busy: {QUEUE_MAX} commands wait", "busy"), ident)
            return
        self._connection.lost_count += len(self._requests) == QUEUE_MAX  # the oldest event falls out
        self._requests.append(Request(message, ident, self._connection, event_id))
        if self._delegation is not None:
            self._delegation.handle()
        self._ready.set()  # after that: the loop would wait for the interpreter's lock, and the answer for the loop

    def _take_heartbeat(self) -> Heartbeat | None:
        """Returns the heartbeat to send now: only if the loop called beat() since the last one."""
        with self._beat_lock:
            beat, self._beat = self._beat, None
        if beat is None:
            return None
        rss_bytes, swap_bytes = read_memory()
        return replace(beat, rss_bytes=rss_bytes, swap_bytes=swap_bytes, lost=self.lost_count)
