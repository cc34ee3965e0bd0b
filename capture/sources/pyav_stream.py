"""Cameras that FFmpeg reads: RTSP and HTTP streams, V4L2 devices.

A thread waits for them, so that the loop never does. The newest frame waits in a queue of two; frames that the loop
does not fetch in time are dropped and counted.

ArrivalClock puts frames of a device with a clock of its own on the sensor clock, without the jitter of their way. A
frame can only be late, never early: of all distances between the two clocks the smallest is the truest (moonfire-nvr
and RMS do the same). The estimate may creep by 500 ppm, so that clocks that drift apart are followed.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import av

from capture.sources.base import CameraError, CameraRequest, OpenedSource, Payload, ShotMeta
from capture.sources.decoded_frame import geometry_of, write_frame
from capture.sources.stream_address import Address
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop

SLEW = 500e-6
"""Two crystals differ by less (moonfire-nvr, design/time.md)."""

RESET_NS = 2_000_000_000
"""Further off than this is no jitter: the device was set anew, or its stream started over."""


@dataclass
class ArrivalClock:
    """Estimates the capture time of each frame from its own timestamp and its arrival."""

    _offset_ns: float | None = field(default=None, init=False)
    _last_ns: int = field(default=0, init=False)

    def captured_ns(self, own_ns: int, arrived_ns: int) -> int:
        """Returns the sensor-clock time of a frame with the device's time `own_ns` that arrived at `arrived_ns`."""
        distance = arrived_ns - own_ns
        if self._offset_ns is None or abs(distance - self._offset_ns) > RESET_NS:
            self._offset_ns = distance
        else:
            crept = self._offset_ns + SLEW * max(0, arrived_ns - self._last_ns)
            self._offset_ns = min(crept, distance)
        self._last_ns = arrived_ns
        return round(own_ns + self._offset_ns)


OPEN_S = 8.0
"""Longest wait for a network camera to answer and send its first picture."""
READ_S = 5.0
"""FFmpeg gives a silent connection up after this; the loop has reported the stall long before."""
QUEUE_LENGTH = 2


class LiveSource:
    """Sources "url" and "v4l2"; see capture.sources.base.FrameSource."""

    def __init__(self, kind: str, address: Address) -> None:
        self._kind, self._address = kind, address
        self._reader: _Reader | None = None
        self._clock = ArrivalClock()
        self._last = 0
        self._every = 1

    @property
    def description(self) -> str:
        """Kind and address, without passwords."""
        return f"{self._kind} {self._address.shown}"

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Connects and waits for the first picture. Raises: CameraError."""
        self.close()
        self._clock, self._last = ArrivalClock(), 0
        self._reader = _Reader(self._address)
        self._reader.start()
        deadline_ns = now_ns() + round(OPEN_S * 1e9)
        while not self._reader.wait(0.1):
            if stop.requested or now_ns() > deadline_ns:
                self.close()
                raise CameraError(f"{self.description}: no picture within {OPEN_S:.0f} s")
        self._geometry = geometry_of(self._reader.peek())
        self._take(request.every)
        refused = dict.fromkeys(request.controls, "not offered by this kind of camera")
        return OpenedSource(self._geometry, framerate=self._reader.rate, refused=refused)

    def wait(self, timeout_s: float) -> bool:
        """Waits for a picture. Raises: CameraError when the connection has ended."""
        if self._reader is None:
            raise CameraError(f"{self.description} is closed")
        return self._reader.wait(timeout_s)

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Copies or converts the picture that waits."""
        if self._reader is None:
            raise CameraError(f"{self.description} is closed")
        frame, arrived_ns, number = self._reader.take()
        write_frame(frame, payload, self._geometry)
        lost, self._last = (number - self._last - 1 if self._last else 0), number  # making the ring is no loss
        own_ns = None if frame.pts is None else round(frame.pts * self._reader.tick_s * 1e9)
        captured_ns = arrived_ns if own_ns is None else self._clock.captured_ns(own_ns, arrived_ns)
        duration_us = round(1e6 * self._every / self._reader.rate) if self._reader.rate else 0
        return ShotMeta(captured_ns=captured_ns, frame_duration_us=duration_us, lost_before=lost)

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


class _Reader(threading.Thread):
    """Reads and decodes until `end` is called or the camera fails."""

    def __init__(self, address: Address) -> None:
        super().__init__(name=f"read {address.shown}", daemon=True)
        self._address = address
        self._ready = threading.Condition()
        self._frames: deque[tuple[av.VideoFrame, int, int]] = deque(maxlen=QUEUE_LENGTH)
        self._number = 0
        self._ending = False
        self._failure = ""
        self._decoded = 0
        self.every = 1
        """One picture of so many goes into the queue."""
        self.rate = 0.0
        self.tick_s = 0.0

    def run(self) -> None:
        """Decodes until the end; a failure reaches the thread that waits."""
        failure = "the stream has ended"
        try:
            self._read()
        except (av.FFmpegError, OSError, IndexError) as error:
            failure = self._address.hide_secrets(str(error)) or type(error).__name__
        with self._ready:
            self._failure = failure
            self._ready.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits for a picture. Raises: CameraError."""
        with self._ready:
            self._ready.wait_for(lambda: self._frames or self._failure, timeout_s)
            if not self._frames and self._failure:
                raise CameraError(f"{self._address.shown}: {self._failure}")
            return bool(self._frames)

    def peek(self) -> av.VideoFrame:
        """Looks at the oldest picture that waits; only after `wait` was true."""
        with self._ready:
            return self._frames[0][0]

    def take(self) -> tuple[av.VideoFrame, int, int]:
        """Takes the oldest picture that waits: frame, arrival, and its number, from 1; gaps were dropped."""
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
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # frame threads would hold every picture back for one more
            rate = stream.average_rate
            self.rate = float(rate) if rate else 0.0
            self.tick_s = float(stream.time_base or 0)
            for packet in container.demux(stream):
                for frame in packet.decode():
                    self._put(frame)
                if self._ending:
                    return

    def _put(self, frame: av.VideoFrame) -> None:
        self._decoded += 1
        if self._decoded % self.every:
            return
        with self._ready:
            self._number += 1
            self._frames.append((frame, now_ns(), self._number))  # a full queue drops its oldest
            self._ready.notify_all()
