"""What has to stay the same within one file."""

from __future__ import annotations

from dataclasses import dataclass

from recorder.planes import Picture
from shm_ring import Flags, FrameMeta

OTHER_RATE = 2.0
"""A frame period that differs by this factor is another mode: 30 fps by day, 0.5 fps at night."""
NIGHT = int(Flags.NIGHT)
"""A plain number: this is asked for every frame."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What must stay the same within one file."""

    picture: Picture
    night: bool
    period_us: int

    def goes_on(self, picture: Picture, meta: FrameMeta) -> bool:
        """Whether a frame, whose expected time to the next is known, fits into the same file."""
        period_us = meta.frame_duration_us
        return (
            picture == self.picture
            and bool(meta.flags & NIGHT) == self.night
            and self.period_us <= OTHER_RATE * period_us
            and period_us <= OTHER_RATE * self.period_us
        )


def mode_of(picture: Picture, meta: FrameMeta) -> Mode:
    """The mode of one frame, whose expected time to the next is known."""
    return Mode(picture, bool(meta.flags & NIGHT), meta.frame_duration_us)
