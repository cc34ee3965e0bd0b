"""The way of a frame: out of the ring, through the encoder, to live viewers and into the clip it belongs to.

Frames are taken in order, from the first one that a recording asks for (its pre-roll lies back in the ring). A frame
that is overwritten while it is encoded is lost and counted. The next one is then a key frame, so that no viewer and no
clip ever shows a part of the torn one.
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
from recorder.upscaled_preroll import EnlargedFrame, SmallPreroll
from shm_ring import Frame, FrameMeta, FrameOverwritten, RingCursor, Spot
from shmcam.control.client import Delegation
from shmcam.runtime.clock import now_ns

log = logging.getLogger(__name__)

PASS_S = 0.05
"""The longest time for which frames of a backlog are taken in one pass: a command waits no longer than this."""
LATE_NS = NS // 2
"""A frame may appear so long after it was captured. Without frames, an ended clip is not closed before that."""
SHORT_FRAMES = 1.5
"""A recording whose first frame comes more than so many frame periods after its start lacks frames."""


class FramePipeline:
    """Takes frames from the ring, encodes them and delivers them. Only the loop's thread uses it."""

    def __init__(
        self,
        *,
        cursor: RingCursor,
        encoder: EncoderSession,
        live: LivePackets,
        triggers: Triggers,
        writer: ClipWriter,
        heartbeats: Heartbeats,
        commands: RecordCommands,
        serve: Callable[[], bool],
        preroll: SmallPreroll | None = None,
    ) -> None:
        """`serve` is called again and again while the writer's queue is full; False: give up.

        `preroll`: that of the small ring, if there is one.
        """
        self.is_busy = False
        """Frames are being encoded."""
        self._cursor, self._encoder, self._live, self._triggers = cursor, encoder, live, triggers
        self._writer, self._heartbeats, self._commands, self._serve = writer, heartbeats, commands, serve
        self._preroll = preroll
        self._order: ClipOrder | None = None
        """The clip that the last frame belongs to."""
        self._last_ns = 0
        """Capture time of the last encoded frame."""
        self._sought_number = 0
        """Number of the last order to whose start the cursor was moved."""
        self._start_ns = 0
        """Start of that order, until its first frame has been taken; 0 then, and where the ring holds all of it."""

    @property
    def needs_frames(self) -> bool:
        """True if a recording or a viewer needs frames, now or soon."""
        return self._triggers.is_active or self._live.needs_frames

    def attach(self) -> bool:
        """Opens the camera's ring. Returns: whether there is one."""
        return self._cursor.attach() is not None

    def take(self, wait_s: float, waits: Delegation) -> None:
        """Waits for the next frame and encodes it, then as many of those behind it as fit into one pass."""
        self._seek_start()
        if self._preroll is not None and self._preroll.is_active:
            self._take_small_preroll(self._preroll)
            return
        with waits:
            spot = self._cursor.step(wait_s)
        if waits.has_handled:  # perhaps a start, whose pre-roll comes first
            self._seek_start()
            if self._preroll is not None and self._preroll.is_active:
                return
            spot = self._cursor.step(0)
        until_s = time.monotonic() + PASS_S
        if spot is None:
            self.expire()
        while spot is not None:
            order = self._order
            self._take(spot)
            more = self._order is order and self._cursor.lag and time.monotonic() < until_s
            spot = self._cursor.step(0) if more else None

    def expire(self) -> None:
        """Closes a clip whose end has come by the clock; called while no frame comes."""
        self._triggers.expire(self._commands.to_frame_time(now_ns() - LATE_NS - self._heartbeats.period_ns))
        if not self._triggers.is_active:
            self._set_order(None)

    def pause(self) -> None:
        """Closes the clip and the encoder while no frames are needed, and lets go of a ring that has ended."""
        if self.is_busy:
            self._set_order(None)
            self._encoder.drain()
            self._live.pause()
            self._heartbeats.reset_rate()
            self.is_busy = False
        self._cursor.skip_to_newest()

    def drain(self) -> None:
        """Delivers the frames that the encoder still holds."""
        self._deliver(self._encoder.drain())

    # ---- from the ring

    def _seek_start(self) -> None:
        """Moves the cursor to the start of a recording, once for each; the pre-roll is back in time."""
        if not self.is_busy:
            self.is_busy = True
            self._last_ns = 0
            self._cursor.skip_to_newest()
        order = self._triggers.recording
        if order is None or self._order is not None or order.number == self._sought_number:
            return
        self._sought_number, self._start_ns = order.number, 0
        start_ns = self._triggers.start_ns
        if self._last_ns and start_ns > self._last_ns:
            return  # live frames are being encoded already, and the recording begins with one of the next
        self.drain()
        self._encoder.force_key()
        self._start_ns = start_ns
        if self._preroll is None or not self._preroll.begin(start_ns, self._cursor.attach()):
            if self._cursor.seek(start_ns):
                self._start_ns = 0
            return
        self._commands.notes.append(f"the first {self._preroll.seconds:.1f} s are enlarged from the small ring")
        log.info("pre-roll from the small ring seconds=%.3f", self._preroll.seconds)

    def _take_small_preroll(self, preroll: SmallPreroll) -> None:
        """Takes frames of the small ring, enlarged, until the full-size one holds those that follow."""
        until_s = time.monotonic() + PASS_S
        while (frame := preroll.next_frame(self._cursor.attach())) is not None:
            units, order, is_encoded = self._encode(frame, frame.meta)
            self._finish_frame(frame.meta, order, units, is_encoded=is_encoded, lag=self._cursor.slots)
            if time.monotonic() > until_s:
                return
        self._cursor.seek(preroll.next_ns)

    def _take(self, spot: Spot) -> None:
        units: list[AccessUnit] = []
        meta: FrameMeta | None = None
        try:
            with spot.reader.borrow(spot.sequence) as frame:
                meta = frame.meta
                units, order, is_encoded = self._encode(frame, meta)
        except FrameOverwritten:
            self._cursor.lost += 1
            self._cursor.position += 1
            self._deliver(self._encoder.drop_torn(meta, units))
            return
        self._cursor.position += 1
        lag = self._cursor.lag
        self._finish_frame(meta, order, units, is_encoded=is_encoded, lag=lag)
        self._encoder.adapt_preset(lag, self._cursor.slots)

    def _encode(self, frame: Frame | EnlargedFrame, meta: FrameMeta) -> tuple[list[AccessUnit], ClipOrder | None, bool]:
        """Encodes a frame if a clip or a viewer needs it. Returns: what came out, its clip, whether it was encoded."""
        order = self._triggers.decide(meta.captured_ns, meta.captured_utc_ns - meta.captured_ns)
        if self._encoder.needs_drain(frame, meta):
            self.drain()
        if self._writer.needs_key or self._live.needs_key:
            self._encoder.force_key()
            self._writer.needs_key = self._live.needs_key = False
        is_encoded = order is not None or self._live.needs_frames
        return self._encoder.encode(frame, meta, order) if is_encoded else [], order, is_encoded

    def _finish_frame(
        self, meta: FrameMeta, order: ClipOrder | None, units: list[AccessUnit], *, is_encoded: bool, lag: int
    ) -> None:
        """Counts a frame and delivers what came out of the encoder; `lag`: frames that wait behind it."""
        self._heartbeats.count_frame(meta.captured_ns, encoded=is_encoded)
        self._last_ns = meta.captured_ns
        if order is not None and self._start_ns:
            self._report_short_preroll(order, meta)
        self._deliver(units, more=lag > 0)
        self._set_order(order)

    def _report_short_preroll(self, order: ClipOrder, first: FrameMeta) -> None:
        """Tells by how much a recording begins later than ordered, where the ring no longer held its first frames."""
        short_ns, self._start_ns = first.captured_ns - self._start_ns, 0
        period_ns = first.frame_duration_us * 1000 or self._encoder.period_ns
        if short_ns > SHORT_FRAMES * period_ns:
            self._commands.notes.append(f"asked for frames from {short_ns / NS:.3f} s earlier than the ring holds")
            log.info("pre-roll is short by_s=%.3f trigger=%s", short_ns / NS, order.trigger)

    # ---- to viewers and into the clip

    def _deliver(self, units: Sequence[AccessUnit], *, more: bool = False) -> None:
        """Hands on what came out of the encoder. `more`: the next frame is there already."""
        track = self._encoder.track
        if track is None:
            return
        for unit in units:
            if self._live.should_publish(recording=unit.order is not None):
                self._live.publish(unit, track, self._encoder.epoch)
            else:
                self._live.pause()
            if unit.order is not None:
                self._put(QueuedUnit(unit, track), more=more)

    def _set_order(self, order: ClipOrder | None) -> None:
        """Notes the clip that the last frame belongs to. If there is none, the clip before is closed."""
        if order is None and self._order is not None:
            reason = "over" if self._triggers.is_active else "stopped"
            self.drain()
            self._put(End(reason), more=False)
        self._order = order

    def _put(self, item: QueuedUnit | End, *, more: bool) -> None:
        """Puts an item into the writer's queue. While that is full, the frames wait in the ring."""
        while not self._writer.put(item, more=more):
            if not self._serve():
                return
