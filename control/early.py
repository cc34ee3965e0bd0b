"""What was announced in a hub's first seconds, for those who come back to it later than the sender. No I/O.

When a hub is killed its processes connect again within a second, one after the other. What the first of them had to
tell meanwhile must reach the last of them, too: a recorder must not miss that night began.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container

from control.messages import Event, Heartbeat, PreviewFrame, wire_name

EARLY_S = 3.0
"""Twice what all processes need to come back on a busy machine; counted from the first hello."""
EVENTS_MAX = 128
"""Of a flood in these seconds the newest are kept: half of what a process's inbox holds (client.QUEUE_MAX)."""


class Early:
    """The events of one hub's beginning."""

    def __init__(self) -> None:
        self._until_s = math.inf
        self._events: deque[tuple[Event, frozenset[int]]] = deque(maxlen=EVENTS_MAX)
        """Each with the pids it was passed on to: who only lost its connection hears nothing twice."""

    def note(self, event: Event, heard: frozenset[int], now_s: float) -> None:
        """Keep what is being passed on, if it is early; moving pictures and signs of life are worth nothing later."""
        if now_s < self._until_s and not isinstance(event, Heartbeat | PreviewFrame):
            self._events.append((event, heard))

    def missed(self, topics: Container[str], pid: int, now_s: float) -> list[Event]:
        """Events of these topics, oldest first, for a process that says hello only now."""
        self._until_s = min(self._until_s, now_s + EARLY_S)
        if now_s >= self._until_s:
            self._events.clear()
        return [event for event, heard in self._events if wire_name(event) in topics and pid not in heard]
