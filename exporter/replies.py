"""Composes the exporter's replies, in the wording of the user's first service. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exporter.ring_frames import RingContents
from exporter.stacking.dark_frames import NO_DARK, DarkChoice
from shm_ring import FrameMeta
from shmcam.control.messages import Reply, error
from shmcam.library import LibraryError, NoSuchEntry
from shmcam.library.entry import Entry
from shmcam.runtime.clock import to_iso

PATHS_SHOWN = 40
"""The most paths in one reply; a message is at most 64 KiB, and the library lists the rest."""


@dataclass(frozen=True, slots=True)
class StackSummary:
    """The frames that pastStack found and used."""

    camera: str
    """The camera's name."""
    method: str
    """A method of stacking, or "separate"."""
    used: int
    """The number of frames in the result."""
    available: int
    """The number of frames of the span that the ring held."""
    overwritten: int
    """The estimated number of frames of the span that had been overwritten already."""
    left_out: int
    """The number of frames of another size, or that could not be aligned."""
    first: tuple[int, float]
    """The frame id and age in seconds of the first frame used."""
    last: tuple[int, float]
    """The frame id and age in seconds of the last frame used."""
    least: int = 0
    """The number of frames for which the command reached back beyond its span; 0: the span as it was."""

    dark: DarkChoice = NO_DARK
    """The dark frame that was subtracted, or why none was."""

    @property
    def span_s(self) -> float:
        """The time from the first to the last frame used."""
        return self.first[1] - self.last[1]


@dataclass(frozen=True, slots=True)
class SavedFrame:
    """One saved frame, and the frames that the ring held."""

    camera: str
    """The camera's name."""
    meta: FrameMeta
    """The frame's metadata."""
    contents: RingContents | None
    """The frames in the ring; None where the command waited for the next frame."""
    received_ns: int
    """The instant when the command came, sensor clock."""
    target_ns: int
    """The instant that the command asks for, sensor clock."""

    @property
    def is_late(self) -> bool:
        """True where the ring did not reach back to the instant (any more), so that this is its oldest frame."""
        return self.contents is not None and self.contents.begins_after(self.target_ns)

    @property
    def overwritten(self) -> int:
        """The estimated number of frames since the instant that had been overwritten."""
        return 0 if self.contents is None else self.contents.count_overwritten_since(self.target_ns)

    def to_data(self) -> dict[str, Any]:
        """Returns the fields for programs: the frame, and exactly what was available."""
        data = {
            "frame_id": self.meta.frame_id,
            "captured_ns": self.meta.captured_ns,
            "age_s": round(max(0.0, self.age_s_of(self.meta)), 6),
            "asked_age_s": round((self.received_ns - self.target_ns) / 1e9, 6),
            "already_gone": self.overwritten,
        }
        if self.contents is None:
            return data
        ends = {"first": self.contents.first, "last": self.contents.last}
        shown = {
            name: {"frame_id": meta.frame_id, "age_s": round(self.age_s_of(meta), 6)} for name, meta in ends.items()
        }
        return {**data, "available": self.contents.frames, **shown}

    def age_s_of(self, meta: FrameMeta) -> float:
        """Returns the seconds from capture to command."""
        return (self.received_ns - meta.captured_ns) / 1e9

    def format_warning(self) -> str:
        """Returns the difference to what the command asked for, as text; empty where there is none."""
        ago_s = (self.received_ns - self.target_ns) / 1e9
        return (
            f"the oldest there is, {ago_s:g}s ago was asked for, already gone: {self.overwritten}"
            if self.is_late
            else ""
        )


def reply_saved(entries: Sequence[Entry], frame: SavedFrame) -> Reply:
    """Returns the reply to `save`; its status is "saved_oldest" where the ring no longer held the frame."""
    timestamp = to_iso(entries[0].started_utc_ns)
    data = frame.to_data()
    details = [f"timestamp: {timestamp}", f"age: {data['age_s']:.3f}s", *filter(None, [frame.format_warning()])]
    return Reply(
        status="saved_oldest" if frame.is_late else "saved",
        text=f"Saved single full-resolution image: {_format_paths(entries)} ({', '.join(details)})",
        data={**files_of(entries), "camera": frame.camera, "timestamp": timestamp, **data},
    )


def reply_snapshot(entries: Sequence[Entry], frames: Sequence[SavedFrame], missing: Sequence[str]) -> Reply:
    """Returns the reply to `snapshot`: a file per camera, and how far apart they are in time.

    The status is "snapshot_oldest" where a ring no longer held a frame.
    """
    times = [frame.meta.captured_ns for frame in frames]
    sync_error_ms = (max(times) - min(times)) / 1e6
    details = [f"timestamp: {to_iso(entries[0].started_utc_ns)}", f"sync error: {sync_error_ms:.3f} ms"]
    details += [f"{frame.camera}: {frame.format_warning()}" for frame in frames if frame.is_late]
    cameras = sorted(frame.camera for frame in frames)
    text = f"Saved snapshot of {len(cameras)} camera{'s' * (len(cameras) != 1)}: {_format_paths(entries)} "
    text += f"({', '.join(details)})"
    if missing:
        text += f" without {', '.join(missing)}: no frames"
    data = {
        **files_of(entries),
        "cameras": cameras,
        "missing": list(missing),
        "sync_error_ms": sync_error_ms,
        "frames": {frame.camera: frame.to_data() for frame in frames},
    }
    late = any(frame.is_late for frame in frames)
    return Reply(status="snapshot_oldest" if late else "snapshot_saved", text=text, data=data)


def reply_past_stack(entries: Sequence[Entry], summary: StackSummary) -> Reply:
    """Returns the reply to `pastStack`: exactly what was available, and what was made of it."""
    if summary.method == "separate":
        what = f"Saved {summary.used} image{'s' * (summary.used != 1)}"
    else:
        what = f"Saved stack of {summary.used} frame{'s' * (summary.used != 1)}"
    details = [
        f"method: {summary.method}",
        f"count: {summary.used}",
        f"first: f{summary.first[0]} age: {summary.first[1]:.3f}s",
        f"last: f{summary.last[0]} age: {summary.last[1]:.3f}s",
        f"span: {summary.span_s:.3f}s",
        f"available: {summary.available}",
        f"already gone: {summary.overwritten}",
    ]
    if summary.left_out:
        details.append(f"left out: {summary.left_out}")
    if summary.available < summary.least:
        details.append(f"fewer than {summary.least}: the ring holds no more of this exposure")
    if summary.dark.words:
        details.append(
            f"{'dark frame' if summary.dark.dark is not None else 'no dark frame fits'}: {summary.dark.words}"
        )
    return Reply(
        status="stack_saved",
        text=f"{what}: {_format_paths(entries)} ({', '.join(details)})",
        data={
            **files_of(entries),
            "camera": summary.camera,
            "method": summary.method,
            "count": summary.used,
            "available": summary.available,
            "already_gone": summary.overwritten,
            "left_out": summary.left_out,
            "dark_frame": summary.dark.words,
            "span_s": round(summary.span_s, 6),
            "first": {"frame_id": summary.first[0], "age_s": round(summary.first[1], 6)},
            "last": {"frame_id": summary.last[0], "age_s": round(summary.last[1], 6)},
        },
    )


def reply_no_frames(camera: str, why: str) -> Reply:
    """Returns the reply where the ring holds no such frame."""
    return Reply(
        ok=False, status="no_frames", text=f"NO_FRAMES: {camera}: {why}", data={"camera": camera, "message": why}
    )


def reply_refused(problem: ValueError | LibraryError) -> Reply:
    """Returns the reply to a command that cannot be carried out.

    The status tells why: not_found, not_possible, or bad_arguments.
    """
    if isinstance(problem, NoSuchEntry):
        return error(str(problem), "not_found")
    return error(str(problem), "not_possible" if isinstance(problem, LibraryError) else "bad_arguments")


def reply_not_saved(why: str) -> Reply:
    """Returns the reply where there were frames, and the disk refused them."""
    return Reply(ok=False, status="not_saved", text=f"NOT_SAVED: {why}", data={"message": why})


def files_of(entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns paths and row numbers of the saved files; 0: not in the library yet."""
    shown = entries[:PATHS_SHOWN]
    return {
        "path": str(entries[0].path),
        "paths": [str(entry.path) for entry in shown],
        "ids": [entry.id for entry in shown],
        "files": len(entries),
    }


def format_path(entry: Entry) -> str:
    """Returns the path of a saved file, with a note where its row is still missing."""
    return f"{entry.path}{'' if entry.id else ' (not in the library yet)'}"


def _format_paths(entries: Sequence[Entry]) -> str:
    shown = ", ".join(map(format_path, entries[:PATHS_SHOWN]))
    more = len(entries) - PATHS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
