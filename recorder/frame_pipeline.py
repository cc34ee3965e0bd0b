"""Takes frames out of the ring, in order, from where a recording begins, and has them encoded.

A frame that is overwritten while it is encoded is lost and counted, and the next one is a key frame, so that nothing of
the torn one is ever seen.

Where encoded frames go: to live viewers, and into the clip they belong to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from recorder.clips.clip import NS, ClipOrder
from recorder.clips.writer import ClipWriter, End, QueuedUnit
from recorder.commands import RecordCommands
from recorder.encoding.encoder import AccessUnit
from recorder.encoding.session import EncoderSession
from recorder.live_packets import LivePackets
from recorder.status import Heartbeats
from recorder.triggers import Triggers
from shm_ring import FrameMeta, FrameOverwritten, RingCursor, Spot
from shmcam.runtime.clock import now_ns


class Delivery:
    """Used by the loop's thread only."""

    def __init__(
        self, encoding: EncoderSession, live: LivePackets, writer: ClipWriter, patient: Callable[[], bool]
    ) -> None:
        """`patient` is asked again and again while the writer takes nothing more; False: give up."""
        self.order: ClipOrder | None = None
        """Clip that the last frame belongs to."""
        self._encoding, self._live, self._writer, self._patient = encoding, live, writer, patient

    def deliver(self, units: Sequence[AccessUnit], *, more: bool = False) -> None:
        """Hand on what came out of the encoder; `more`: the next frame is there already."""
        track = self._encoding.track
        if track is None:
            return
        for unit in units:
            if self._live.wanted(recording=unit.order is not None):
                self._live.publish(unit, track, self._encoding.epoch)
            else:
                self._live.pause()
            if unit.order is not None:
                self._put(QueuedUnit(unit, track), more=more)

    def drain(self) -> None:
        """Hand on what the encoder still holds."""
        self.deliver(self._encoding.drain())

    def belongs(self, order: ClipOrder | None, reason: str) -> None:
        """Note which clip the last frame belongs to; the clip before is closed if that is none."""
        if order is None and self.order is not None:
            self.drain()
            self._put(End(reason), more=False)
        self.order = order

    def _put(self, item: QueuedUnit | End, *, more: bool) -> None:
        """Hand it to the writer; while too much waits for it, the ring is the buffer."""
        while not self._writer.put(item, more=more):
            if not self._patient():
                return


log = logging.getLogger(__name__)

PASS_S = 0.05
"""How long frames of a backlog are taken at a time: so long commands wait."""
LATE_NS = NS // 2
"""A frame may appear so long after it was captured: an ended clip is not closed before, if frames do not tell."""
SHORT = 1.5
"""A recording whose first frame comes more than so many frame periods after it was to begin lacks something."""


class Intake:
    """Used by the loop's thread only."""

    def __init__(
        self,
        *,
        cursor: RingCursor,
        encoding: EncoderSession,
        live: LivePackets,
        triggers: Triggers,
        writer: ClipWriter,
        delivery: Delivery,
        pulse: Heartbeats,
        orders: RecordCommands,
    ) -> None:
        self.busy = False
        """Frames are being encoded."""
        self.last_ns = 0
        """When the last encoded frame was captured."""
        self._cursor, self._encoding, self._live = cursor, encoding, live
        self._triggers, self._writer, self._delivery, self._pulse = triggers, writer, delivery, pulse
        self._orders = orders
        self._found = 0
        """Number of the order whose beginning was looked for."""
        self._sought_ns = 0
        """When it was to begin; 0: its first frame has been taken."""

    def take(self, wait_s: float) -> None:
        """Encode the next frame, which is waited for, and of those behind it what a pass has time for."""
        self._rewind()
        spot, until_s = self._cursor.step(wait_s), time.monotonic() + wait_s + PASS_S
        if spot is None:
            self.expire()
        while spot is not None:
            clip = self._delivery.order
            self._take(spot)
            more = self._delivery.order is clip and self._cursor.lag and time.monotonic() < until_s
            spot = self._cursor.step(0) if more else None

    def expire(self) -> None:
        """No frame comes: what has ended by the clock is closed."""
        self._triggers.expire(now_ns() - LATE_NS - self._pulse.period_ns)
        if not self._triggers.active:
            self._end_unless(None)

    def rest(self) -> None:
        """Nobody wants frames: hold nothing, not even a ring that has ended."""
        if self.busy:
            self._end_unless(None)
            self._encoding.drain()
            self._live.pause()
            self._pulse.pause()
            self.busy = False
        self._cursor.skip_to_newest()

    # ---- inside

    def _rewind(self) -> None:
        """Go to where a recording begins: once for each, and back in time if need be."""
        if not self.busy:
            self.busy = True
            self.last_ns = 0
            self._cursor.skip_to_newest()
        wanted = self._triggers.recording
        if wanted is None or self._delivery.order is not None or wanted.number == self._found:
            return
        self._found, self._sought_ns = wanted.number, 0
        begins_ns = self._triggers.start_ns
        if self.last_ns and begins_ns > self.last_ns:
            return  # live frames are being encoded already, and the recording begins with one of the next
        self._delivery.drain()
        self._encoding.force_key()
        self._cursor.seek(begins_ns)
        self._sought_ns = begins_ns

    def _take(self, spot: Spot) -> None:
        units: list[AccessUnit] = []
        meta: FrameMeta | None = None
        try:
            with spot.reader.borrow(spot.sequence) as frame:
                meta = frame.meta
                order = self._triggers.order(meta.captured_ns, meta.captured_utc_ns - meta.captured_ns)
                if self._encoding.changes_with(frame, meta):
                    self._delivery.drain()
                if self._writer.key_wanted or self._live.key_wanted:
                    self._encoding.force_key()
                    self._writer.key_wanted = self._live.key_wanted = False
                if wanted := order is not None or self._live.watched:
                    units = self._encoding.feed(frame, meta, order)
        except FrameOverwritten:
            self._cursor.lost += 1
            self._cursor.position += 1
            self._delivery.deliver(self._encoding.without(meta, units))
            return
        self._cursor.position += 1
        self._pulse.took(meta.captured_ns, encoded=wanted)
        self.last_ns = meta.captured_ns
        if order is not None and self._sought_ns:
            self._state(order, meta)
        lag = self._cursor.lag
        self._delivery.deliver(units, more=lag > 0)
        self._end_unless(order)
        self._encoding.pace(lag, self._cursor.slots)

    def _state(self, order: ClipOrder, first: FrameMeta) -> None:
        """Say by how much a recording begins later than it was to, if frames are missing there."""
        short_ns, self._sought_ns = first.captured_ns - self._sought_ns, 0
        period_ns = first.frame_duration_us * 1000 or self._encoding.period_ns
        if short_ns > SHORT * period_ns:
            self._orders.notes.append(f"asked for frames from {short_ns / NS:.3f} s earlier than the ring holds")
            log.info("pre-roll is short by_s=%.3f trigger=%s", short_ns / NS, order.trigger)

    def _end_unless(self, order: ClipOrder | None) -> None:
        """Close the clip if the last frame belongs to none."""
        self._delivery.belongs(order, "over" if self._triggers.active else "stopped")
