"""A video that grows on disk: it plays at any moment, and the whole part of what a crash leaves can be used.

An mp4 grows by fragments (`movflags`). Where FFmpeg has `hybrid_fragmented` (7.1), the clean close makes it a plain
one: it writes one index at the end and 8 bytes at the front, and copies nothing. A crash or a power cut leaves
fragments, of which the last ones may be torn: `read_summary` finds and `trim` cuts them off.

PyAV is imported when it is needed: most users of the library never do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from msgspec import Struct

from shmcam.runtime.atomic_files import open_regular
from shmcam.video import fmp4_reader
from shmcam.video.disk_file import DiskFile

if TYPE_CHECKING:
    import av

WRITE_BYTES = 1 << 20
"""PyAV's buffer: a fragment of up to this size reaches the disk as one write."""
HYBRID_SINCE = (61, 7, 0)
"""libavformat of FFmpeg 7.1, which has hybrid_fragmented; older ones keep the fragments."""


class VideoSummary(Struct, frozen=True):
    """The content of a video."""

    about: dict[str, Any]
    """The description that its writer put into it (`comment`, JSON)."""
    frames: int
    last_pts_us: int
    """Time of the last frame, where the track's unit is 1 µs."""
    bytes: int = 0
    """The end of its last whole fragment; 0: it is not made of fragments."""


def movflags_of(cut: str, *, plain: bool = True) -> str:
    """Returns the muxer's flags. `cut`: where fragments end (frag_keyframe, frag_every_frame); `plain`: when closed."""
    # empty_moov: no frame outside a fragment, so that fmp4_reader counts them all
    return f"empty_moov+{cut}+default_base_moof{'+hybrid_fragmented' if plain and has_hybrid() else ''}"


def has_hybrid() -> bool:
    """Tells whether this FFmpeg can turn fragments into a plain mp4 without a copy."""
    import av

    return av.library_versions["libavformat"] >= HYBRID_SINCE


class GrowingVideo:
    """A container that grows in a DiskFile. `file.close()` comes after `finish` or `abandon`."""

    def __init__(
        self, file: DiskFile, about: Mapping[str, Any], options: Mapping[str, str], *, muxer: str = "mp4"
    ) -> None:
        """Opens the muxer; nothing reaches the file before the first packet does. `about` is kept inside the video."""
        import av

        self.file = file
        self.container = av.open(
            file,
            "w",
            format=muxer,
            container_options={"flush_packets": "1", **options},
            buffer_size=WRITE_BYTES,
        )
        self.container.metadata["comment"] = json.dumps(dict(about), separators=(",", ":"))

    def mux(self, packet: av.Packet[Any]) -> bool:
        """Appends a packet. Returns: whether complete frames have reached the file. Raises: OSError."""
        size = self.file.bytes
        self.container.mux_one(packet)
        return self.file.bytes > size

    def sync(self) -> None:
        """Brings what has reached the file to the disk; a file that breaks later keeps it. Raises: OSError."""
        self.file.sync()
        self.file.checkpoint()

    def finish(self) -> None:
        """Ends the container and brings it to the disk. Raises: OSError, av.FFmpegError; `abandon` then."""
        self.container.close()
        self.sync()

    def abandon(self) -> None:
        """Ends the container after an error; a broken file swallows the trailer."""
        import av

        with suppress(OSError, av.FFmpegError):  # PyAV's own, where the disk refuses the index, too
            self.container.close()


def read_about(path: Path) -> dict[str, Any]:
    """Returns the description inside a video, without reading its frames; empty if there is none."""
    import av

    try:
        with open_regular(path) as whole, av.open(whole, "r") as file:
            return _read_about(file.metadata)
    except (av.FFmpegError, OSError, ValueError):
        return {}


def read_summary(path: Path, suspect: int = fmp4_reader.SUSPECT_FRAGMENTS) -> VideoSummary | None:
    """Returns what is whole in a video; None: nothing plays. Raises: OSError.

    `suspect`: how many fragments at the end were perhaps not synced.
    """
    import av

    extent = fmp4_reader.Extent(finished=True)
    if ".mp4" in path.suffixes:
        extent = fmp4_reader.measure_extent(path, suspect)
        if not extent.bytes and not extent.finished:
            return None
    try:
        with open_regular(path) as whole, av.open(_Front(whole, extent.bytes) if extent.bytes else whole, "r") as file:
            about = _read_about(file.metadata)
            if extent.bytes:
                return VideoSummary(about, extent.frames, extent.last_pts_us, extent.bytes)
            packets = [packet for packet in file.demux(video=0) if packet.size]
            times = [int(packet.pts * packet.time_base * 1_000_000) for packet in packets if packet.pts is not None]
            return VideoSummary(about, len(packets), max(times, default=0))
    except (av.FFmpegError, IndexError, ValueError):
        return None


def trim(path: Path, summary: VideoSummary) -> None:
    """Cuts the torn tail off: FFmpeg refuses a file that ends inside a fragment's header. Raises: OSError."""
    if summary.bytes:
        truncate(path, summary.bytes)


def truncate(path: Path, size: int) -> None:
    """Cuts a file, on disk, too, before it gets a name under which it is not examined again. Raises: OSError."""
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


class _Front:
    """The first bytes of a file, as PyAV reads them."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, max(0, self._size - self._file.tell())))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._size}[whence]
        return self._file.seek(start + offset)

    def tell(self) -> int:
        return self._file.tell()


def _read_about(metadata: dict[str, str]) -> dict[str, Any]:
    text = metadata.get("comment") or metadata.get("COMMENT") or "{}"
    with suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    return {}
