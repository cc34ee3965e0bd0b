"""Cameras that FFmpeg reads: RTSP and HTTP streams, V4L2 devices.

A thread waits for them, so that the loop never does. The newest frames wait in a short queue; frames that the loop
does not fetch in time are dropped and counted.

ArrivalClock puts frames of a device with a clock of its own on the sensor clock, without the jitter of their way. A
frame can only be late, never early: of all distances between the two clocks the smallest is the truest (moonfire-nvr
and RMS do the same). The estimate may creep by 500 ppm, so that clocks that drift apart are followed. A device whose
clock was set is placed anew: at once where its clock goes back, and where its frames stay late without catching up.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import av

from capture.sources.base import (
    CameraError,
    CameraRequest,
    GeometryChanged,
    OpenedSource,
    Payload,
    ShotMeta,
    StillOpening,
)
from capture.sources.decoded_frame import FrameWriter, PictureForm, flags_of
from capture.sources.stream_address import Address
from capture.sources.video_decoder import VideoDecoder
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop

SLEW = 500e-6
"""Two crystals differ by less (moonfire-nvr, design/time.md)."""

RESET_NS = 2_000_000_000
"""Further off than this is no jitter: the device was set anew, or its stream started over."""

LATE_NS, LATE_FOR_NS = 150_000_000, 1_500_000_000
"""Frames that stay later than LATE_NS for LATE_FOR_NS will not catch up: a network that stood still delivers what
it held back within this time."""


@dataclass
class ArrivalClock:
    """Estimates the capture time of each frame from its own timestamp and its arrival."""

    was_set: bool = field(default=False, init=False)
    """The device's clock was set before the last frame."""
    _offset_ns: float | None = field(default=None, init=False)
    _last_ns: int = field(default=0, init=False)
    _last_own_ns: int = field(default=0, init=False)
    _late_since_ns: int = field(default=0, init=False)
    """Arrival of the first of the frames that are late; 0: the last one was not."""

    def captured_ns(self, own_ns: int, arrived_ns: int) -> int:
        """Returns the sensor-clock time of a frame with the device's time `own_ns` that arrived at `arrived_ns`."""
        distance = arrived_ns - own_ns
        went_back = own_ns <= self._last_own_ns
        if self._offset_ns is None or went_back or self._is_off(distance - self._offset_ns, arrived_ns):
            self.was_set = self._offset_ns is not None
            self._offset_ns, self._late_since_ns = distance, 0
        else:
            crept = self._offset_ns + SLEW * max(0, arrived_ns - self._last_ns)
            # Earlier than the fastest frame so far by more than jitter: the clock was set forward.
            self.was_set = crept - distance > LATE_NS
            self._offset_ns = min(crept, distance)
        self._last_ns, self._last_own_ns = arrived_ns, own_ns
        return round(own_ns + self._offset_ns)

    def _is_off(self, late_ns: float, arrived_ns: int) -> bool:
        """Tells whether a frame is later than jitter and a slow network can explain."""
        if late_ns <= LATE_NS:
            self._late_since_ns = 0
        elif not self._late_since_ns:
            self._late_since_ns = arrived_ns
        is_lasting = bool(self._late_since_ns) and arrived_ns - self._late_since_ns > LATE_FOR_NS
        return is_lasting or abs(late_ns) > RESET_NS


OPEN_S = 8.0
"""Longest wait for a network camera to answer and send its first picture."""
READ_S = 5.0
"""FFmpeg gives a silent connection up after this; the loop has reported the stall long before."""
QUEUE_LENGTH = 8
"""Encoded video comes in bunches: several frames in one packet of the network."""

KEY_WAIT_S = 60.0
REPORT_S = 2.0
"""`open` reports so often that it still waits for a key frame."""

OWN_PACE, BACKLOG_NS, ALONE_NS = 0.7, 3_000_000_000, 300_000_000
"""The first frames come out of buffers, faster than they were taken: only the newest of them is shown. They are over
when one takes OWN_PACE of its own time to come, or after BACKLOG_NS; a frame that none follows for ALONE_NS is no
part of them."""


class LiveSource:
    """Sources "url" and "v4l2"; see capture.sources.base.FrameSource."""

    def __init__(
        self, kind: str, address: Address, *, key_wait_s: float = KEY_WAIT_S, deinterlace: bool = False
    ) -> None:
        """`key_wait_s`: the longest wait for a key frame of a stream that was joined between two of them."""
        self._kind, self._address = kind, address
        self._key_wait_s, self._deinterlace = key_wait_s, deinterlace
        self._reader: _Reader | None = None
        self._clock = ArrivalClock()
        self._last = 0
        self._every = 1
        self._held: QueuedFrame | None = None
        """The frame that `wait` found."""

    @property
    def description(self) -> str:
        """Kind and address, without passwords."""
        return f"{self._kind} {self._address.shown}"

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Connects and waits for the first picture. Raises: CameraError; StillOpening while no key frame has come."""
        if self._reader is None or not self._reader.is_joining:
            self.close()
            self._clock, self._last = ArrivalClock(), 0
            self._reader = _Reader(self._address, self._deinterlace)
            self._reader.start()
        begun_ns = now_ns()
        while not self._reader.wait(0.1):
            self._check_opening(self._reader, begun_ns, stop)
        self._writer = FrameWriter(self._reader.peek().form)
        self._take(request.every)
        return self._describe(request)

    def _describe(self, request: CameraRequest) -> OpenedSource:
        refused = dict.fromkeys(request.controls, "not offered by this kind of camera")
        rate = self._reader.rate if self._reader else 0.0
        return OpenedSource(self._writer.form.shown, framerate=rate, refused=refused, tells_duration=False)

    def _check_opening(self, reader: _Reader, begun_ns: int, stop: Stop) -> None:
        """Gives up, or reports, when there is no picture yet. Raises: CameraError, StillOpening."""
        since_s = (now_ns() - reader.started_ns) / 1e9
        limit_s = self._key_wait_s if reader.is_joining else OPEN_S
        if stop.requested or since_s > limit_s:
            self.close()
            missing = "key frame" if reader.is_joining else "picture"
            raise CameraError(f"{self.description}: no {missing} within {limit_s:.0f} s")
        if reader.is_joining and now_ns() - begun_ns > REPORT_S * 1e9:
            raise StillOpening(
                f"{self.description} sends video: waiting for a key frame, {since_s:.0f} of at most {limit_s:.0f} s"
                " (camera.key_frame_wait_s)"
            )

    def wait(self, timeout_s: float) -> bool:
        """Waits for a picture. Raises: CameraError when the connection has ended; GeometryChanged."""
        if self._reader is None:
            raise CameraError(f"{self.description} is closed")
        if self._held is None and self._reader.wait(timeout_s):
            self._held = self._reader.take()
        if self._held is not None:
            self._check_form(self._held.form)
        return self._held is not None

    def _check_form(self, form: PictureForm) -> None:
        """Prepares for frames of another form. Raises: GeometryChanged if they need another slot."""
        before = self._writer.form
        if form != before:
            self._writer = FrameWriter(form)
            if form.shown != before.shown:
                raise GeometryChanged(form.shown)

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Copies or converts the picture that waits."""
        if self._reader is None:
            raise CameraError(f"{self.description} is closed")
        queued, self._held = self._held or self._reader.take(), None
        self._check_form(queued.form)
        self._writer.write(queued.frame, payload)
        number, own_ns = queued.number, queued.own_ns
        lost, self._last = (number - self._last - 1 if self._last else 0), number  # making the ring is no loss
        captured_ns = queued.arrived_ns if own_ns is None else self._clock.captured_ns(own_ns, queued.arrived_ns)
        duration_us = round(1e6 * self._every / self._reader.rate) if self._reader.rate else 0
        return ShotMeta(
            captured_ns=captured_ns,
            frame_duration_us=duration_us,
            lost_before=lost,
            is_seam=own_ns is not None and self._clock.was_set,
            flags=flags_of(queued.frame),
        )

    def apply(self, request: CameraRequest) -> bool:
        """Sets how many of the pictures are taken; nothing else of these cameras is controlled from here."""
        self._take(request.every)
        return True

    def _take(self, every: int) -> None:
        self._every = every
        if self._reader is not None:
            self._reader.every = every

    def close(self) -> None:
        """Lets the thread end; it closes the connection itself, as it may be waiting inside it."""
        if self._reader is not None:
            self._reader.end()
            self._reader = None
        self._held = None


class QueuedFrame(NamedTuple):
    """A decoded frame on its way to the loop."""

    frame: av.VideoFrame
    form: PictureForm
    arrived_ns: int
    own_ns: int | None
    """The device's own time."""
    number: int
    """From 1; gaps were dropped or damaged."""


class _Reader(threading.Thread):
    """Reads and decodes until `end` is called or the camera fails."""

    def __init__(self, address: Address, deinterlace: bool) -> None:
        super().__init__(name=f"read {address.shown}", daemon=True)
        self._address, self._deinterlace = address, deinterlace
        self._ready = threading.Condition()
        self._frames: deque[QueuedFrame] = deque(maxlen=QUEUE_LENGTH)
        self._number, self._damaged = 1, 0
        self._ending = False
        self._is_open = False
        """FFmpeg knows what the camera sends."""
        self._failure = ""
        self._decoded = 0
        self._is_live = False
        """The frames out of buffers are over."""
        self._newest: tuple[int, int] | None = None
        """The device's time and arrival of the newest frame."""
        self._first_ns = 0
        self.started_ns = now_ns()
        self.is_joining = False
        """Packets come, but no frame could be decoded yet."""
        self.every = 1
        """One picture of so many goes into the queue."""
        self.rate = 0.0

    def run(self) -> None:
        """Decodes until the end; a failure reaches the thread that waits."""
        failure = "the stream has ended"
        try:
            self._read()
        except (av.FFmpegError, OSError, IndexError) as error:
            failure = self._address.hide_secrets(self._explain(error))
        with self._ready:
            self._failure = failure
            self._ready.notify_all()

    def _explain(self, error: Exception) -> str:
        """Returns why FFmpeg failed; its own words for a camera that is silent are "Invalid data" or an I/O error."""
        is_late = not self._is_open and now_ns() - self.started_ns >= READ_S * 1e9
        if isinstance(error, av.error.ExitError) or is_late:  # its word for the time limit: Immediate exit requested
            return "no answer in time"
        return str(error) or type(error).__name__

    def wait(self, timeout_s: float) -> bool:
        """Waits for a picture. Raises: CameraError."""
        with self._ready:
            self._ready.wait_for(lambda: self._has_frame or self._failure, timeout_s)
            if not self._frames and self._failure:
                raise CameraError(f"{self._address.shown}: {self._failure}")
            return self._has_frame

    @property
    def _has_frame(self) -> bool:
        return bool(self._frames) and (self._is_live or now_ns() - self._frames[-1].arrived_ns > ALONE_NS)

    def peek(self) -> QueuedFrame:
        """Looks at the oldest picture that waits; only after `wait` was true."""
        with self._ready:
            return self._frames[0]

    def take(self) -> QueuedFrame:
        """Takes the oldest picture that waits."""
        with self._ready:
            return self._frames.popleft()

    def end(self) -> None:
        """Asks the thread to end; it does so at its next packet, or when the connection times out."""
        self._ending = True

    def _read(self) -> None:
        address = self._address
        with av.open(
            address.url, "r", format=address.format, options=dict(address.options), timeout=(OPEN_S, READ_S)
        ) as container:
            self._is_open = True
            # Frame threads would hold every picture back for one more.
            decoder = VideoDecoder(
                container, address.shown, threads="SLICE", deinterlace=self._deinterlace, is_joined=True
            )
            self.rate = decoder.declared_rate
            for frames in decoder.read():
                while frames:  # a frame kept here would cost FFmpeg one more buffer, and the caches
                    self._put(frames.pop(0), decoder)
                self.is_joining = not self._decoded and decoder.packets > 0
                if self._ending:
                    return

    def _put(self, frame: av.VideoFrame, decoder: VideoDecoder) -> None:
        own_ns, arrived_ns = None if frame.pts is None else round(frame.time * 1e9), now_ns()
        self._is_live = self._is_live or self._has_caught_up(own_ns, arrived_ns)
        self._decoded += 1
        if self._decoded % self.every:
            return
        with self._ready:
            if self._is_live:
                self._number += 1 + decoder.damaged - self._damaged
            else:
                self._frames.clear()
            self._damaged = decoder.damaged
            form = decoder.form_of(frame)
            self._frames.append(QueuedFrame(frame, form, arrived_ns, own_ns, self._number))  # drops its oldest if full
            self._ready.notify_all()

    def _has_caught_up(self, own_ns: int | None, arrived_ns: int) -> bool:
        """Tells whether frames come at their own pace, no longer out of buffers."""
        if own_ns is None:
            return True
        (last_own_ns, last_ns), self._newest = self._newest or (own_ns, arrived_ns), (own_ns, arrived_ns)
        self._first_ns = self._first_ns or arrived_ns
        own_pace = own_ns > last_own_ns and arrived_ns - last_ns >= OWN_PACE * (own_ns - last_own_ns)
        return own_pace or arrived_ns - self._first_ns > BACKLOG_NS
