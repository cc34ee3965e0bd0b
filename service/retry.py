"""How long to wait before trying again: 1, 2, 4 … 30 s, for cameras, peers and disks that are away."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Doubling delays with an upper limit; `reset()` after a success."""

    first_s: float = 1.0
    limit_s: float = 30.0
    _next_s: float = field(default=0.0, init=False)

    def delay_s(self) -> float:
        """The wait before the next try; each call doubles the one after."""
        delay = self._next_s or self.first_s
        self._next_s = min(delay * 2, self.limit_s)
        return delay

    def reset(self) -> None:
        """Start again from the first delay."""
        self._next_s = 0.0
