"""A disk that refuses: how long to wait before the next try, and how often to say so."""

from __future__ import annotations

import logging
import re
import time

from service.retry import Backoff

log = logging.getLogger(__name__)

SAY_AGAIN_S = 60.0
"""The same trouble is logged once a minute."""
_NUMBERS = re.compile(r"\d+")


class Patience:
    """State of one writer's luck."""

    def __init__(self) -> None:
        self.trouble = ""
        """Why nothing can be written; empty: it can."""
        self._backoff, self._retry_s, self._said_s = Backoff(), 0.0, 0.0

    @property
    def over(self) -> bool:
        """Whether it is time to try (again)."""
        return time.monotonic() >= self._retry_s

    def suffered(self, reason: str, unwritten: int) -> bool:
        """Note a refusal. Returns: whether this is news."""
        now_s, news = time.monotonic(), _without_numbers(reason) != _without_numbers(self.trouble)
        self._retry_s = now_s + self._backoff.delay_s()
        if news or now_s - self._said_s > SAY_AGAIN_S:
            log.error("not recording reason=%s unwritten=%d", reason, unwritten)
            self._said_s = now_s
        self.trouble = reason
        return news

    def relieved(self, unwritten: int) -> bool:
        """Note that a file could be opened. Returns: whether there was trouble before."""
        self._backoff.reset()
        reason, self.trouble = self.trouble, ""
        if reason:
            log.info("recording again after reason=%s unwritten=%d", reason, unwritten)
        return bool(reason)


def _without_numbers(reason: str) -> str:
    """How many MB are missing, or how long the name is that was tried, makes no other trouble of it."""
    return _NUMBERS.sub("", reason)
