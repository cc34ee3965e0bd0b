"""How many connections there may be, in all and from one peer; when full, the longest idle one makes room."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from streamer.stall import Stall


class Place(Protocol):
    """An open connection, as the table sees it."""

    @property
    def peer(self) -> str:
        """Address of the other end."""

    @property
    def requests(self) -> int:
        """Requests being answered just now; none: the connection is idle."""

    def reset(self) -> None:
        """End it at once."""

    def force_close(self) -> None:
        """End it once what was written is out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost."""

    connections: int
    per_peer: int
    header_s: float
    body_s: float
    write_s: float
    send_buffer_bytes: int


@dataclass(slots=True)
class ConnectionCounts:
    """What happened since start; shown in /metrics."""

    accepted: int = 0
    refused: int = 0
    """Turned away because every place was taken."""
    evicted: int = 0
    """Idle ones closed to make room."""
    reset: int = 0
    """Peers that did not take their bytes in time."""


class Connections:
    """All open connections."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counts = ConnectionCounts()
        self.open: dict[Place, None] = {}  # in the order they came
        self._per_peer: dict[str, int] = {}

    def admit(self, connection: Place) -> bool:
        """Take a new connection in, if need be in place of the longest idle one."""
        peer = connection.peer
        crowded = not _local(peer) and self._per_peer.get(peer, 0) >= self.limits.per_peer
        if crowded or (len(self.open) >= self.limits.connections and not self._make_room()):
            self.counts.refused += 1
            return False
        self.open[connection] = None
        self._per_peer[peer] = self._per_peer.get(peer, 0) + 1
        self.counts.accepted += 1
        return True

    def forget(self, connection: Place) -> None:
        """A connection is gone."""
        if connection in self.open:
            del self.open[connection]
            left = self._per_peer[connection.peer] - 1
            self._per_peer[connection.peer] = left
            if not left:
                del self._per_peer[connection.peer]

    def replace(self, connection: Place, successor: Place) -> None:
        """Somebody else goes on with a connection, in the same place."""
        del self.open[connection]
        self.open[successor] = None

    def stalled(self, transport: asyncio.Transport) -> Stall:
        """A peer takes no more: begin to watch it."""
        return Stall(transport, self.limits.write_s, self._was_reset)

    def _was_reset(self) -> None:
        self.counts.reset += 1

    def _make_room(self) -> bool:
        idle = next((one for one in self.open if not one.requests), None)
        if idle is None:
            return False
        self.forget(idle)
        self.counts.evicted += 1
        idle.reset()
        return True


def _local(peer: str) -> bool:
    return peer.startswith("127.") or peer in {"::1", "?"}
