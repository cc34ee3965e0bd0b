"""A video file as a camera: looping or not, at its own speed or as fast as it decodes.

Timestamps follow the file's own (as nanoseconds since it was opened), so that what is recorded from it plays at the
right speed also when it was read faster. At its own speed a frame is handed out when it is due, by the clock. Where
the file's clock goes back, or jumps further than a pause is waited for, two recordings were joined: the next frame
comes one period later.

Pacer keeps time for sources that have no clock of their own, by absolute deadlines, so that errors never add up. It
is pure: the time is passed in. A sleep that ends late makes one frame late and no other; a stall of more than a frame
skips whole periods, as a sensor does, so that later frames are on the same grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import av

from capture.sources.base import (
    CameraError,
    CameraRequest,
    EndOfStream,
    GeometryChanged,
    OpenedSource,
    Payload,
    ShotMeta,
)
from capture.sources.decoded_frame import FrameWriter, flags_of
from capture.sources.video_decoder import VideoDecoder
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop


@dataclass
class Pacer:
    """The grid start, start + period, start + 2 periods … in ns of the sensor clock."""

    due_ns: int = field(default=0, init=False)
    """Time at which the next frame is due; 0 before the first `begin`."""
    skipped: int = field(default=0, init=False)
    """Periods that were missed, in total."""
    _remainder: float = field(default=0.0, init=False)

    def begin(self, now_ns: int) -> None:
        """Makes the first frame due now."""
        self.due_ns, self._remainder = now_ns, 0.0

    def wait_ns(self, now_ns: int) -> int:
        """Returns the time until the next frame is due; 0 or less: it is due."""
        return self.due_ns - now_ns

    def advance(self, now_ns: int, period_ns: float) -> int:
        """Takes the frame that is due and plans the next one. Returns: the timestamp of the frame taken.

        `period_ns` is the distance to the next frame; fractions are carried (29.97 fps stays 29.97 fps). If `now_ns`
        is past the frame's own period, whole periods are skipped and counted; the timestamp stays on the grid.
        """
        if period_ns <= 0:  # as fast as possible: there is no grid
            self.due_ns = now_ns
            return now_ns
        late = int((now_ns - self.due_ns) // period_ns)
        if late > 0:
            self.skipped += late
            self._step(late * period_ns)
        taken = self.due_ns
        self._step(period_ns)
        return taken

    def _step(self, by_ns: float) -> None:
        exact = by_ns + self._remainder
        whole = int(exact)
        self.due_ns, self._remainder = self.due_ns + whole, exact - whole


DEFAULT_RATE = 25.0
"""For files that do not tell their frame rate."""

SEAM_PERIODS = 3
"""A gap of no more periods than this is no jump, however long they are: a time lapse may have a frame a minute."""


class FileSource:
    """Source "file"; see capture.sources.base.FrameSource."""

    def __init__(
        self,
        path: Path,
        *,
        loop: bool = True,
        realtime: bool = True,
        longest_pause_s: float = 9.0,
        deinterlace: bool = False,
    ) -> None:
        """`longest_pause_s`: a longer one between two frames is cut to one period."""
        self._path, self._loop, self._realtime = path, loop, realtime
        self._longest_pause_s, self._deinterlace = longest_pause_s, deinterlace
        self._container: av.container.InputContainer | None = None
        self._decoder: VideoDecoder | None = None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._frame: av.VideoFrame | None = None
        self._pacer = Pacer()
        self._stop: Stop | None = None
        self._taken_ns = 0
        self._last_s: float | None = None
        self._gap_s = 0.0
        """From the frame before to the last one; 0: not known."""
        self._decoded = 0
        """Frames of this pass through the file."""
        self._damaged = 0
        """Damaged frames of this pass that were reported as lost."""
        self._every = 1

    @property
    def description(self) -> str:
        """The file's name."""
        return f"file {self._path.name}"

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Decodes the first frame. Raises: CameraError if there is none."""
        self._stop, self._last_s, self._every, self._gap_s = stop, None, request.every, 0.0
        self._rewind()
        self._frame = self._next()
        self._writer = FrameWriter(self._decoder_of_file.form_of(self._frame))
        self._pacer = Pacer()
        return self._describe(request)

    def _describe(self, request: CameraRequest) -> OpenedSource:
        refused = dict.fromkeys(request.controls, "a file has no controls")
        return OpenedSource(
            self._writer.form.shown,
            framerate=1 / self._period_s,
            refused=refused,
            tells_duration=False,
            counts_losses=True,
        )

    def wait(self, timeout_s: float) -> bool:
        """Decodes the next frame and, at the file's own speed, sleeps until it is due."""
        if self._frame is None:
            self._frame = self._next()
            for _ in range(self._every - 1):
                self._frame = self._next()
            self._plan(self._frame)
            self._check_form(self._frame)
        if not self._pacer.due_ns:
            self._pacer.begin(now_ns())  # not at open: making the rings takes a while, and would look like lost frames
        due_s = self._pacer.wait_ns(now_ns()) / 1e9
        if due_s <= 0 or not self._realtime:
            return True
        return self._stop is not None and not self._stop.wait(min(due_s, timeout_s)) and due_s <= timeout_s

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Copies the planes of the frame that is due."""
        if self._frame is None:
            raise CameraError(f"{self.description}: no frame is waiting")
        frame, self._frame = self._frame, None
        self._last_s = self._seconds(frame)
        self._taken_ns = now_ns()
        self._writer.write(frame, payload)
        damaged = self._decoder_of_file.damaged
        lost, self._damaged = damaged - self._damaged, damaged
        return ShotMeta(
            captured_ns=self._pacer.due_ns,
            frame_duration_us=round(self._every * self._period_s * 1e6),
            lost_before=lost,
            flags=flags_of(frame),
        )

    def apply(self, request: CameraRequest) -> bool:
        """Sets how many of the file's pictures are taken; nothing else can change."""
        self._every, self._gap_s = request.every, 0.0
        return True

    def close(self) -> None:
        """Closes the file."""
        self._frames, self._frame, self._decoder = iter(()), None, None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _next(self) -> av.VideoFrame:
        frame = self._decode()
        if frame is None and self._decoded and self._loop:
            self._rewind()
            frame = self._decode()
        if frame is None:
            if self._decoded and not self._loop:
                damaged = self._decoder_of_file.damaged
                unreadable = f", {damaged} more were damaged" if damaged else ""
                raise EndOfStream(f"{self.description} has ended after {self._decoded} frames{unreadable}")
            raise CameraError(f"{self.description}: no picture in it")
        self._decoded += 1
        return frame

    def _decode(self) -> av.VideoFrame | None:
        """Returns the next frame; None at the end, also where the end is torn off."""
        try:
            return next(self._frames, None)
        except (av.FFmpegError, OSError) as error:
            raise CameraError(f"{self.description}: {error}") from error

    def _rewind(self) -> None:
        """Opens it (again) from the start: seeking needs key frames that not every file has."""
        self.close()
        self._decoded = self._damaged = 0
        if self._path.exists() and not self._path.is_file():  # opening a FIFO waits for its writer
            raise CameraError(f"{self.description}: no regular file")
        try:
            self._container = av.open(str(self._path), "r")
            decoder = VideoDecoder(self._container, self.description, threads="AUTO", deinterlace=self._deinterlace)
        except (av.FFmpegError, OSError) as error:
            raise error if isinstance(error, CameraError) else CameraError(f"{self.description}: {error}") from error
        self._period_s = 1 / (decoder.declared_rate or DEFAULT_RATE)
        self._decoder, self._frames = decoder, chain.from_iterable(decoder.read())

    @property
    def _decoder_of_file(self) -> VideoDecoder:
        if self._decoder is None:
            raise CameraError(f"{self.description} is closed")
        return self._decoder

    def _check_form(self, frame: av.VideoFrame) -> None:
        """Prepares for frames of another form. Raises: GeometryChanged if they need another slot."""
        form, before = self._decoder_of_file.form_of(frame), self._writer.form
        if form != before:
            self._writer = FrameWriter(form)
            if form.shown != before.shown:
                raise GeometryChanged(form.shown)

    def _plan(self, frame: av.VideoFrame) -> None:
        """Puts the frame on the time line: as far after the last as the file says; one period at a seam."""
        seconds = self._seconds(frame)
        gap_s = seconds - self._last_s if seconds is not None and self._last_s is not None else 0.0
        period_s = self._every * self._period_s
        if gap_s <= 0 or gap_s > max(self._longest_pause_s, SEAM_PERIODS * period_s):
            gap_s = self._gap_s or period_s
        self._gap_s = gap_s
        taken_ns = self._taken_ns if self._realtime else self._pacer.due_ns
        self._pacer.advance(taken_ns, gap_s * 1e9)

    def _seconds(self, frame: av.VideoFrame) -> float | None:
        return None if frame.pts is None else float(frame.time)
