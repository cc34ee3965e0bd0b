"""Makes each event arrive once, although the hub may be killed at any instant: ids, and who has seen which.

A process sends its last events to each new connection once more, and a hub its own to each process that connects.
Whoever has seen an id of the same process with the same or a later time drops the event: messages of one process keep
their order on every way.
"""

from __future__ import annotations

from collections import deque

from shmcam.control.messages import Event, EventId, Heartbeat, Hello, PreviewFrame

RECENT_MAX = 64
"""Events that a process keeps to send them once more; the last seconds of a busy one."""

PROCESSES_MAX = 256
"""Processes whose last event is remembered; then the one that has been silent for longest is forgotten."""


class SeenEvents:
    """The last event id of each process."""

    def __init__(self) -> None:
        self._last_ns: dict[int, int] = {}

    def add(self, event_id: EventId) -> bool:
        """Remembers an id. Returns whether it is new."""
        sender, announced_ns = event_id
        last_ns = self._last_ns.pop(sender, 0)
        self._last_ns[sender] = max(last_ns, announced_ns)
        if len(self._last_ns) > PROCESSES_MAX:
            del self._last_ns[next(iter(self._last_ns))]
        return announced_ns > last_ns


class LastEvents:
    """The last events, each with its id, oldest first."""

    def __init__(self, max_count: int = RECENT_MAX) -> None:
        self._events: deque[tuple[EventId, Event]] = deque(maxlen=max_count)

    def add(self, event_id: EventId, event: Event) -> None:
        """Adds the newest event; the oldest is dropped when there are too many."""
        self._events.append((event_id, event))

    def since(self, announced_ns: int) -> list[tuple[EventId, Event]]:
        """Returns the events that were announced later than this monotonic time."""
        return [(event_id, event) for event_id, event in self._events if event_id[1] > announced_ns]


def has_id(event: Event) -> bool:
    """Returns whether events of this kind get an id: signs of life and previews are worth nothing later."""
    return not isinstance(event, Heartbeat | Hello | PreviewFrame)
