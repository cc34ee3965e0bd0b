"""Makes an mp4 a plain one with its index in front, by copying packets.

The old file is replaced when the new one is safely on disk, never before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import av

from library.room import Room
from recorder.encoder import TIME_BASE
from service.files import PART, sync_folder

ROOM_FACTOR = 1.02
"""Size of the copy in sizes of the original; it has the same samples and a smaller index."""
LOOK_EVERY = 100
"""Packets between two looks at `stop`."""


class Stop(Protocol):
    """What ends a long job; service.Stop is one."""

    @property
    def requested(self) -> bool:
        """Whether to stop."""


def fits(path: Path, room: Room) -> bool:
    """Whether a copy of the file would leave the reserve untouched."""
    return room.short_bytes(int(path.stat().st_size * ROOM_FACTOR)) < 0


def faststart(path: Path, stop: Stop) -> bool:
    """Rewrite `path` with its index in front. Returns: False when stopped, with nothing changed.

    Raises: OSError, av.FFmpegError, ValueError (the copy is not what the original is); nothing has changed then.
    """
    copy = path.with_name(f".{path.name}.{os.getpid()}{PART}")  # the library's name for what a crash may leave
    try:
        count = _copied(path, copy, stop)
        if count < 0:
            return False
        if (found := _packets(copy)) != count:
            raise ValueError(f"{copy}: {found} frames of {count}")
        copy.chmod(path.stat().st_mode)
        _sync(copy)
        copy.replace(path)
    finally:
        with suppress(FileNotFoundError):
            copy.unlink()
    sync_folder(path.parent)
    return True


def _copied(path: Path, copy: Path, stop: Stop) -> int:
    """Copy all packets. Returns: how many; -1 when stopped."""
    options = {"movflags": "+faststart", "video_track_timescale": str(TIME_BASE.denominator)}
    count = 0
    with av.open(str(path)) as source, av.open(str(copy), "w", format="mp4", container_options=options) as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        target.metadata.update(source.metadata)
        for packet in source.demux(video):
            if packet.size == 0:
                continue
            if count % LOOK_EVERY == 0 and stop.requested:
                return -1
            packet.stream = stream
            target.mux_one(packet)
            count += 1
    return count


def _packets(path: Path) -> int:
    with av.open(str(path)) as file:
        return file.streams.video[0].frames


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
