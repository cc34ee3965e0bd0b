"""A process's line to the hub: commands in, replies, events and heartbeats out, in a thread of its own.

    with ControlClient("analyzer", "cam0", socket_path=path, stop=stop, commands=("night_level",)) as control:
        while not stop.requested:
            …
            for request in control.receive():
                request.reply(Reply(text=…))
            control.beat(fps=fps)

Rules: nothing here blocks or raises into the caller. With the hub dead the process goes on; what it announces waits in
a bounded queue, the oldest is dropped and counted, and the thread reconnects by itself.

What a process receives from the hub, and how it answers.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from shmcam.control.call import acall, call
from shmcam.control.client_connection import ClientConnection, WakeUp
from shmcam.control.messages import JSON, RETAINED, Chunk, Event, Heartbeat, Hello, Message, Reply, error, wire_name
from shmcam.runtime.procfs import read_memory
from shmcam.runtime.stop import Stop

CHUNK_BACKLOG_BYTES = 1024 * 1024
"""Bytes of chunks that may wait to be sent; then reply() refuses more, and the sender tries again."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command to answer, or an event that was subscribed to."""

    message: Message
    _ident: object
    _line: ClientConnection

    def reply(self, answer: Reply | Chunk) -> bool:
        """Answer, now or later, from any thread; chunks first, the Reply last.

        Returns False if it could not be taken: the backlog of chunks is full (try again), or the hub is gone.
        """
        if self._ident is None:
            return True
        if isinstance(answer, Chunk) and self._line.backlog_bytes > CHUNK_BACKLOG_BYTES:
            return False
        return self._line.put(answer, self._ident)


__all__ = ["ControlClient", "Request", "acall", "call"]

log = logging.getLogger(__name__)

QUEUE_MAX = 256
"""Messages waiting in either direction; a healthy process has none or one."""


class ControlClient:
    """See the module."""

    def __init__(
        self,
        role: str,
        camera: str = "",
        *,
        socket_path: Path | str,
        stop: Stop | None = None,
        commands: tuple[str, ...] = (),
        subscribe: tuple[str, ...] = (),
    ) -> None:
        program = os.environ.get("SUPERVISOR_PROCESS_NAME", "")
        self._hello = Hello(
            role=role,
            camera=camera,
            pid=os.getpid(),
            program=program,
            commands=tuple(commands),
            subscribe=tuple(subscribe),
        )
        self._stop = stop
        self._inbox: deque[Request] = deque(maxlen=QUEUE_MAX)
        self._ready = WakeUp()
        self._beat: Heartbeat | None = None
        self._beat_lock = threading.Lock()
        self._retained: dict[tuple[str, str], Event] = {}
        self._line = ClientConnection(Path(socket_path), self._greeting, self._deliver, self._due, stop)

    def __enter__(self) -> ControlClient:
        """Start the thread; returns at once, connected or not."""
        self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what waits (at most half a second), then hang up."""
        self._line.close()
        self._ready.close()

    @property
    def is_connected(self) -> bool:
        """Whether the hub has welcomed us."""
        return self._line.welcomed

    @property
    def lost(self) -> int:
        """Events that were dropped because the hub was away or slow for too long."""
        return self._line.lost

    def receive(self) -> Iterator[Request]:
        """Yield what has come since the last call; never waits."""
        self._ready.hush()
        while self._inbox:
            yield self._inbox.popleft()

    def announce(self, event: Event) -> None:
        """Tell the subscribers; queued while the hub is away."""
        name = wire_name(event)
        if name in RETAINED:
            self._retained[RETAINED[name], str(getattr(event, "camera", ""))] = event
        self._line.put(event)

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
        """Say that the loop turns and how it does; call it on every pass, once a second is sent."""
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
        """Readable while something waits in receive()."""
        return self._ready.fileno()

    def wait(self, seconds: float) -> bool:
        """Sleep until something was received or stop was requested, at most so long. Returns whether something was."""
        ready = self._ready.fileno()
        watched = [ready, *([self._stop.fileno()] if self._stop else [])]
        return ready in select.select(watched, [], [], max(0.0, seconds))[0]

    # ---- in the thread

    def _greeting(self) -> list[tuple[Message, bool]]:
        """Return what to say first on each connection: who we are, then how things are (again)."""
        return [(self._hello, False), *((event, True) for event in list(self._retained.values()))]

    def _deliver(self, message: Message, ident: object) -> None:
        if isinstance(message, Reply):
            if not message.ok:
                log.warning("the hub refused a message: %s", message.text)
            return
        if len(self._inbox) == QUEUE_MAX and ident is not None:
            self._line.put(error(f"{self._hello.role} is busy: {QUEUE_MAX} commands wait", "busy"), ident)
            return
        self._line.lost += len(self._inbox) == QUEUE_MAX  # the oldest event falls out
        self._inbox.append(Request(message, ident, self._line))
        self._ready.ring()

    def _due(self) -> Heartbeat | None:
        """Return the heartbeat to send now: only if the loop came by since the last one."""
        with self._beat_lock:
            beat, self._beat = self._beat, None
        if beat is None:
            return None
        rss_bytes, swap_bytes = read_memory()
        return replace(beat, rss_bytes=rss_bytes, swap_bytes=swap_bytes, lost=self.lost)
