"""Tells the hub how the recorder is: heartbeats (rate, delay, file) and the events of its threads."""

from __future__ import annotations

import time

from recorder.clips.clip import NS
from recorder.clips.writer import ClipWriter
from recorder.clips.writer_events import Closed, Filed, Notice, Opened, Trouble
from recorder.encoding.session import EncoderSession
from recorder.live_packets import LivePackets
from recorder.triggers import Triggers
from shm_ring import RingCursor
from shmcam.control.client import ControlClient
from shmcam.control.messages import ClipClosed, Event, Failed, RecordingStarted, RecordingStopped
from shmcam.runtime.clock import RateMeter, now_ns, to_utc_ns

BEAT_S = 0.5
"""Seconds between two heartbeats at least; the hub passes on one a second."""
RATE_INTERVALS = 29
"""Intervals over which the frame rate is measured."""


class Heartbeats:
    """Counts frames, and sends heartbeats that tell the hub how the recorder is."""

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
        """Frames that went into the encoder and were not overwritten meanwhile."""
        self._control, self._cursor, self._encoder = control, cursor, encoder
        self._live, self._triggers, self._writer = live, triggers, writer
        self._rate = RateMeter(RATE_INTERVALS)
        self._next_beat_s = 0.0

    def count_frame(self, captured_ns: int, *, encoded: bool) -> None:
        """Counts a frame that was taken from the ring."""
        self.encoded += encoded
        self._rate.add(captured_ns)

    def reset_rate(self) -> None:
        """Forgets the frame rate: no frames are taken for now."""
        self._rate.clear()

    @property
    def period_ns(self) -> int:
        """The mean time from one frame to the next; 0: unknown."""
        return self._rate.period_ns

    @property
    def behind_s(self) -> float:
        """Age of the newest encoded frame, less one period, while others wait; the streamer serves less then."""
        newest_ns = self._rate.newest_ns
        if newest_ns is None or not self._cursor.lag:
            return 0.0
        return max(0.0, (now_ns() - newest_ns - self.period_ns) / NS)

    def beat(self, *, busy: bool) -> None:
        """Sends a heartbeat, a few times a second at most. `busy`: frames are being encoded."""
        now_s = time.monotonic()
        if now_s < self._next_beat_s:
            return
        self._next_beat_s = now_s + BEAT_S
        current = self._writer.current
        state = "recording" if current else "waiting" if self._triggers.is_active else "live" if busy else "idle"
        self._control.beat(
            state=state,
            reason=self._writer.trouble or self._writer.retention_trouble,
            fps=self._rate.per_s,
            lag=self._cursor.lag if busy else 0,
            laps=self._cursor.lost,
            behind_s=round(self.behind_s, 3),
            file=str(current[1]) if current else "",
            frames=current[2] if current else 0,
            drops=current[3] if current else 0,
            since_utc_ns=to_utc_ns(current[0].start_ns) if current else 0,
            unwritten=self._writer.unwritten,
            queued=self._writer.queue_length,
            encoder=self._encoder.codec,
            encoder_failures=self._encoder.failures,
            live_frames=self._live.published,
            encoded=self.encoded,
            retention=self._writer.retention_trouble,
        )
        self._live.send_heartbeat()


def event_of(camera: str, notice: Notice) -> Event | None:
    """Returns the event that a notice is announced as; None: it is not announced."""
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
