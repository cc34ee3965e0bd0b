"""Makes an mp4 a plain one with its index in front, by copying packets.

The old file is replaced when the new one is safely on disk, never before.
"""

from __future__ import annotations

import os
from pathlib import Path

import av

from library.room import Room
from recorder.encoder import TIME_BASE
from service.files import whole_file
from service.stop import Stop

ROOM_FACTOR = 1.02
"""Size of the copy in sizes of the original; it has the same samples and a smaller index."""
LOOK_EVERY = 100
"""Packets between two looks at `stop`."""


class _Stopped(Exception):
    """The process ends: the file stays as it is."""


def fits(path: Path, room: Room) -> bool:
    """Whether a copy of the file would leave the reserve untouched."""
    return room.short_bytes(int(path.stat().st_size * ROOM_FACTOR)) < 0


def faststart(path: Path, stop: Stop) -> bool:
    """Rewrite `path` with its index in front. Returns: False when stopped, with nothing changed.

    Raises: OSError, av.FFmpegError, ValueError (the copy is not what the original is); nothing has changed then.
    """
    try:
        with whole_file(path, replace=True) as file:
            copy = f"/proc/self/fd/{file.fileno()}"  # FFmpeg reads it again to put the index in front: it needs a name
            count = _copied(path, copy, stop)
            if (found := _packets(copy)) != count:
                raise ValueError(f"{path}: a copy of {found} frames of {count}")
            os.fchmod(file.fileno(), path.stat().st_mode)
    except _Stopped:
        return False
    return True


def _copied(path: Path, copy: str, stop: Stop) -> int:
    """Copy all packets. Returns: how many. Raises: _Stopped."""
    options = {"movflags": "+faststart", "video_track_timescale": str(TIME_BASE.denominator)}
    count = 0
    with av.open(str(path)) as source, av.open(copy, "w", format="mp4", container_options=options) as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        target.metadata.update(source.metadata)
        for packet in source.demux(video):
            if packet.size == 0:
                continue
            if count % LOOK_EVERY == 0 and stop.requested:
                raise _Stopped
            packet.stream = stream
            target.mux_one(packet)
            count += 1
    return count


def _packets(path: str) -> int:
    with av.open(path) as file:
        return file.streams.video[0].frames
