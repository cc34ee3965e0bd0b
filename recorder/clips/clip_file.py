"""One growing clip: packets go into a container, the container into a `DiskFile`, timing lines into a CSV beside it.

An mp4 is written with `hybrid_fragmented` (FFmpeg 7.1): while it grows it is a sequence of complete fragments, each
synced to disk, so that it plays up to the last one whatever happens. The clean close turns it into a plain mp4: it
writes one index at the end and 8 bytes at the front, and copies nothing.

The frame timing CSV has one line per frame of the clip, so that gaps are visible.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from recorder.clips.clip import ClipFormat, ClipPaths, ClipTotals, Track
from recorder.encoding.encoder import TIME_BASE, AccessUnit
from shm_ring import FrameMeta
from shmcam.runtime.atomic_files import open_regular, read_state, sync_folder
from shmcam.video import fmp4_reader
from shmcam.video.disk_file import DiskFile
from shmcam.video.growing_mp4 import GrowingVideo, movflags_of

COLUMNS = ("frame_number", "write_time_unix", "sensor_timestamp_ns", "dropped_since_last", "total_hardware_drops")
CSV_HEADER = ",".join(COLUMNS) + "\n"
MAX_TIMING_BYTES = 1 << 30
"""The largest CSV that is read: a day at 120 frames a second."""
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
    """Frames the recorder lost since then, and `unwritten_before`."""
    unwritten_before: int = 0
    """Frames of the recording that came before, while no clip could be written."""
    _last_frame: int = field(default=-1, init=False)
    _last_total: int = field(default=0, init=False)

    def count_before(self, meta: FrameMeta) -> int:
        """Returns the frames missing between the frame before and this one (`unwritten_before` for the first)."""
        first = self._last_frame < 0
        lost = self.unwritten_before if first else max(0, meta.frame_id - self._last_frame - 1)
        hardware = 0 if first else meta.total_dropped - self._last_total
        if hardware < meta.dropped_before and not first:  # the capture process has started again and counts from 0
            hardware = meta.dropped_before
        self._last_frame, self._last_total = meta.frame_id, meta.total_dropped
        self.lost += lost
        self.hardware += hardware
        return lost + hardware


def csv_line_of(meta: FrameMeta, write_time_s: float, dropped: int, hardware: int) -> str:
    """Returns one row; `write_time_s` is the wall clock at which the frame went into the file."""
    return f"{meta.frame_id},{write_time_s:.6f},{meta.captured_ns},{dropped},{hardware}\n"


def read_rows(path: Path) -> list[tuple[int, int, int]]:
    """Reads a CSV up to the first line that a crash cut short or damaged.

    Returns: rows of (frame id, captured ns, dropped since last).
    """
    rows: list[tuple[int, int, int]] = []
    header, *lines = read_state(path, MAX_TIMING_BYTES).decode(errors="replace").splitlines(keepends=True) or [""]
    for text in lines if header == CSV_HEADER else ():
        if not text.endswith("\n") or (row := _parse_row(text)) is None:
            break
        rows.append(row)
    return rows


def read_last_frame(path: Path, now_s: float, within_s: float) -> tuple[int, int] | None:
    """Returns when the last frame of a CSV was captured, and its id; None if it was written `within_s` ago or longer.

    Raises: OSError.
    """
    with open_regular(path) as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        *_, text = file.read().decode(errors="replace").splitlines() or [""]
    row = _parse_row(text)
    return (row[1], row[0]) if row is not None and 0 <= now_s - float(text.split(",")[1]) < within_s else None


def _parse_row(text: str) -> tuple[int, int, int] | None:
    """Returns one line's row; None if it is damaged: a page of zeros glues the lines before and after it together."""
    try:
        frame_id, write_time_s, captured_ns, dropped, hardware = text.split(",")
        float(write_time_s), int(hardware)
        return int(frame_id), int(captured_ns), int(dropped)
    except ValueError:
        return None


FileOpener = Callable[[Path], DiskFile]

MUXERS = {"mp4": "mp4", "mkv": "matroska", "h264": "h264"}
"""FFmpeg's names of the containers."""

UNSYNCED_FRAGMENTS = fmp4_reader.SUSPECT_FRAGMENTS - 1
"""While a backlog is written fragments come many times a second, and a card takes as long to sync one as to sync
several. No more than are examined after a power cut."""


class ClipFile:
    """A clip that is open; its first frame is a key frame. `close` or `abandon` it."""

    def __init__(
        self,
        paths: ClipPaths,
        clip_format: ClipFormat,
        track: Track,
        about: dict[str, object],
        opener: FileOpener = DiskFile,
        *,
        unwritten_before: int = 0,
    ) -> None:
        """Creates the files. `about` is kept inside the video; `unwritten_before`: see Gaps. Raises: OSError."""
        self.paths = paths
        self._format = clip_format
        self._file = opener(paths.growing)
        self._csv: DiskFile | None = None
        try:
            if clip_format.csv:
                self._csv = opener(paths.growing_timing)
                self._csv.write(CSV_HEADER.encode())
                self._csv.checkpoint()
        except OSError:
            self._discard()
            raise
        self._video = GrowingVideo(self._file, about, _options_of(clip_format), muxer=MUXERS[clip_format.container])
        self._stream = self._video.container.add_mux_stream(
            "h264",
            rate=Fraction(track.fps).limit_denominator(1000),
            width=track.width,
            height=track.height,
            time_base=TIME_BASE,
        )
        self._gaps = Gaps(unwritten_before=unwritten_before)
        self._first: FrameMeta | None = None
        self._last: FrameMeta | None = None
        self._first_pts = 0
        self._frames = 0
        self._synced: tuple[int, FrameMeta | None] = (0, None)
        """Frames that are certainly on disk, and the last of them."""
        self._synced_s = time.monotonic()
        self._unsynced_fragments = 0

    def add(self, unit: AccessUnit) -> None:
        """Appends one frame. Raises: OSError; `abandon` then."""
        meta = unit.meta
        dropped, lines_end = self._gaps.count_before(meta), 0
        if self._csv is not None:
            # Before the frame: a crash may leave a line without its frame, which is cut off when the clip is adopted.
            lines_end = self._csv.bytes
            self._csv.write(csv_line_of(meta, time.time(), dropped, self._gaps.hardware).encode())
        packet = unit.packet
        if self._first is None or packet.pts is None:
            self._first, self._first_pts = meta, packet.pts or 0
        pts = (packet.pts or 0) - self._first_pts
        packet.pts = packet.dts = pts
        packet.duration = meta.frame_duration_us
        packet.stream = self._stream  # type: ignore[assignment]
        has_grown, at_once = self._video.mux(packet), self._format.container == "h264"
        if has_grown and not at_once:
            self._sync_on_schedule(lines_end)  # what reached the file ends with the frame before this one
        self._last = meta
        self._frames += 1
        if has_grown and at_once:
            self._sync_on_schedule(self._csv.bytes if self._csv else 0)

    def close(self) -> ClipTotals:
        """Finishes the files and gives them their final names. Raises: OSError; `abandon` then."""
        self._video.finish()
        self._synced = self._frames, self._last
        self._file.close()
        if self._csv is not None:
            self._csv.checkpoint()
            self._csv.sync()
            self._csv.close()
        self._rename()
        return self.totals

    def abandon(self) -> ClipTotals:
        """Closes after an error: what is complete stays, under its final name if the disk allows, and plays."""
        for file in (self._file, self._csv):
            if file is not None and file.broken is None:
                file.broken = OSError("abandoned")
        self._video.abandon()
        self._frames, self._last = self._synced
        if self._frames == 0:
            self._discard()
            return self.totals
        self._file.close()
        if self._csv is not None:
            self._csv.close()
        if not (self._file.is_torn or (self._csv is not None and self._csv.is_torn)):  # else whoever adopts it cuts it
            with suppress(OSError):
                self._rename()
        return self.totals

    @property
    def totals(self) -> ClipTotals:
        """The totals of all frames so far."""
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

    def _sync_on_schedule(self, lines_end: int) -> None:
        """Brings complete frames that have reached the file, and their timing lines, to the disk when that is due.

        Only what a sync has confirmed counts as whole: after one that failed it is unknown what the disk has.
        """
        self._unsynced_fragments += 1
        if not self._is_sync_due(time.monotonic() - self._synced_s):
            return
        if self._csv is not None:
            self._csv.sync()
        self._video.sync()
        self._synced_s, self._unsynced_fragments = time.monotonic(), 0
        self._synced = self._frames, self._last
        if self._csv is not None:
            self._csv.checkpoint(lines_end)

    def _is_sync_due(self, since_s: float) -> bool:
        if self._format.container == "mp4":  # a quarter: a slow sync ends before the next fragment of live video
            return self._unsynced_fragments >= UNSYNCED_FRAGMENTS or since_s >= self._format.fragment_s / 4
        return since_s >= self._format.fragment_s

    def _discard(self) -> None:
        """Removes the files: nothing of them is worth keeping."""
        for file in (self._file, self._csv):
            if file is not None:
                file.close()
                with suppress(OSError):
                    file.path.unlink()

    def _rename(self) -> None:
        self.paths.growing.rename(self.paths.clip)
        if self._csv is not None:
            self.paths.growing_timing.rename(self.paths.timing)
        sync_folder(self.paths.clip.parent)


def _options_of(clip_format: ClipFormat) -> dict[str, str]:
    """Returns the muxer's options: after so much video a fragment or cluster ends."""
    if clip_format.container == "mp4":
        return {
            "movflags": movflags_of("frag_keyframe", plain=clip_format.plain),
            "frag_duration": str(int(clip_format.fragment_s * 1e6)),
            "video_track_timescale": str(TIME_BASE.denominator),
        }
    return {"cluster_time_limit": str(int(clip_format.fragment_s * 1000))} if clip_format.container == "mkv" else {}
