"""One growing video: packets go into a container, the container into a `DiskFile`, timing lines into a CSV beside it.

An mp4 is written with `hybrid_fragmented` (FFmpeg 7.1): while it grows it is a sequence of complete fragments, each
synced to disk, so that it plays up to the last one whatever happens; the clean close turns it into a plain mp4 by
writing one index at the end and 8 bytes at the front, without copying anything.

The frame timing CSV: one line per frame of a clip, gaps visible (features.md E4).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from recorder.clips.clip import ClipPaths, ClipTotals, Form, Track
from recorder.encoding.encoder import TIME_BASE, AccessUnit
from shm_ring import FrameMeta
from shmcam.runtime.files import sync_folder
from shmcam.video import fmp4_reader
from shmcam.video.disk_file import DiskFile
from shmcam.video.growing_mp4 import GrowingVideo, movflags

COLUMNS = ("frame_number", "write_time_unix", "sensor_timestamp_ns", "dropped_since_last", "total_hardware_drops")
CSV_HEADER = ",".join(COLUMNS) + "\n"
TAIL_BYTES = 400
"""Holds the last line."""


@dataclass
class Gaps:
    """Counts what is missing between the frames of one clip; pure.

    Two kinds of frames are missing: those that the camera never delivered (the capture process counts them by the
    sensor's timestamps) and those that were in the ring but that the recorder could not take in time.
    """

    hardware: int = 0
    """Frames the camera dropped since the first frame of the clip."""
    lost: int = 0
    """Frames the recorder lost since then."""
    _last_frame: int = field(default=-1, init=False)
    _last_total: int = field(default=0, init=False)

    def before(self, row: FrameMeta) -> int:
        """Frames missing between the frame before and this one (0 for the first)."""
        first = self._last_frame < 0
        lost = 0 if first else max(0, row.frame_id - self._last_frame - 1)
        hardware = 0 if first else row.total_dropped - self._last_total
        if hardware < row.dropped_before and not first:  # the capture process has started again and counts from 0
            hardware = row.dropped_before
        self._last_frame, self._last_total = row.frame_id, row.total_dropped
        self.lost += lost
        self.hardware += hardware
        return lost + hardware


def csv_line(row: FrameMeta, write_time_s: float, dropped: int, hardware: int) -> str:
    """One row; `write_time_s` is the wall clock at which the frame went into the file."""
    return f"{row.frame_id},{write_time_s:.6f},{row.captured_ns},{dropped},{hardware}\n"


def read_rows(path: Path) -> list[tuple[int, int, int]]:
    """Rows of a CSV up to the first that a crash cut short or damaged: (frame id, captured ns, dropped since last)."""
    found: list[tuple[int, int, int]] = []
    header, *lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True) or [""]
    for text in lines if header == CSV_HEADER else ():
        if not text.endswith("\n") or (row := _row(text)) is None:
            break
        found.append(row)
    return found


def last_frame_ns(path: Path, now_s: float, within_s: float) -> int:
    """When the last frame of a CSV was captured, if it was written so long ago at most; else 0. Raises: OSError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        *_, text = file.read().decode(errors="replace").splitlines() or [""]
    row = _row(text)
    return row[1] if row is not None and 0 <= now_s - float(text.split(",")[1]) <= within_s else 0


def _row(text: str) -> tuple[int, int, int] | None:
    """One line; None if it is damaged: a page of zeros glues the lines before and after it together."""
    try:
        frame_id, write_time_s, captured_ns, dropped, hardware = text.split(",")
        float(write_time_s), int(hardware)
        return int(frame_id), int(captured_ns), int(dropped)
    except ValueError:
        return None


Opener = Callable[[Path], DiskFile]

MUXERS = {"mp4": "mp4", "mkv": "matroska", "h264": "h264"}
"""FFmpeg's names of the containers."""

UNSYNCED_FRAGMENTS = fmp4_reader.SUSPECT - 1
"""While a backlog is written fragments come many times a second, and a card takes as long to sync one as to sync
several. No more than will be looked into after a power cut."""


class ClipFile:
    """Opened with its first frame (a key frame); `close` or `abandon` it."""

    def __init__(
        self, place: ClipPaths, form: Form, track: Track, about: dict[str, object], opener: Opener = DiskFile
    ) -> None:
        """Create the files. `about` is kept inside the video. Raises: OSError."""
        self.place = place
        self._form = form
        self._file = opener(place.growing)
        self._csv: DiskFile | None = None
        try:
            if form.csv:
                self._csv = opener(place.growing_timing)
                self._csv.write(CSV_HEADER.encode())
                self._csv.checkpoint()
        except OSError:
            self._discard()
            raise
        self._video = GrowingVideo(self._file, about, _options(form), muxer=MUXERS[form.container])
        self._stream = self._video.container.add_mux_stream(
            "h264",
            rate=Fraction(track.fps).limit_denominator(1000),
            width=track.width,
            height=track.height,
            time_base=TIME_BASE,
        )
        self._gaps = Gaps()
        self._first: FrameMeta | None = None
        self._last: FrameMeta | None = None
        self._first_pts = 0
        self._frames = 0
        self._whole: tuple[int, FrameMeta | None] = (0, None)
        """Frames that are certainly on disk, and the last of them."""
        self._synced_s = time.monotonic()
        self._unsynced = 0  # fragments written since

    def add(self, unit: AccessUnit, row: FrameMeta) -> None:
        """Append one frame. Raises: OSError; `abandon` then."""
        dropped, lines_end = self._gaps.before(row), 0
        if self._csv is not None:
            # Before the frame: a crash may leave a line without its frame, which is cut off when the clip is adopted.
            lines_end = self._csv.bytes
            self._csv.write(csv_line(row, time.time(), dropped, self._gaps.hardware).encode())
        packet = unit.packet
        if self._first is None or packet.pts is None:
            self._first, self._first_pts = row, packet.pts or 0
        pts = (packet.pts or 0) - self._first_pts
        packet.pts = packet.dts = pts
        packet.duration = row.frame_duration_us
        packet.stream = self._stream  # type: ignore[assignment]
        grown, at_once = self._video.mux(packet), self._form.container == "h264"
        if grown and not at_once:
            self._grown(lines_end)  # what reached the file ends with the frame before this one
        self._last = row
        self._frames += 1
        if grown and at_once:
            self._grown(self._csv.bytes if self._csv else 0)

    def close(self) -> ClipTotals:
        """Finish and give the files their final names. Raises: OSError; `abandon` then."""
        self._video.finish()
        self._whole = (self._frames, self._last)
        self._file.close()
        if self._csv is not None:
            self._csv.checkpoint()
            self._csv.sync()
            self._csv.close()
        self._rename()
        return self.totals

    def abandon(self) -> ClipTotals:
        """Close after an error: what is complete stays, under its final name if the disk allows, and plays."""
        for file in (self._file, self._csv):
            if file is not None and file.broken is None:
                file.broken = OSError("abandoned")
        self._video.abandon()
        self._frames, self._last = self._whole
        if self._frames == 0:
            self._discard()
            return self.totals
        self._file.close()
        if self._csv is not None:
            self._csv.close()
        with suppress(OSError):
            self._rename()
        return self.totals

    @property
    def totals(self) -> ClipTotals:
        """What went in so far."""
        first, last = self._first, self._last
        return ClipTotals(
            frames=self._frames,
            first_frame=first.frame_id if first else -1,
            last_frame=last.frame_id if last else -1,
            first_ns=first.captured_ns if first else 0,
            last_ns=last.captured_ns if last else 0,
            hardware_drops=self._gaps.hardware,
            lost=self._gaps.lost,
            bytes=self._file.bytes,
        )

    # ---- inside

    def _grown(self, lines_end: int) -> None:
        """Complete frames have reached the file: bring them and their timing lines to the disk, on schedule.

        Only what a sync has confirmed counts as whole: after one that failed nobody knows what the disk has.
        """
        self._unsynced += 1
        if not self._sync_due(time.monotonic() - self._synced_s):
            return
        if self._csv is not None:
            self._csv.sync()
        self._video.sync()
        self._synced_s, self._unsynced, self._whole = time.monotonic(), 0, (self._frames, self._last)
        if self._csv is not None:
            self._csv.checkpoint(lines_end)

    def _sync_due(self, since_s: float) -> bool:
        if self._form.container == "mp4":  # a quarter: a slow sync ends shortly before the next fragment of live video
            return self._unsynced >= UNSYNCED_FRAGMENTS or since_s >= self._form.fragment_s / 4
        return since_s >= self._form.fragment_s

    def _discard(self) -> None:
        """Nothing of it is worth keeping."""
        for file in (self._file, self._csv):
            if file is not None:
                file.close()
                with suppress(OSError):
                    file.path.unlink()

    def _rename(self) -> None:
        self.place.growing.rename(self.place.clip)
        if self._csv is not None:
            self.place.growing_timing.rename(self.place.timing)
        sync_folder(self.place.clip.parent)


def _options(form: Form) -> dict[str, str]:
    """Options of the muxer: after so much video a fragment or cluster ends."""
    if form.container == "mp4":
        return {
            "movflags": movflags("frag_keyframe", plain=form.plain),
            "frag_duration": str(int(form.fragment_s * 1e6)),
            "video_track_timescale": str(TIME_BASE.denominator),
        }
    return {"cluster_time_limit": str(int(form.fragment_s * 1000))} if form.container == "mkv" else {}
