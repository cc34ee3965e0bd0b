"""What waits for the thread that writes: in order, bounded, and in bundles while a backlog goes through.

A thread that is woken for each frame takes a core from the encoder 30 times a second, which nobody notices, or 300
times while a pre-roll is encoded, which costs a twentieth of its speed. So frames of a backlog wake it together.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass

from recorder.clip import Track
from recorder.encoder import AccessUnit

FRAMES = 600
"""20 s at 30 fps: an SD card that pauses for its garbage collection is back by then."""
BYTES = 32_000_000
"""What those frames may weigh; more, and the encoder waits, for which the ring has room."""
BUNDLE = 16
"""Frames of a backlog that wake the writer together."""
FULL_S = 0.02
"""How long a full inbox is waited for at a time."""


@dataclass(frozen=True, slots=True)
class Item:
    """One frame on its way to the disk."""

    unit: AccessUnit
    track: Track


@dataclass(frozen=True, slots=True)
class End:
    """The clip is over."""

    reason: str


class Inbox:
    """One thread puts, one takes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[Item | End]] = queue.SimpleQueue()
        self._bundle: list[Item | End] = []
        self._put = self._taken = 0  # frames; like the bytes, each is written by one thread only
        self._put_bytes = self._taken_bytes = 0

    def put(self, item: Item | End, *, more: bool) -> bool:
        """Hand over; `more`: the next frame is there already. Returns: False, after a short wait, if it is full."""
        if self.waiting >= FRAMES or self._put_bytes - self._taken_bytes > BYTES:
            self._send()
            time.sleep(FULL_S)
            return False
        self._add(item)
        if not more or len(self._bundle) >= BUNDLE or isinstance(item, End):
            self._send()
        return True

    def close(self, reason: str) -> None:
        """End the clip and, after all that waits, the taker's work."""
        self._add(End(reason))
        self._send()
        self._queue.put([])

    def items(self) -> Iterator[Item | End]:
        """Take one after the other, until closed; waits."""
        while bundle := self._queue.get():
            for item in bundle:
                self._taken += 1
                self._taken_bytes += _weight(item)
                yield item

    @property
    def waiting(self) -> int:
        """Frames that were not taken yet."""
        return self._put - self._taken

    def _add(self, item: Item | End) -> None:
        self._bundle.append(item)
        self._put += 1
        self._put_bytes += _weight(item)

    def _send(self) -> None:
        if self._bundle:
            self._queue.put(self._bundle)
            self._bundle = []


def _weight(item: Item | End) -> int:
    return item.unit.packet.size if isinstance(item, Item) else 0
