"""The two things that want frames, as `Triggers` keeps them: a session, an event."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from recorder.order import NS, Order

CLOCK_STEP_NS = 2 * NS
"""So far must the wall clock go from where it was when a file began, for another file to begin: NTP slews by less in
an hour (500 ppm), and a name or a time in the CSV that is off by less misleads nobody."""

CLOCK_SET = "the clock was set"


@dataclass(slots=True)
class Wanted:
    """What sessions and events have in common: an order, of which there may be several files."""

    order: Order
    _offset_ns: int | None = field(default=None, init=False)
    """Wall clock minus sensor clock when the present file began."""

    def next_file(self, number: int, because: str, offset_ns: int | None) -> None:
        """A frame with this offset begins another file."""
        self.order = replace(self.order, number=number, because=because)
        self._offset_ns = offset_ns

    def clock_stepped(self, offset_ns: int | None) -> bool:
        """Whether a frame with this offset (None: unknown) has another wall clock than its file began with."""
        if self._offset_ns is None:
            self._offset_ns = offset_ns
        return offset_ns is not None and self._offset_ns is not None and _far(offset_ns, self._offset_ns)


def _far(one_ns: int, other_ns: int) -> bool:
    return abs(one_ns - other_ns) >= CLOCK_STEP_NS


@dataclass(slots=True)
class Session(Wanted):
    """Somebody said start."""

    stop_ns: int
    file_start_ns: int = -1
    mark: Order | None = None
    """What frames of the present file are ordered for since an event fell into it."""

    def marked_by(self, event: Order | None) -> Order:
        """The order of a frame that this event wants, too; it counts for the rest of the file. None: no event does."""
        if event is not None:
            known = self.mark or self.order
            told = known.marked(event.trigger, event.label, event.protect)
            self.mark = known if told == known else told  # frames that are ordered for the same have the same order
        return self.mark or self.order


@dataclass(slots=True)
class Event(Wanted):
    """Something happened."""

    end_ns: int
    """When it is over, if nothing lasts."""
    latest_ns: int
    """When it is cut off."""
    lasting: dict[str, int] = field(default_factory=dict)
    """Sources that have begun and not ended, and when they began."""

    def holds(self, start_ns: int, at_ns: int) -> bool:
        """Whether what happens then, and is wanted from `start_ns` on, is part of this: it touches, and is in time."""
        return at_ns < self.latest_ns and (bool(self.lasting) or start_ns <= self.end_ns)

    def prolong(self, end_ns: int) -> None:
        """It is over then at the earliest, but never after it is cut off."""
        self.end_ns = min(max(self.end_ns, end_ns), self.latest_ns)
