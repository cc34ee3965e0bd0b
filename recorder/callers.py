"""Who asked for a recording to begin or end, and is answered when its file is there or closed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from control.client import Request
from control.messages import Reply
from recorder.order import Order


@dataclass(slots=True)
class Caller:
    """One request that waits for its answer."""

    request: Request
    order: Order | None
    """What was started or stopped; None: whatever comes next."""
    deadline_s: float

    def means(self, order: Order) -> bool:
        """Whether this is a file of what was asked for: further files of a recording begin at the same instant."""
        return self.order is None or self.order.start_ns == order.start_ns


class Callers:
    """Those who wait for the same kind of thing; one thread uses it."""

    def __init__(self, within_s: float) -> None:
        """`within_s`: how long one is kept waiting."""
        self._within_s = within_s
        self._waiting: list[Caller] = []

    def add(self, request: Request, order: Order | None) -> None:
        """Let one wait."""
        self._waiting.append(Caller(request, order, time.monotonic() + self._within_s))

    def answer(self, reply: Reply, of: Order | None = None) -> None:
        """Answer those who wait for this recording, or all."""
        for one in list(self._waiting):
            if of is None or one.means(of):
                self._waiting.remove(one)
                one.request.reply(reply)

    def hurry(self, order: Order, within_s: float) -> None:
        """Those who wait for this recording wait no longer than that."""
        for one in self._waiting:
            if one.means(order):
                one.deadline_s = min(one.deadline_s, time.monotonic() + within_s)

    def late(self) -> list[Caller]:
        """Those who have waited long enough; they wait no longer."""
        now_s = time.monotonic()
        late = [one for one in self._waiting if one.deadline_s < now_s]
        self._waiting = [one for one in self._waiting if one.deadline_s >= now_s]
        return late

    def orders(self) -> list[Order]:
        """What they wait for."""
        return [one.order for one in self._waiting if one.order is not None]
