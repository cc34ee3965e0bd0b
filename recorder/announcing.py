"""What everybody is told of what the recorder's threads have done."""

from __future__ import annotations

from control.messages import ClipClosed, Event, Failed, RecordingStarted, RecordingStopped
from recorder.notices import Closed, Filed, Notice, Opened, Trouble


def event_of(camera: str, notice: Notice) -> Event | None:
    """The event that a notice is worth; None: it is nobody else's business."""
    match notice:
        case Opened(order=order, path=path, frame_id=frame_id):
            return RecordingStarted(camera=camera, path=str(path), trigger=order.trigger, frame_id=frame_id)
        case Closed(path=path, totals=totals, reason=reason):
            return RecordingStopped(
                camera=camera, path=str(path), frames=totals.frames, drops=totals.drops, reason=reason[:300]
            )
        case Filed(closed=closed, bytes=size):
            return ClipClosed(
                camera=camera,
                path=str(closed.path),
                frames=closed.totals.frames,
                drops=closed.totals.drops,
                reason=closed.reason[:300],
                duration_s=closed.totals.duration_s,
                bytes=size,
            )
        case Trouble(reason=reason) if reason:
            return Failed(what=f"not recording: {reason}"[:500], camera=camera)
    return None
