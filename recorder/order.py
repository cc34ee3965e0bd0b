"""What a clip is wanted for, and the user's limits in the sensor's unit of time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from library.entry import ORDINARY_TRIGGERS
from recorder.names import Kind
from recorder.settings import RecorderSettings

NS = 1_000_000_000
FOREVER = 1 << 62
NEXT_FILE = "next file"


@dataclass(frozen=True, slots=True)
class Order:
    """One clip that is wanted. A frame whose order has another `number` than the one before begins another file."""

    number: int
    kind: Kind
    trigger: str
    """manual, auto, rolling, motion, night, command."""
    start_ns: int
    """First instant that is wanted."""
    utc_ns: int
    """Wall clock when the recording, of which this may be the n-th file, was asked for: names its folder."""
    label: str = ""
    protect: bool = False
    because: str = NEXT_FILE
    """Why this file begins, and the one before it ends."""

    def marked(self, trigger: str, label: str, protect: bool) -> Order:
        """The same clip once an event fell into it: retention takes it last, or never. What it is stays."""
        return replace(
            self,
            trigger=trigger if self.trigger in ORDINARY_TRIGGERS else self.trigger,
            label=self.label or label,
            protect=self.protect or protect,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """The user's numbers, in ns."""

    pre_ns: int
    post_ns: int
    event_ns: int
    """Longest event, post-roll included."""
    rolling_ns: int
    session_ns: int
    """Longest single file of a session."""

    @classmethod
    def of(cls, settings: RecorderSettings) -> Limits:
        """The user's keys."""
        return cls(
            int(settings.pre_roll_s * NS),
            int(settings.post_roll_s * NS),
            int(settings.max_event_s * NS),
            int(settings.recording_duration_minutes * 60 * NS),
            int(settings.max_file_minutes * 60 * NS),
        )
