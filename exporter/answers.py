"""The words of the exporter: replies in the wording of the user's first service. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control.messages import Reply
from library.entry import Entry
from service.clock import iso

PATHS_SHOWN = 40
"""Paths in one reply; a message is at most 64 KiB, and the library lists the rest."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What pastStack found and used."""

    camera: str
    """Camera name."""
    method: str
    """How, or "separate"."""
    used: int
    """Frames in the result."""
    available: int
    """Frames of the span that the ring held."""
    gone: int
    """Frames of the span that had been overwritten already, as far as can be told."""
    left_out: int
    """Frames of another size, or that could not be aligned."""
    first: tuple[int, float]
    """Frame id and age in seconds of the first frame used."""
    last: tuple[int, float]
    """The same of the last."""


def saved(entries: Sequence[Entry], camera: str, frame_id: int, captured_ns: int, age_s: float) -> Reply:
    """Answer `save`."""
    timestamp = iso(entries[0].started_utc_ns)
    return Reply(
        status="saved",
        text=f"Saved single full-resolution image: {_paths(entries)} (timestamp: {timestamp}, age: {age_s:.3f}s)",
        data={
            **files(entries),
            "camera": camera,
            "frame_id": frame_id,
            "captured_ns": captured_ns,
            "timestamp": timestamp,
            "age_s": round(age_s, 6),
        },
    )


def snapshot(entries: Sequence[Entry], sync_error_ms: float, missing: Sequence[str]) -> Reply:
    """Answer `snapshot`: one file per camera, and how far apart they are."""
    cameras = sorted({entry.camera for entry in entries})
    text = (
        f"Saved snapshot of {len(cameras)} camera{'s' * (len(cameras) != 1)}: {_paths(entries)} "
        f"(timestamp: {iso(entries[0].started_utc_ns)}, sync error: {sync_error_ms:.3f} ms)"
    )
    if missing:
        text += f" without {', '.join(missing)}: no frames"
    data = {**files(entries), "cameras": cameras, "missing": list(missing), "sync_error_ms": sync_error_ms}
    return Reply(status="snapshot_saved", text=text, data=data)


def past_stack(entries: Sequence[Entry], taken: Taken) -> Reply:
    """Answer `pastStack`: exactly what was available and what became of it."""
    if taken.method == "separate":
        what = f"Saved {taken.used} image{'s' * (taken.used != 1)}"
    else:
        what = f"Saved stack of {taken.used} frame{'s' * (taken.used != 1)}"
    details = [
        f"method: {taken.method}",
        f"count: {taken.used}",
        f"first: f{taken.first[0]} age: {taken.first[1]:.3f}s",
        f"last: f{taken.last[0]} age: {taken.last[1]:.3f}s",
        f"available: {taken.available}",
        f"already gone: {taken.gone}",
    ]
    if taken.left_out:
        details.append(f"left out: {taken.left_out}")
    return Reply(
        status="stack_saved",
        text=f"{what}: {_paths(entries)} ({', '.join(details)})",
        data={
            **files(entries),
            "camera": taken.camera,
            "method": taken.method,
            "count": taken.used,
            "available": taken.available,
            "already_gone": taken.gone,
            "left_out": taken.left_out,
            "first": {"frame_id": taken.first[0], "age_s": round(taken.first[1], 6)},
            "last": {"frame_id": taken.last[0], "age_s": round(taken.last[1], 6)},
        },
    )


def no_frames(camera: str, why: str) -> Reply:
    """Answer where the ring has nothing to save."""
    return Reply(
        ok=False, status="no_frames", text=f"NO_FRAMES: {camera}: {why}", data={"camera": camera, "message": why}
    )


def not_saved(why: str) -> Reply:
    """Answer where there were frames, and the disk refused them."""
    return Reply(ok=False, status="not_saved", text=f"NOT_SAVED: {why}", data={"message": why})


def files(entries: Sequence[Entry]) -> dict[str, Any]:
    """Paths and row numbers of what was saved."""
    shown = entries[:PATHS_SHOWN]
    return {
        "path": str(entries[0].path),
        "paths": [str(entry.path) for entry in shown],
        "ids": [entry.id for entry in shown],
        "files": len(entries),
    }


def _paths(entries: Sequence[Entry]) -> str:
    shown = ", ".join(str(entry.path) for entry in entries[:PATHS_SHOWN])
    more = len(entries) - PATHS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
