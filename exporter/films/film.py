"""An H.264 film that grows frame by frame and plays at every moment, also after kill -9.

The container is fragmented, a fragment per frame, and becomes a plain mp4 when it is closed (FFmpeg 7.1 and later).
After a kill all but the last frame is on disk. While it grows its name is `….mp4.part`; leftovers of a crash are
complete films of their frames and are adopted on the next start. The writer of a film holds its lock (flock), so that
no other thread, second exporter or `shmcam timelapse` takes it for a leftover.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange
from msgspec.structs import replace

from exporter.pictures.encode import to_array
from shm_ring.color import to_bgr
from shm_ring.formats import Geometry
from shmcam.imaging.accumulate import Payload
from shmcam.library import file_names
from shmcam.library.entry import Entry, from_description
from shmcam.library.sidecar import Owner
from shmcam.runtime.atomic_files import PART, is_regular
from shmcam.video.color_tags import tag_colors
from shmcam.video.disk_file import DiskFile, hold, put_in_place
from shmcam.video.growing_mp4 import GrowingVideo, movflags_of, read_summary, trim

GOP_S = 2.0
"""Seconds of film between key frames: a player can seek to these."""
SYNC_FRAMES = 25
"""Frames between two syncs; more often costs an SD card more than a timelapse is worth."""
FRAME_BYTES = 200_000
"""Room needed per frame: x264 crf 21 at 1080p takes about that for a picture unlike the last one."""
ROOM_FRAMES = 50
"""Frames between two checks of the free space."""


class Film:
    """One film file; a context manager."""

    def __init__(self, path: Path, geometry: Geometry, *, fps: float, crf: int, about: Mapping[str, Any]) -> None:
        """`path` ends in .mp4; `about` goes into the file, for its adopter. Raises: OSError, av.FFmpegError."""
        self.path = path
        self.part = path.with_name(path.name + PART)
        self.geometry = geometry
        self.frames = 0
        self._file = DiskFile(self.part, needs_lock=True)
        self._video = GrowingVideo(self._file, about, {"movflags": movflags_of("frag_every_frame")})
        self._stream = self._video.container.add_stream("libx264", rate=Fraction(max(1, round(fps * 1000)), 1000))
        self._stream.width, self._stream.height = geometry.width & ~1, geometry.height & ~1
        self._stream.pix_fmt = "yuv420p"
        # zerolatency: each picture leaves the encoder at once, nothing is held in memory to be lost
        self._stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf)}
        self._stream.codec_context.gop_size = max(1, round(fps * GOP_S))
        color_space = geometry.color_space if _keeps_planes(geometry) else "smpte170m"  # FFmpeg's own conversion
        tag_colors(self._stream.codec_context, color_space, "tv")
        self._stream.codec_context.sample_aspect_ratio = Fraction(*geometry.sample_aspect)

    def add(self, payload: Payload) -> None:
        """Appends one frame. Raises: OSError where the disk refuses; abandon the film then."""
        frame = _video_frame_of(payload, self.geometry)
        frame.pts = self.frames
        for packet in self._stream.encode(frame):
            if self._video.mux(packet):
                self._file.checkpoint()  # not synced yet, but a disk that refuses the next frame leaves this one
        self.frames += 1
        if self.frames % SYNC_FRAMES == 1:
            self._video.sync()

    def close(self) -> Path | None:
        """Ends the film and gives it its name. Returns: the name; None without frames. Raises: OSError."""
        try:
            for packet in self._stream.encode(None) if self.frames else ():
                self._video.mux(packet)
            self._video.finish()
            if self.frames:
                return put_in_place(self.part)  # under the lock: no other process adopts it first
            self.part.unlink()
        finally:
            self._file.close()
        return None

    def abandon(self) -> None:
        """Leaves the frames so far as a leftover: its fragments play, and the next start adopts them."""
        self._video.abandon()
        self._file.close()

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file.is_closed:
            return
        if kind is None:
            self.close()
        else:
            self.abandon()


def read_camera(part: Path) -> str:
    """Returns the camera that a leftover holds; empty before its first fragment, or where the film cannot be read."""
    with suppress(OSError):  # adopted meanwhile by another thread
        summary = read_summary(part, suspect=SYNC_FRAMES + 1) if is_regular(part) else None
        return str(summary.about.get("camera", "")) if summary is not None and summary.frames else ""
    return ""


def adopt_film(part: Path, camera: str, owner: Owner | None = None) -> Entry | None:
    """Turns a killed process's leftover into a film. Returns: its entry; None if it held no frame and was removed.

    A film of another camera or installation, and one that is being written, is left alone; None, too.

    Raises: OSError.
    """
    if not is_regular(part):
        return None
    with hold(part, without_locks=False) as is_free:  # not of another user's `shmcam timelapse`
        return _adopt_held(part, camera, owner) if is_free else None


def _adopt_held(part: Path, camera: str, owner: Owner | None) -> Entry | None:
    summary = read_summary(part, suspect=SYNC_FRAMES + 1)
    if summary is None or not summary.frames:
        # Before its first fragment a film says nothing about itself; another camera may be about to write it.
        if any(
            file_names.is_film_of(part.name.removesuffix(PART), what, camera) for what in ("timelapse", "startrails")
        ):
            part.unlink()
        return None
    if summary.about.get("camera") != camera or (owner is not None and not owner.is_named(summary.about)):
        return None
    trim(part, summary)
    description = {"kind": "timelapse", "camera": "", "started_utc_ns": 0, **summary.about}
    entry = from_description(put_in_place(part), description)
    return None if entry is None else replace(entry, frames=summary.frames)


def _keeps_planes(geometry: Geometry) -> bool:
    """Tells whether frames keep their planes, and so their matrix."""
    return geometry.pixel_format == "yuv420p" and geometry.width % 2 == 0 and geometry.height % 2 == 0


def _video_frame_of(payload: Payload, geometry: Geometry) -> av.VideoFrame:
    """Returns a frame of limited range, which every player shows right."""
    if _keeps_planes(geometry):
        frame = av.VideoFrame.from_ndarray(to_array(payload, geometry, "planes"), format="yuv420p")
        own = ColorRange.JPEG if geometry.color_range == "pc" else ColorRange.MPEG
        return frame.reformat(src_color_range=own, dst_color_range=ColorRange.MPEG)
    bgr = to_bgr(payload, geometry)[: geometry.height & ~1, : geometry.width & ~1]
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(bgr), format="bgr24").reformat(format="yuv420p")
