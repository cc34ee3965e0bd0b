"""Who may use the TCP trigger port, and how fast: token and rate limit. No I/O."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

ADDRESSES_MAX = 256
"""Addresses remembered; the one not heard of for longest is forgotten first."""

TOKEN_LINE_MAX = 256
"""Longest first line while the token is awaited."""

BURST_S = 2.0
"""Commands saved up while an address is quiet: rate times this."""


@dataclass
class RateLimit:
    """A token bucket per address, so that one cannot use up what another needs."""

    per_s: float
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def allows(self, address: str, now_s: float) -> bool:
        """Count one command of an address; tell whether it is within the rate."""
        full = max(1.0, self.per_s * BURST_S)
        left, last_s = self._buckets.pop(address, (full, now_s))
        left = min(full, left + (now_s - last_s) * self.per_s)
        self._buckets[address] = (left - 1.0 if left >= 1.0 else left, now_s)
        if len(self._buckets) > ADDRESSES_MAX:
            del self._buckets[next(iter(self._buckets))]
        return left >= 1.0


class TokenGate:
    """Holds a connection's bytes back until its first line was `token <the right one>`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._line = bytearray()
        self.open = not token
        self.refused = False

    def feed(self, data: bytes) -> bytes:
        """Return what may go on to the decoder; sets `refused` when the token is wrong."""
        if self.open or self.refused:
            return b"" if self.refused else data
        self._line += data
        line, newline, rest = bytes(self._line).partition(b"\n")
        if not newline:
            self.refused = len(line) > TOKEN_LINE_MAX
            return b""
        word, _, given = line.strip().partition(b" ")
        # compare_digest: how long a wrong token takes must not tell how much of it was right
        self.open = hmac.compare_digest(word, b"token") and hmac.compare_digest(given.strip(), self._token)
        self.refused = not self.open
        self._line.clear()
        return rest if self.open else b""
