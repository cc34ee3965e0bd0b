"""The messages for the broker: topics with their wanted retained payloads, and a bounded queue of events. Pure.

A retained topic has one wanted payload; a newer one takes the place of one that was not sent yet, so a slow broker
costs no memory. After each new connection everything retained is sent again. Events are sent in their order and leave
the queue once the broker has confirmed them (MQTT QoS 1): at least once.
"""

from __future__ import annotations

import contextlib
from collections import deque

from msgspec import Struct


class Outgoing(Struct, frozen=True):
    """A message for the broker."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    correlation: bytes | None = None
    """The caller's correlation data, in an answer (MQTT 5)."""


REPLIES_MAX = 256
"""Answers that wait for the connection at most; they end with it, as the callers have given up."""

STRAYS_MAX = 1000
"""Topics of earlier runs removed at most, four for each of 250 cameras: a broker may send ever new ones."""


class Outbox:
    """See the module."""

    def __init__(self, queue_max: int) -> None:
        """`queue_max`: events in the queue at most; then the oldest is dropped and counted."""
        self._retained: dict[str, Outgoing] = {}
        self._unsent: dict[str, None] = {}
        """The retained topics to send, in the order of their changes."""
        self._events: deque[Outgoing] = deque()
        self._replies: deque[Outgoing] = deque(maxlen=REPLIES_MAX)
        self._queue_max = queue_max
        self._strays = 0
        """Topics removed that were not wanted by this run."""
        self.lost = 0
        """Events dropped since the start."""
        self.published = 0
        """Events that the broker confirmed."""

    def __len__(self) -> int:
        """The number of events in the queue."""
        return len(self._events)

    def set(self, topic: str, payload: bytes, *, qos: int = 1) -> bool:
        """Sets the wanted payload of a retained topic. Returns: whether it is another one."""
        wanted = Outgoing(topic, payload, qos, retain=True)
        if self._retained.get(topic) == wanted:
            return False
        self._retained[topic] = wanted
        self._unsent[topic] = None
        return True

    def remove(self, topic: str) -> bool:
        """Removes a retained topic at the broker, also one that an earlier run of ours left.

        Returns: False if so many of the latter were removed already that they cannot be ours.
        """
        if self._retained.pop(topic, None) is None:
            if self._strays >= STRAYS_MAX:
                return False
            self._strays += 1
        self._unsent[topic] = None
        return True

    def holds(self, topic: str) -> bool:
        """Tells whether a retained topic is wanted."""
        return topic in self._retained

    def list_topics(self) -> list[str]:
        """Returns the wanted retained topics."""
        return list(self._retained)

    def renew(self) -> None:
        """Has everything retained sent again, in the order of its first appearance."""
        self._unsent = dict.fromkeys([*self._unsent, *self._retained])

    def begin_connection(self) -> None:
        """Has everything retained sent again, and forgets the answers for callers of the connection before."""
        self.renew()
        self._replies.clear()

    def take_retained(self, qos: int = 1) -> Outgoing | None:
        """Takes the next retained message of a QoS to send; None: all are sent. A new connection renews everything."""
        for topic in self._unsent:
            # an empty payload removes it: MQTT 3.3.1
            message = self._retained.get(topic) or Outgoing(topic, b"", retain=True)
            if message.qos == qos:
                del self._unsent[topic]
                return message
        return None

    def add_reply(self, reply: Outgoing) -> None:
        """Adds an answer."""
        self._replies.append(reply)

    def take_replies(self) -> list[Outgoing]:
        """Takes all answers."""
        replies = list(self._replies)
        self._replies.clear()
        return replies

    def add_event(self, topic: str, payload: bytes) -> None:
        """Adds an event; beyond the limit the oldest is dropped and counted."""
        if len(self._events) >= self._queue_max:
            self._events.popleft()
            self.lost += 1
        self._events.append(Outgoing(topic, payload))

    def list_events(self, count: int) -> list[Outgoing]:
        """Returns the oldest events, which stay in the queue until each is confirmed."""
        return [self._events[index] for index in range(min(count, len(self._events)))]

    def drop(self, event: Outgoing) -> None:
        """Removes and counts an event that the broker cannot take."""
        with contextlib.suppress(ValueError):
            self._events.remove(event)
            self.lost += 1

    def confirm(self, event: Outgoing) -> None:
        """Removes an event that the broker has; one dropped meanwhile is gone already."""
        with contextlib.suppress(ValueError):
            self._events.remove(event)
            self.published += 1
