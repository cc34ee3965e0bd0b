"""Events of the service for browsers: the latest ones are kept, and each subscriber has a bounded queue."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec.structs import asdict

from shmcam.control.messages import Event, wire_name
from shmcam.runtime.clock import to_iso

EVENTS_KEPT = 200
"""Events kept for later subscribers and for `/api/v1/events`."""

QUEUE_MAX = 64
"""Events that may wait for one subscriber; beyond it the oldest is dropped."""


class Told(msgspec.Struct, frozen=True):
    """One event."""

    number: int
    """Counts on while the streamer lives."""
    event: str
    """night_began, saved …"""
    time_utc: str
    data: dict[str, Any]


class RecentEvents:
    """The latest events and the queues of the subscribers."""

    def __init__(self) -> None:
        self.latest: deque[Told] = deque(maxlen=EVENTS_KEPT)
        self._numbers = itertools.count(1)
        self._queues: set[asyncio.Queue[Told]] = set()

    def add_from_hub(self, event: Event) -> None:
        """Adds an event of the hub, without its binary values."""
        self.add(wire_name(event), {k: v for k, v in asdict(event).items() if not isinstance(v, bytes)})

    def add(self, name: str, data: dict[str, Any]) -> None:
        """Keeps an event and puts it into the queue of each subscriber."""
        event = Told(next(self._numbers), name, to_iso(time.time_ns()), data)
        self.latest.append(event)
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[Told]]:
        """Subscribes for the length of the block. Yields: the queue of the events from now on."""
        queue: asyncio.Queue[Told] = asyncio.Queue(QUEUE_MAX)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)
