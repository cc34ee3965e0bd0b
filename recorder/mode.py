"""What has to stay the same within one file."""

from __future__ import annotations

from dataclasses import dataclass

from imaging.formats import Geometry
from recorder.planes import Picture, picture_of
from shm_ring import Flags, FrameMeta

OTHER_RATE = 2.0
"""A frame period that differs by this factor is another mode: 30 fps by day, 0.5 fps at night."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What must stay the same within one file."""

    picture: Picture
    night: bool
    period_us: int

    def goes_on(self, other: Mode) -> bool:
        """Whether frames of the other mode fit into the same file."""
        low, high = sorted((self.period_us, other.period_us))
        return self.picture == other.picture and self.night == other.night and high <= OTHER_RATE * low


def mode_of(geometry: Geometry, meta: FrameMeta) -> Mode:
    """The mode of one frame, whose expected time to the next is known."""
    return Mode(picture_of(geometry), bool(meta.flags & Flags.NIGHT), meta.frame_duration_us)
