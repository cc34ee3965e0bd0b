"""How the recorder answers: text for people, the same as data for programs."""

from __future__ import annotations

from control.messages import Reply
from recorder.notices import Closed


def stopped(closed: Closed) -> Reply:
    """The answer to stop."""
    totals = closed.totals
    text = (
        f"recorded {closed.path} frames={totals.frames} drops={totals.drops} lost={totals.lost}"
        f" duration_s={totals.duration_s:.3f} bytes={totals.bytes}"
    )
    return Reply(ok=closed.intact, status="recording_stopped", text=text, data=data_of(closed))


def data_of(closed: Closed) -> dict[str, object]:
    """All that is known of a closed clip."""
    totals = closed.totals
    return {
        "file": str(closed.path),
        "frames": totals.frames,
        "first_frame": totals.first_frame,
        "last_frame": totals.last_frame,
        "drops": totals.drops,
        "hardware_drops": totals.hardware_drops,
        "lost": totals.lost,
        "duration_s": totals.duration_s,
        "bytes": totals.bytes,
        "reason": closed.reason,
    }
