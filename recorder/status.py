"""How the recorder does, told to the hub: rate, how far it is behind, what it is writing.

What everybody is told of what the recorder's threads have done.
"""

from __future__ import annotations

import time

from recorder.clips.clip import NS
from recorder.clips.notices import Closed, Filed, Notice, Opened, Trouble
from recorder.clips.writer import ClipWriter
from recorder.encoding.session import EncoderSession
from recorder.live_packets import LivePackets
from recorder.triggers import Triggers
from shm_ring import RingCursor
from shmcam.control.client import ControlClient
from shmcam.control.messages import ClipClosed, Event, Failed, RecordingStarted, RecordingStopped
from shmcam.runtime.clock import RateMeter, now_ns

BEAT_S = 0.2
"""Signs of life; the hub hears of one a second."""
RATE_INTERVALS = 29
"""Intervals over which the frame rate is measured."""


class Heartbeats:
    """Counts frames and beats."""

    def __init__(
        self,
        *,
        control: ControlClient,
        cursor: RingCursor,
        encoder: EncoderSession,
        live: LivePackets,
        triggers: Triggers,
        writer: ClipWriter,
    ) -> None:
        self.encoded = 0
        """Frames that went into the encoder, and were not overwritten meanwhile."""
        self._control, self._cursor, self._encoder = control, cursor, encoder
        self._live, self._triggers, self._writer = live, triggers, writer
        self._rate = RateMeter(RATE_INTERVALS)
        self._beat_s = 0.0

    def took(self, captured_ns: int, *, encoded: bool) -> None:
        """A frame is done."""
        self.encoded += encoded
        self._rate.add(captured_ns)

    def pause(self) -> None:
        """No frames are taken for now."""
        self._rate.clear()

    @property
    def period_ns(self) -> int:
        """Time from one frame to the next, lately; 0: unknown."""
        return self._rate.period_ns

    @property
    def behind_s(self) -> float:
        """Age of the newest encoded frame, less one period, while others wait: viewers give way to this."""
        newest_ns = self._rate.newest_ns
        if newest_ns is None or not self._cursor.lag:
            return 0.0
        return max(0.0, (now_ns() - newest_ns - self.period_ns) / NS)

    def beat(self, *, busy: bool) -> None:
        """Tell the hub, a few times a second at most."""
        now_s = time.monotonic()
        if now_s < self._beat_s:
            return
        self._beat_s = now_s + BEAT_S
        current = self._writer.current()
        state = "recording" if current else "waiting" if self._triggers.active else "live" if busy else "idle"
        self._control.beat(
            state=state,
            reason=self._writer.trouble,
            fps=self._rate.per_s,
            lag=self._cursor.lag if busy else 0,
            laps=self._cursor.lost,
            behind_s=round(self.behind_s, 3),
            file=str(current[1]) if current else "",
            frames=current[2] if current else 0,
            drops=current[3] if current else 0,
            unwritten=self._writer.unwritten,
            queued=self._writer.waiting,
            encoder=self._encoder.codec,
            encoder_failures=self._encoder.failures,
            live_frames=self._live.published,
            encoded=self.encoded,
        )
        self._live.heartbeat()


def event_of(camera: str, notice: Notice) -> Event | None:
    """The event that a notice is worth; None: it is nobody else's business."""
    match notice:
        case Opened(order=order, path=path, frame_id=frame_id):
            return RecordingStarted(camera=camera, path=str(path), trigger=order.trigger, frame_id=frame_id)
        case Closed(path=path, totals=totals, reason=reason):
            return RecordingStopped(
                camera=camera, path=str(path), frames=totals.frames, drops=totals.drops, reason=reason[:300]
            )
        case Filed(closed=closed, bytes=size):
            return ClipClosed(
                camera=camera,
                path=str(closed.path),
                frames=closed.totals.frames,
                drops=closed.totals.drops,
                reason=closed.reason[:300],
                duration_s=closed.totals.duration_s,
                bytes=size,
            )
        case Trouble(reason=reason) if reason:
            return Failed(what=f"not recording: {reason}"[:500], camera=camera)
    return None
