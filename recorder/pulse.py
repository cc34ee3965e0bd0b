"""How the recorder does, told to the hub: rate, how far it is behind, what it is writing."""

from __future__ import annotations

import time
from collections import deque

from control.client import ControlClient
from recorder.clip_writer import ClipWriter
from recorder.encoding import Encoding
from recorder.live import LivePackets
from recorder.order import NS
from recorder.triggers import Triggers
from service.clock import now_ns
from shm_ring import Cursor

BEAT_S = 0.2
"""Signs of life; the hub hears of one a second."""
FPS_OVER = 30
"""Frames over which the rate is measured."""


class Pulse:
    """Counts frames and beats."""

    def __init__(
        self,
        *,
        control: ControlClient,
        cursor: Cursor,
        encoding: Encoding,
        live: LivePackets,
        triggers: Triggers,
        writer: ClipWriter,
    ) -> None:
        self.encoded = 0
        """Frames that went into the encoder, and were not overwritten meanwhile."""
        self._control, self._cursor, self._encoding = control, cursor, encoding
        self._live, self._triggers, self._writer = live, triggers, writer
        self._times: deque[int] = deque(maxlen=FPS_OVER)
        self._beat_s = 0.0

    def took(self, captured_ns: int, *, encoded: bool) -> None:
        """A frame is done."""
        self.encoded += encoded
        self._times.append(captured_ns)

    def pause(self) -> None:
        """No frames are taken for now."""
        self._times.clear()

    @property
    def period_ns(self) -> int:
        """Time from one frame to the next, lately; 0: unknown."""
        times = self._times
        return (times[-1] - times[0]) // (len(times) - 1) if len(times) > 1 else 0

    @property
    def behind_s(self) -> float:
        """Age of the newest encoded frame, less one period, while others wait: viewers give way to this."""
        if not self._times or not self._cursor.lag:
            return 0.0
        return max(0.0, (now_ns() - self._times[-1] - self.period_ns) / NS)

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
            fps=NS / self.period_ns if self.period_ns > 0 else 0.0,
            lag=self._cursor.lag if busy else 0,
            laps=self._cursor.lost,
            behind_s=round(self.behind_s, 3),
            file=str(current[1]) if current else "",
            frames=current[2] if current else 0,
            drops=current[3] if current else 0,
            unwritten=self._writer.unwritten,
            queued=self._writer.waiting,
            encoder=self._encoding.codec,
            encoder_failures=self._encoding.failures,
            live_frames=self._live.published,
            encoded=self.encoded,
        )
        self._live.heartbeat()
