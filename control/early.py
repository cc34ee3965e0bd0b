"""What was announced in a hub's first seconds, for those who come back to it later than the sender. No I/O.

When a hub is killed its processes connect again within a second, one after the other. What the first of them had to
tell meanwhile must reach the last of them, too: a recorder must not miss that night began.
"""

from __future__ import annotations

import math
from collections.abc import Container

from control.messages import Event, Heartbeat, PreviewFrame, wire_name

EARLY_S = 3.0
"""Twice what all processes need to come back on a busy machine; counted from the first hello."""
EVENTS_MAX = 64
"""A flood in these seconds is passed on, but not kept."""


class Early:
    """The events of one hub's beginning."""

    def __init__(self) -> None:
        self._until_s = math.inf
        self._events: list[Event] = []

    def note(self, event: Event, now_s: float) -> None:
        """Keep what is being passed on, if it is early; moving pictures and signs of life are worth nothing later."""
        if now_s < self._until_s and len(self._events) < EVENTS_MAX and not isinstance(event, Heartbeat | PreviewFrame):
            self._events.append(event)

    def missed(self, topics: Container[str], now_s: float) -> list[Event]:
        """Events of these topics, for a process that says hello only now."""
        self._until_s = min(self._until_s, now_s + EARLY_S)
        if now_s >= self._until_s:
            self._events.clear()
        return [event for event in self._events if wire_name(event) in topics]
