"""The clip that is being written: its file, what it was ordered for, and what is told of it in the end."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from recorder.clip import Track
from recorder.clip_file import ClipFile
from recorder.inbox import Item
from recorder.notices import Closed
from recorder.order import Order

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Present:
    """An open clip."""

    camera: str
    file: ClipFile
    order: Order
    """What the newest frame was ordered for: an event may mark the clip while it grows."""
    track: Track
    started_utc_ns: int

    def ends_with(self, item: Item, order: Order) -> str:
        """Why this frame belongs into another file; empty: it belongs into this one."""
        if order.number != self.order.number:
            return order.because
        return "the picture changed" if item.track != self.track else ""

    def closed(self, reason: str, *, intact: bool) -> Closed:
        """What became of it, for whoever waits for it; logged."""
        totals, place = self.file.totals, self.file.place
        kept = _is_there(place.clip)
        if not kept and _is_there(place.growing):
            reason += f"; what is whole stays in {place.growing.name} until the disk can be written"
        log.info(
            "recording ended path=%s reason=%s frames=%d drops=%d lost=%d duration_s=%.3f bytes=%d",
            *(place.clip, reason, totals.frames, totals.hardware_drops, totals.lost, totals.duration_s, totals.bytes),
        )
        timing = place.timing if _is_there(place.timing) else None
        return Closed(self.order, place.clip, timing, self.camera, self.started_utc_ns, totals, reason, intact, kept)


def _is_there(path: Path) -> bool:
    """Whether a file is there; a disk that does not answer has none."""
    try:
        return path.exists()
    except OSError:
        return False
