"""Sends the recorder's H.264 as it is, as NAL units (Annex B) or fragmented mp4; nothing is encoded again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shm_ring import LiveRing, RingNotReady
from shm_ring.records.packets import Unit, follow, latest_key
from shmcam.cli.pipe.pipe_output import PipeOutput
from shmcam.control.call import call
from shmcam.control.messages import Watch
from shmcam.runtime.clock import now_ns
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop
from shmcam.video import fmp4_writer
from shmcam.video.annexb import find_parameter_sets

WATCH_S = 10.0
"""How long the recorder publishes packets after we asked for them."""
ASK_S = 3.0
"""The period of asking: a recorder that was restarted publishes again after so long."""
WAIT_S = 0.25
TELL_S = 3.0
"""Time without video after which a person is told so."""

OLD_NS = 10_000_000_000
"""Older packets were left by a recorder that has ended."""


class StreamChanged(RuntimeError):
    """The video has another size or profile now, which an mp4 cannot say in the middle."""


@contextmanager
def asking_recorder(socket_path: Path, camera: str) -> Iterator[None]:
    """Asks the recorder for packets as long as the block runs; a key frame first, so that it begins at once."""
    done = Stop()

    def ask() -> None:
        is_first = True
        while not done.requested:
            reply = call(socket_path, Watch(camera=camera, seconds=WATCH_S, key=is_first), WATCH_S)
            is_first = is_first and not reply.ok
            done.wait(ASK_S if reply.ok else WAIT_S)

    with Worker("watch", ask, done):
        yield


def send_video(ring: LiveRing, output: PipeOutput, *, is_mp4: bool, tell: Callable[[str], None]) -> int:
    """Sends frames until the ring's stop is requested. Returns: their number. Raises: ReaderGone, StreamChanged."""
    count, muxer, told_s = 0, _Mp4(), time.monotonic()
    for unit in follow(ring, start=_find_start(ring), idle_s=WAIT_S):
        output.check()
        if unit is None:
            if not count and time.monotonic() - told_s > TELL_S:
                tell(f"no video in {ring.name} yet: does the recorder run?")
                told_s = float("inf")
            continue
        if now_ns() - unit.meta.captured_ns > max(OLD_NS, 2000 * unit.duration_us):
            continue
        if not count:
            tell(f"{unit.width}x{unit.height} H.264, from {ring.name}")
        data = muxer.add(unit) if is_mp4 else unit.data
        count += bool(data) and output.write([data])
    return count


def _find_start(ring: LiveRing) -> int | str:
    try:
        key = latest_key(ring)
    except RingNotReady:
        return "new"
    return "new" if key is None else key


class _Mp4:
    """Makes a header and fragments; its clock begins with the first key frame."""

    def __init__(self) -> None:
        self._header = b""
        self._base_us = 0
        self._number = 0

    def add(self, unit: Unit) -> bytes:
        """Returns the bytes of one frame; none before the first key frame. Raises: StreamChanged."""
        header = b""
        sets = find_parameter_sets(unit.data) if unit.key else None
        if sets is not None:
            header = fmp4_writer.make_header(sets, unit.width, unit.height, unit.sample_aspect)
            if self._header and header != self._header:
                raise StreamChanged("the video has another size or profile now")
            if self._header:
                header = b""
            else:
                self._header, self._base_us = header, unit.pts_us
        if not self._header:
            return b""
        self._number += 1
        fragment = fmp4_writer.mux_unit(unit, self._number)
        return header + fragment.bytes_at(self._base_us)
