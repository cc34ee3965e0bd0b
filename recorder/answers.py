"""How the recorder answers: text for people, the same as data for programs."""

from __future__ import annotations

from pathlib import Path

from control.messages import Reply, error
from recorder.notices import Closed, Opened
from recorder.order import Order


def started_reply(opened: Opened, notes: list[str]) -> Reply:
    """The answer to start and trigger: the file is there."""
    text = "; ".join([f"recording {opened.path} from frame {opened.frame_id}", *notes])
    data = {
        "file": str(opened.path),
        "frame_id": opened.frame_id,
        "captured_ns": opened.captured_ns,
        "notes": notes,
    }
    return Reply(status="recording_started", text=text, data=data)


def stopped_reply(closed: Closed) -> Reply:
    """The answer to stop."""
    totals = closed.totals
    if not closed.kept:
        text = f"ERROR: no file of the recording was kept: {closed.reason}"
        return Reply(ok=False, status="recording_stopped", text=text, data=data_of(closed))
    text = (
        f"recorded {closed.path} frames={totals.frames} drops={totals.drops} lost={totals.lost}"
        f" duration_s={totals.duration_s:.3f} bytes={totals.bytes}"
    )
    if not closed.intact:
        text = f"ERROR: cut short: {closed.reason}; {text}"
    return Reply(ok=closed.intact, status="recording_stopped", text=text, data=data_of(closed))


def data_of(closed: Closed) -> dict[str, object]:
    """All that is known of a closed clip."""
    totals = closed.totals
    return {
        "file": str(closed.path) if closed.kept else "",
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


def unfinished_reply(current: tuple[Order, Path, int, int] | None, waiting: int, trouble: str) -> Reply:
    """The answer to a stop whose last file was not closed in time, if it ever was opened."""
    if current is not None:
        _, path, frames, _ = current
        text = f"stopped; {path} is still being written"
        return Reply(status="recording_stopped", text=text, data={"file": str(path), "frames": frames})
    if waiting:
        return Reply(status="recording_stopped", text="stopped; its frames still wait for the disk")
    if trouble:
        return error(f"stopped; nothing was written: {trouble}", "recording_stopped")
    return Reply(status="recording_stopped", text="stopped; nothing was written")


def recording_reply(current: tuple[Order, Path, int, int]) -> Reply:
    """The answer to status: frames go into a file."""
    order, path, frames, drops = current
    text = f"RECORDING file={path} frames={frames} drops={drops} trigger={order.trigger}"
    data = {"file": str(path), "frames": frames, "drops": drops, "trigger": order.trigger}
    return Reply(status="recording", text=text, data={"recording": True, **data})


def waiting_reply(trouble: str, unwritten: int) -> Reply:
    """The answer to status: frames should go into a file, but do not."""
    reason = trouble or "no frame has come yet"
    text = f"{'ERROR: ' if trouble else ''}WAITING reason={reason} unwritten={unwritten}"
    data = {"recording": False, "reason": reason, "unwritten": unwritten}
    return Reply(ok=not trouble, status="waiting", text=text, data=data)


def idle_reply(last: Closed | None) -> Reply:
    """The answer to status: no frame is wanted."""
    if last is None:
        return Reply(status="idle", text="IDLE", data={"recording": False})
    text = f"IDLE last={last.path} frames={last.totals.frames} drops={last.totals.drops}"
    if not last.kept:
        text = f"IDLE last=(not kept: {last.reason})"
    return Reply(status="idle", text=text, data={"recording": False, **data_of(last)})
