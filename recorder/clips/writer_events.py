"""The notices that the recorder's threads send its loop; the loop announces them and answers commands with them."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from recorder.clips.clip import ClipOrder, ClipTotals


class Opened(Struct, frozen=True):
    """A file has its first frame."""

    order: ClipOrder
    path: Path
    """The name of the file after it is closed."""
    frame_id: int
    captured_ns: int


class Closed(Struct, frozen=True):
    """A file is complete on disk under its final name."""

    order: ClipOrder
    path: Path
    timing: Path | None
    camera: str
    started_utc_ns: int
    totals: ClipTotals
    reason: str
    intact: bool
    """False: closed after an error; it plays, but keeps its fragments."""
    kept: bool = True
    """False: the file was taken away, or nothing of it was whole."""


class Filed(Struct, frozen=True):
    """A closed file has its last form and is in the library."""

    closed: Closed
    bytes: int


class Trouble(Struct, frozen=True):
    """Nothing is written although it should be. An empty reason: it is written again."""

    reason: str


Notice = Opened | Closed | Filed | Trouble
