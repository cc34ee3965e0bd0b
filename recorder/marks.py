"""What events made of clips outlives the process: their span, trigger, label and protection.

A video says in its metadata what it was ordered for when it began. What an event made of it later is known to the
process alone until the library has the closed file; so the newest events are noted in a file, and a recorder that
adopts a clip looks there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from recorder.memory import boot_id
from recorder.notices import Closed
from recorder.order import Order
from recorder.wanted import Event
from service.files import whole_file

log = logging.getLogger(__name__)

KEPT = 32
"""Events that are remembered, protecting ones first; clips that nobody lived to file are few, and the newest."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One event. Times are the sensor's."""

    start_ns: int
    """First instant that it wants; no other event has the same."""
    end_ns: int
    """When it is over, if nothing lasts."""
    latest_ns: int
    """When it is cut off."""
    trigger: str
    utc_ns: int
    label: str
    protect: bool
    lasting: dict[str, int]
    """What had begun and not ended, and when it began."""

    @classmethod
    def of(cls, event: Event) -> Mark:
        """An event as it is now."""
        order = event.order
        return cls(
            start_ns=order.start_ns,
            end_ns=event.end_ns,
            latest_ns=event.latest_ns,
            trigger=order.trigger,
            utc_ns=order.utc_ns,
            label=order.label,
            protect=order.protect,
            lasting=dict(event.lasting),
        )

    @property
    def until_ns(self) -> int:
        """No frame from then on is wanted."""
        return self.latest_ns if self.lasting else self.end_ns

    def event(self, at_ns: int) -> Event:
        """What is left of it from then on."""
        order = Order(0, "event", self.trigger, at_ns, self.utc_ns, self.label, self.protect)
        return Event(order, self.end_ns, self.latest_ns, dict(self.lasting))


@dataclass(frozen=True, slots=True)
class _Noted:
    boot: str
    """The sensor's clock means nothing after another boot."""
    marks: list[Mark]


class Marks:
    """The file of one camera, in the run folder. The loop's thread notes; any may ask."""

    def __init__(self, path: Path) -> None:
        """Look at what a recorder before us has noted; what is of another boot is for its leftovers, and goes."""
        self._path, self._boot = path, boot_id()
        self._marks: tuple[Mark, ...] = ()
        """Oldest first; replaced as a whole, so that no lock is needed."""
        self._ours = True
        with suppress(OSError, msgspec.DecodeError):
            noted = msgspec.json.decode(path.read_bytes(), type=_Noted)
            self._marks, self._ours = tuple(noted.marks), noted.boot == self._boot
        if not self._ours:
            with suppress(OSError):
                path.unlink()

    def keep(self, events: Sequence[Event]) -> None:
        """Note the events that are on. Not synced: the loop waits for no disk."""
        news = [mark for mark in map(Mark.of, events) if mark not in self._marks]
        if not news:
            return
        known = {mark.start_ns: mark for mark in self._marks if self._ours} | {mark.start_ns: mark for mark in news}
        kept = sorted(known.values(), key=lambda mark: (mark.protect, mark.start_ns))[-KEPT:]
        self._marks, self._ours = tuple(sorted(kept, key=lambda mark: mark.start_ns)), True
        try:
            with whole_file(self._path, replace=True, durable=False) as file:
                file.write(json.dumps(asdict(_Noted(self._boot, list(self._marks)))).encode())
        except OSError as error:
            log.warning("a restart would not know what this event marked reason=%s", error)

    def going_on(self, at_ns: int) -> Event | None:
        """What is left of the newest event at an instant of this boot; where its mark ends, another will begin."""
        newest = self._marks[-1] if self._marks and self._ours else None
        if newest is None or newest.until_ns <= at_ns:
            return None
        self._marks = (*self._marks[:-1], replace(newest, end_ns=at_ns, latest_ns=at_ns, lasting={}))
        return newest.event(at_ns)

    def onto(self, adopted: Closed) -> Closed:
        """A clip that was known by its bytes alone, with what events made of it."""
        order = adopted.order
        for mark in self._in(adopted):
            order = order.marked(mark.trigger, mark.label, mark.protect)
        return replace(adopted, order=order)

    def _in(self, adopted: Closed) -> Sequence[Mark]:
        first_ns, last_ns = adopted.totals.first_ns, adopted.totals.last_ns
        fallen = [mark for mark in self._marks if mark.start_ns <= last_ns and first_ns < mark.until_ns]
        if adopted.order.kind != "event":
            return fallen
        # A clip of its own begins in its event; the next one may only have its pre-roll in it.
        return [mark for mark in fallen if mark.start_ns <= first_ns][-1:]
