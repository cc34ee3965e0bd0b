"""What happens in the service, passed on to browsers: a short memory and a bounded place for each listener."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from shmcam.control.messages import Event, values_of, wire_name
from shmcam.runtime.clock import iso

KEPT = 200
"""Events remembered for those who come later."""

WAITING_MAX = 64
"""Events one listener may be behind; then the oldest is dropped."""


class Told(msgspec.Struct, frozen=True):
    """One event."""

    number: int
    """Counts on while the streamer lives."""
    event: str
    """night_began, saved …"""
    time_utc: str
    data: dict[str, Any]


class RecentEvents:
    """The streamer's memory of events."""

    def __init__(self) -> None:
        self.latest: deque[Told] = deque(maxlen=KEPT)
        self._numbers = itertools.count(1)
        self._listeners: set[asyncio.Queue[Told]] = set()

    def tell(self, event: Event) -> None:
        """Remember an event of the hub and pass it on."""
        self.say(wire_name(event), {k: v for k, v in values_of(event).items() if not isinstance(v, bytes)})

    def say(self, name: str, data: dict[str, Any]) -> None:
        """Remember something of our own and pass it on."""
        told = Told(next(self._numbers), name, iso(time.time_ns()), data)
        self.latest.append(told)
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(told)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Queue[Told]]:
        """Hear of everything from now on, for the length of the block."""
        queue: asyncio.Queue[Told] = asyncio.Queue(WAITING_MAX)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
