"""What the recorder does all day: takes every frame in order, while somebody wants them, and hands them on.

The order of things in one pass: obey, tell, then at most one frame. Nothing here waits for a disk: the writer thread
does. A frame that is overwritten while it is encoded is lost and counted, and the next one is a key frame, so that
nothing of the torn one is ever seen.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator

from control.client import ControlClient
from control.messages import SettingChanged
from recorder.announcing import event_of
from recorder.clip_writer import ClipWriter, End, Item
from recorder.cursor import Cursor
from recorder.encoder import AccessUnit
from recorder.encoding import Encoding
from recorder.live import LivePackets
from recorder.order import NS, Order
from recorder.orders import Orders
from recorder.pulse import Pulse
from recorder.triggers import Triggers
from service.clock import now_ns
from service.stop import Stop
from shm_ring import FrameOverwritten, Spot

log = logging.getLogger(__name__)

WAIT_S = 0.2
"""How long one pass waits for a frame or a command."""
RING_S = 0.05
"""How often a ring is looked for that is not there yet: its first frames are wanted, too."""
LATE_NS = NS // 2
"""A frame may appear so long after it was captured: an ended clip is not closed before, if frames do not tell."""


class Loop:
    """Wiring of one camera's recorder; `run` until stop is requested."""

    def __init__(
        self,
        *,
        camera: str,
        control: ControlClient,
        cursor: Cursor,
        encoding: Encoding,
        live: LivePackets,
        orders: Orders,
        triggers: Triggers,
        writer: ClipWriter,
        stop: Stop,
    ) -> None:
        self._camera, self._control, self._cursor, self._encoding = camera, control, cursor, encoding
        self._live, self._orders, self._triggers, self._writer, self._stop = live, orders, triggers, writer, stop
        self._busy = False
        """Frames are being encoded."""
        self._order: Order | None = None
        """Clip that the last frame belongs to."""
        self._found = 0
        """Number of the order whose beginning was looked for."""
        self._last_ns = 0
        self._pulse = Pulse(
            control=control, cursor=cursor, encoding=encoding, live=live, triggers=triggers, writer=writer
        )
        self.changed: deque[SettingChanged] = deque(maxlen=64)
        """Changed settings for whoever owns them; the wiring looks here."""

    def run(self) -> Iterator[None]:
        """Work; yields once per pass so that the wiring can do what is its own."""
        while not self._stop.requested:
            self._obey()
            self._tell()
            self._pulse.beat(busy=self._busy)
            yield
            if self._writer.failure is not None:
                raise self._writer.failure
            if not self._triggers.active and not self._live.watched:
                self._rest()
                self._control.wait(WAIT_S)
                continue
            if self._cursor.attach() is None:
                self._expire()
                self._control.wait(RING_S)
                continue
            self._rewind()
            spot = self._cursor.step(WAIT_S)
            if spot is None:
                self._expire()
            else:
                self._take(spot)
        self._flush()

    # ---- commands and answers

    def _obey(self) -> None:
        for request in self._control.received():
            if isinstance(request.message, SettingChanged):
                self.changed.append(request.message)
            else:
                self._orders.obey(request)

    def _tell(self) -> None:
        while not self._writer.notices.empty():
            notice = self._writer.notices.get()
            self._orders.noticed(notice)
            if (event := event_of(self._camera, notice)) is not None:
                self._control.announce(event)
        self._orders.overdue()

    # ---- frames

    def _rewind(self) -> None:
        """Go to where a recording begins: once for each, and back in time if need be."""
        if not self._busy:
            self._busy = True
            self._last_ns = 0
            self._cursor.newest()
        wanted = self._triggers.recording
        if wanted is None or self._order is not None or wanted.number == self._found:
            return
        self._found = wanted.number
        begins_ns = self._triggers.start_ns
        if self._last_ns and begins_ns > self._last_ns:
            return  # live frames are being encoded already, and the recording begins with one of the next
        self._deliver(self._encoding.drain())
        self._encoding.force_key()
        missing_from_ns = self._cursor.seek(begins_ns)
        if missing_from_ns is not None:
            self._regret(begins_ns, missing_from_ns)

    def _regret(self, begins_ns: int, oldest_ns: int) -> None:
        order = self._triggers.recording
        text = f"asked for frames from {(oldest_ns - begins_ns) / NS:.2f} s earlier than the ring holds"
        self._orders.notes.append(text)
        log.info("pre-roll is short by_s=%.3f trigger=%s", (oldest_ns - begins_ns) / NS, order.trigger if order else "")

    def _take(self, spot: Spot) -> None:
        units: list[AccessUnit] = []
        try:
            with spot.reader.borrow(spot.sequence) as frame:
                meta = frame.meta
                order = self._triggers.order(meta.captured_ns)
                if self._encoding.changes_with(frame, meta):
                    self._deliver(self._encoding.drain())
                if self._writer.key_wanted or self._live.key_wanted:
                    self._encoding.force_key()
                    self._writer.key_wanted = self._live.key_wanted = False
                if order is not None or self._live.watched:
                    units = self._encoding.feed(frame, meta, order)
                    self._pulse.encoded += 1
        except FrameOverwritten:
            self._cursor.lost += 1
            self._encoding.force_key()
            self._cursor.advance()
            return
        self._cursor.advance()
        self._last_ns = meta.captured_ns
        self._pulse.took(meta.captured_ns)
        self._deliver(units)
        self._end_unless(order)
        self._encoding.pace(self._cursor.lag, self._cursor.slots)

    def _deliver(self, units: list[AccessUnit]) -> None:
        track = self._encoding.track
        for unit in units:
            if track is None:
                return
            if self._live.wanted(recording=unit.order is not None):
                self._live.publish(unit, track, self._encoding.epoch)
            else:
                self._live.pause()
            if unit.order is not None:
                self._put(Item(unit, track))

    def _put(self, item: Item | End) -> None:
        """Hand it to the writer; while its queue is full the ring is the buffer."""
        while not self._writer.put(item, WAIT_S):
            self._pulse.beat(busy=True)
            if self._stop.requested or self._writer.failure is not None:
                return

    def _end_unless(self, order: Order | None) -> None:
        """Close the clip if this frame belongs to none."""
        if order is None and self._order is not None:
            self._deliver(self._encoding.drain())
            self._put(End("stopped" if not self._triggers.active else "over"))
        self._order = order

    def _expire(self) -> None:
        """No frame comes: what has ended by the clock is closed."""
        self._triggers.expire(now_ns() - LATE_NS - self._pulse.period_ns)
        if not self._triggers.active:
            self._end_unless(None)

    def _rest(self) -> None:
        if self._busy:
            self._end_unless(None)
            self._encoding.drain()
            self._live.pause()
            self._pulse.pause()
            self._busy = False

    def _flush(self) -> None:
        """Asked to stop: what the encoder holds still belongs into the clip."""
        self._deliver(self._encoding.drain())

    @property
    def last_ns(self) -> int:
        """When the last encoded frame was captured."""
        return self._last_ns

    @property
    def encoded(self) -> int:
        """Frames that went into the encoder."""
        return self._pulse.encoded

    @property
    def lost(self) -> int:
        """Frames that were overwritten before they were encoded."""
        return self._cursor.lost
