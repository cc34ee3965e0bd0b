"""The words of the exporter: replies in the wording of the user's first service. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exporter.frames import RingContents
from shm_ring import FrameMeta
from shmcam.control.messages import Reply, error
from shmcam.library import LibraryError, NoSuchEntry
from shmcam.library.entry import Entry
from shmcam.runtime.clock import iso

PATHS_SHOWN = 40
"""Paths in one reply; a message is at most 64 KiB, and the library lists the rest."""


@dataclass(frozen=True, slots=True)
class StackSummary:
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


@dataclass(frozen=True, slots=True)
class SavedFrame:
    """One frame that was saved, and what else there was."""

    camera: str
    """Camera name."""
    meta: FrameMeta
    """Of the frame."""
    held: RingContents | None
    """What the ring held; None where the wanted frame was waited for."""
    asked_ns: int
    """When the command came."""
    wanted_ns: int
    """The instant that was asked for."""

    @property
    def late(self) -> bool:
        """Whether the wanted instant was not in the ring any more (or never), so that this is the oldest frame."""
        return self.held is not None and self.held.lacks(self.wanted_ns)

    @property
    def gone(self) -> int:
        """About how many frames since the wanted instant had been overwritten."""
        return 0 if self.held is None else self.held.gone_since(self.wanted_ns)

    def data(self) -> dict[str, Any]:
        """For programs: the frame, and exactly what was available."""
        known = {
            "frame_id": self.meta.frame_id,
            "captured_ns": self.meta.captured_ns,
            "age_s": round(max(0.0, self.age_s(self.meta)), 6),
            "asked_age_s": round((self.asked_ns - self.wanted_ns) / 1e9, 6),
            "already_gone": self.gone,
        }
        if self.held is None:
            return known
        ends = {"first": self.held.first, "last": self.held.last}
        shown = {name: {"frame_id": meta.frame_id, "age_s": round(self.age_s(meta), 6)} for name, meta in ends.items()}
        return {**known, "available": self.held.frames, **shown}

    def age_s(self, meta: FrameMeta) -> float:
        """Seconds from capture to command."""
        return (self.asked_ns - meta.captured_ns) / 1e9

    def warning(self) -> str:
        """What people must know; empty where they got what they asked for."""
        asked_s = (self.asked_ns - self.wanted_ns) / 1e9
        return f"the oldest there is, {asked_s:g}s ago was asked for, already gone: {self.gone}" if self.late else ""


def saved(entries: Sequence[Entry], shot: SavedFrame) -> Reply:
    """Answer `save`; status "saved_oldest" where the wanted frame was no longer there."""
    timestamp = iso(entries[0].started_utc_ns)
    data = shot.data()
    details = [f"timestamp: {timestamp}", f"age: {data['age_s']:.3f}s", *filter(None, [shot.warning()])]
    return Reply(
        status="saved_oldest" if shot.late else "saved",
        text=f"Saved single full-resolution image: {_paths(entries)} ({', '.join(details)})",
        data={**files(entries), "camera": shot.camera, "timestamp": timestamp, **data},
    )


def snapshot(entries: Sequence[Entry], shots: Sequence[SavedFrame], missing: Sequence[str]) -> Reply:
    """Answer `snapshot`: one file per camera, and how far apart they are; "snapshot_oldest" as in `saved`."""
    times = [shot.meta.captured_ns for shot in shots]
    sync_error_ms = (max(times) - min(times)) / 1e6
    details = [f"timestamp: {iso(entries[0].started_utc_ns)}", f"sync error: {sync_error_ms:.3f} ms"]
    details += [f"{shot.camera}: {shot.warning()}" for shot in shots if shot.late]
    cameras = sorted(shot.camera for shot in shots)
    text = f"Saved snapshot of {len(cameras)} camera{'s' * (len(cameras) != 1)}: {_paths(entries)} "
    text += f"({', '.join(details)})"
    if missing:
        text += f" without {', '.join(missing)}: no frames"
    data = {
        **files(entries),
        "cameras": cameras,
        "missing": list(missing),
        "sync_error_ms": sync_error_ms,
        "frames": {shot.camera: shot.data() for shot in shots},
    }
    late = any(shot.late for shot in shots)
    return Reply(status="snapshot_oldest" if late else "snapshot_saved", text=text, data=data)


def past_stack(entries: Sequence[Entry], taken: StackSummary) -> Reply:
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


def refused(problem: ValueError | LibraryError) -> Reply:
    """Answer a wish that is not granted; the status tells whether it is wrong, of nothing there is, or not possible."""
    if isinstance(problem, NoSuchEntry):
        return error(str(problem), "not_found")
    return error(str(problem), "not_possible" if isinstance(problem, LibraryError) else "bad_arguments")


def not_saved(why: str) -> Reply:
    """Answer where there were frames, and the disk refused them."""
    return Reply(ok=False, status="not_saved", text=f"NOT_SAVED: {why}", data={"message": why})


def files(entries: Sequence[Entry]) -> dict[str, Any]:
    """Paths and row numbers of what was saved; 0: not in the library yet."""
    shown = entries[:PATHS_SHOWN]
    return {
        "path": str(entries[0].path),
        "paths": [str(entry.path) for entry in shown],
        "ids": [entry.id for entry in shown],
        "files": len(entries),
    }


def place(entry: Entry) -> str:
    """Where a saved file is, and whether its row is missing yet."""
    return f"{entry.path}{'' if entry.id else ' (not in the library yet)'}"


def _paths(entries: Sequence[Entry]) -> str:
    shown = ", ".join(map(place, entries[:PATHS_SHOWN]))
    more = len(entries) - PATHS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
