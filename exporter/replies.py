"""Composes the exporter's replies, in the wording of the user's first service. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from exporter.ring_frames import CameraFrames, RingContents
from exporter.stacking.dark_frames import NO_DARK, DarkChoice
from shm_ring import Frame, FrameMeta
from shmcam.control.messages import Reply, error
from shmcam.library import LibraryError, NoSuchEntry
from shmcam.library.entry import Entry
from shmcam.runtime.clock import to_iso

PATHS_SHOWN = 40
"""The most paths in one reply; a message is at most 64 KiB, and the library lists the rest."""


class StackSummary(Struct, frozen=True):
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
    unsettled: int = 0
    """The number of available frames that were not used because the camera's controls moved."""

    @property
    def span_s(self) -> float:
        """The time from the first to the last frame used."""
        return self.first[1] - self.last[1]


class SavedFrame(Struct, frozen=True):
    """One saved frame, and the frames that the ring held."""

    frames: CameraFrames
    """The ring that the frame was found in."""
    frame: Frame
    contents: RingContents | None
    """The frames in the ring; None where the command waited for the next frame."""
    received_ns: int
    """The instant when the command came, sensor clock."""
    target_ns: int
    """The instant that the command asks for, sensor clock."""

    @property
    def camera(self) -> str:
        """The camera's name."""
        return self.frames.name

    @property
    def meta(self) -> FrameMeta:
        """The frame's metadata."""
        return self.frame.meta

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
            "ring": self.frames.stream,
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
        late = f"the oldest there is, {ago_s:g}s ago was asked for, already gone: {self.overwritten}"
        return "; ".join(filter(None, [late * self.is_late, describe_ring(self.frames.stream)]))


def _format_unix_time(utc_ns: int) -> str:
    """Returns seconds with the milliseconds that JSON and the library show of the same instant: cut, not rounded."""
    return f"{utc_ns // 1_000_000 / 1000:.3f}"


def describe_ring(stream: str) -> str:
    """Returns the words for a frame that is not full-size; empty for one that is."""
    return "from the small ring: the full-size one reaches less far back" if stream == "lores" else ""


def reply_saved(entries: Sequence[Entry], frame: SavedFrame) -> Reply:
    """Returns the reply to `save`; its status is "saved_oldest" where the ring no longer held the frame."""
    utc_ns, data = frame.meta.captured_utc_ns, frame.to_data()
    what = f"(timestamp: {_format_unix_time(utc_ns)}, age: {data['age_s']:.2f}s)"
    is_one_in_library = len(entries) == 1 and entries[0].id
    more = [frame.format_warning(), "" if is_one_in_library else f"files: {_format_paths(entries)}"]
    return Reply(
        status="saved_oldest" if frame.is_late else "saved",
        text="\n".join([f"Saved single full-resolution image: {entries[0].path} {what}", *filter(None, more)]),
        data={**files_of(entries), "camera": frame.camera, "timestamp": to_iso(utc_ns), **data},
    )


def reply_snapshot(entries: Sequence[Entry], frames: Sequence[SavedFrame], missing: Sequence[str]) -> Reply:
    """Returns the reply to `snapshot`: a file per camera, and how far apart they are in time.

    The status is "snapshot_oldest" where a ring no longer held a frame.
    """
    times = [frame.meta.captured_ns for frame in frames]
    sync_error_ms = (max(times) - min(times)) / 1e6
    details = [f"timestamp: {to_iso(entries[0].started_utc_ns)}", f"sync error: {sync_error_ms:.3f} ms"]
    details += [f"{frame.camera}: {frame.format_warning()}" for frame in frames if frame.format_warning()]
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


class StackWindow(Struct, frozen=True):
    """Where the frames of a pastStack came from, and when."""

    stream: str
    """The ring: main, or lores for the small frames."""
    first_utc_ns: int
    """Wall clock of the first frame used."""
    last_utc_ns: int
    before_s: float
    """The time from the beginning of the span to the command."""
    bright_threshold: float


def reply_past_stack(entries: Sequence[Entry], summary: StackSummary, window: StackWindow) -> Reply:
    """Returns the reply to `pastStack`: exactly what was available, and what was made of it.

    The first line is as the user's second service wrote it; scripts read it.
    """
    first, last = (
        f"timestamp: {_format_unix_time(utc_ns)} (age: {age_s:.2f}s)"
        for utc_ns, (_, age_s) in ((window.first_utc_ns, summary.first), (window.last_utc_ns, summary.last))
    )
    before = f"(export.save_before_s: {window.before_s:.3f} s)"
    if summary.method == "separate":
        text = f"Saved {len(entries)} separate images from ring buffer, starting at {first}{before}"
        text += f"bright_threshold: > {window.bright_threshold:g} "
    else:
        text = f"Saved stacked image: {entries[0].path} | stack of {summary.used} frames | "
        text += f"first frame {first} | last frame {last}{before}"
    details = [
        f"method: {summary.method}",
        f"count: {summary.used}",
        f"first: f{summary.first[0]}",
        f"last: f{summary.last[0]}",
        f"span: {summary.span_s:.3f}s",
        f"available: {summary.available}",
        f"already gone: {summary.overwritten}",
    ]
    if summary.left_out:
        details.append(f"left out: {summary.left_out}")
    if summary.unsettled:
        details.append(f"not used, controls moved: {summary.unsettled}")
    if summary.available < summary.least:
        details.append(f"fewer than {summary.least}: the ring holds no more of this exposure")
    if summary.dark.words:
        details.append(
            f"{'dark frame' if summary.dark.dark is not None else 'no dark frame fits'}: {summary.dark.words}"
        )
    details += filter(None, [describe_ring(window.stream)])
    return Reply(
        status="stack_saved",
        text="\n".join([text, ", ".join(details), f"files: {_format_paths(entries)}"]),
        data={
            **files_of(entries),
            "camera": summary.camera,
            "method": summary.method,
            "ring": window.stream,
            "count": summary.used,
            "available": summary.available,
            "already_gone": summary.overwritten,
            "left_out": summary.left_out,
            "unsettled": summary.unsettled,
            "dark_frame": summary.dark.words,
            "span_s": round(summary.span_s, 6),
            "first": {"frame_id": summary.first[0], "age_s": round(summary.first[1], 6)},
            "last": {"frame_id": summary.last[0], "age_s": round(summary.last[1], 6)},
        },
    )


def reply_no_frames(camera: str, why: str) -> Reply:
    """Returns the reply where the ring holds no such frame."""
    return Reply(
        ok=False, status="no_frames", text=f"NO_FRAMES\n{camera}: {why}", data={"camera": camera, "message": why}
    )


def reply_refused(problem: ValueError | LibraryError) -> Reply:
    """Returns the reply to a command that cannot be carried out.

    The status tells why: not_found, not_possible, or bad_arguments.
    """
    if isinstance(problem, NoSuchEntry):
        return error(str(problem), "not_found")
    return error(str(problem), "not_possible" if isinstance(problem, LibraryError) else "bad_arguments")


def reply_not_saved(why: str, saved: Sequence[Entry] = ()) -> Reply:
    """Returns the reply where there were frames, and the disk refused them, or all after those that are `saved`."""
    text = f"NOT_SAVED\n{why}" + (f"\nsaved before: {_format_paths(saved)}" if saved else "")
    return Reply(ok=False, status="not_saved", text=text, data={"message": why, **(files_of(saved) if saved else {})})


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
