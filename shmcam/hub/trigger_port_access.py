"""Guards the TCP trigger port: its token, its rate limit, and what is logged about wrong tokens. No I/O."""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass, field

ADDRESSES_MAX = 256
"""Addresses in the rate limit's table; the one silent for longest is dropped first."""

TOKEN_WITHIN_S = 5.0
"""A connection must have shown its token within this time; bytes of half a line do not prolong it."""

WRONG_TOKEN_S = 1.0
"""The answer to a wrong token comes after this time."""

LOG_LINES_MAX = 5
LOG_WINDOW_S = 60.0
"""At most so many lines about wrong tokens in this time, of all addresses together."""

TOKEN_LINE_BYTES_MAX = 256
"""Longest first line, in bytes, while the token is awaited."""

BURST_S = 2.0
"""A quiet address saves up the commands of this time, in seconds at the rate."""


@dataclass
class RateLimit:
    """A token bucket per address, so that one cannot use up what another needs."""

    rate_per_s: float
    """Commands per second and address."""
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def admit(self, address: str, now_s: float) -> bool:
        """Counts one command of an address. Returns whether it is within the rate."""
        capacity = max(1.0, self.rate_per_s * BURST_S)
        level, last_s = self._buckets.pop(address, (capacity, now_s))
        level = min(capacity, level + (now_s - last_s) * self.rate_per_s)
        self._buckets[address] = (level - 1.0 if level >= 1.0 else level, now_s)
        if len(self._buckets) > ADDRESSES_MAX:
            del self._buckets[next(iter(self._buckets))]
        return level >= 1.0


@dataclass
class LogLimit:
    """Limits log lines, so that a flood cannot fill the log; the next line tells how many were left out."""

    _window_s: float = -math.inf
    """Begin of the present window."""
    _lines: int = 0
    _omitted: int = 0

    def admit(self, now_s: float) -> int | None:
        """Returns the number of lines left out before this one; None: this one is left out, too."""
        if now_s - self._window_s >= LOG_WINDOW_S:
            self._window_s, self._lines = now_s, 0
        if self._lines >= LOG_LINES_MAX:
            self._omitted += 1
            return None
        self._lines += 1
        omitted, self._omitted = self._omitted, 0
        return omitted


class TokenCheck:
    """The check of one connection: no byte passes before the first line was `token <the right one>`."""

    def __init__(self, token: str) -> None:
        """An empty token lets every byte pass."""
        self._token = token.encode()
        self._line = bytearray()
        self.is_passed = not token
        self.is_refused = False
        """True once a wrong token came."""

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they come; returns those that may go on to the decoder."""
        if self.is_passed or self.is_refused:
            return b"" if self.is_refused else data
        self._line += data
        line, newline, rest = bytes(self._line).partition(b"\n")
        if not newline:
            self.is_refused = len(line) > TOKEN_LINE_BYTES_MAX
            return b""
        word, _, token = line.strip().partition(b" ")
        # compare_digest: its duration must not tell how much of a wrong token was right
        self.is_passed = hmac.compare_digest(word, b"token") and hmac.compare_digest(token.strip(), self._token)
        self.is_refused = not self.is_passed
        self._line.clear()
        return rest if self.is_passed else b""
