"""What the recorder does all day: obey, tell, and take the frames that somebody wants.

Nothing here waits for a disk: the writer thread does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from recorder.clips.writer import ClipWriter
from recorder.commands import RecordCommands
from recorder.encoding.session import EncoderSession
from recorder.frame_pipeline import Delivery, Intake
from recorder.live_packets import LivePackets
from recorder.status import Heartbeats, event_of
from recorder.triggers import Triggers
from shm_ring import RingCursor
from shmcam.control.client import ControlClient
from shmcam.control.messages import SettingChanged
from shmcam.runtime.stop import Stop

WAIT_S = 0.2
"""How long one pass waits for a frame or a command."""
RING_S = 0.05
"""How often a ring is looked for that is not there yet: its first frames are wanted, too."""


class RecorderLoop:
    """Wiring of one camera's recorder; `run` until stop is requested."""

    def __init__(
        self,
        *,
        camera: str,
        control: ControlClient,
        cursor: RingCursor,
        encoding: EncoderSession,
        live: LivePackets,
        orders: RecordCommands,
        triggers: Triggers,
        writer: ClipWriter,
        stop: Stop,
    ) -> None:
        self.changed: deque[SettingChanged] = deque(maxlen=64)
        """Changed settings for whoever owns them; the wiring looks here."""
        self._camera, self._control, self._cursor, self._live = camera, control, cursor, live
        self._orders, self._triggers, self._writer, self._stop = orders, triggers, writer, stop
        self._pulse = Heartbeats(
            control=control, cursor=cursor, encoding=encoding, live=live, triggers=triggers, writer=writer
        )
        self._delivery = Delivery(encoding, live, writer, self._patient)
        self._intake = Intake(
            cursor=cursor,
            encoding=encoding,
            live=live,
            triggers=triggers,
            writer=writer,
            delivery=self._delivery,
            pulse=self._pulse,
            orders=orders,
        )

    def run(self) -> Iterator[None]:
        """Work; yields once per pass so that the wiring can do what is its own."""
        while not self._stop.requested:
            self._obey()
            self.tell()
            self._pulse.beat(busy=self._intake.busy)
            yield
            if self._writer.failure is not None:
                raise self._writer.failure
            if not self._triggers.active and not self._live.watched:
                self._intake.rest()
                self._control.wait(WAIT_S)
            elif self._cursor.attach() is None:
                self._intake.expire()
                self._control.wait(RING_S)
            else:
                self._intake.take(WAIT_S)
        self._delivery.drain()  # what the encoder holds still belongs into the clip

    def _obey(self) -> None:
        for request in self._control.receive():
            if isinstance(request.message, SettingChanged):
                self.changed.append(request.message)
            else:
                self._orders.obey(request)

    def tell(self) -> None:
        """Tell the hub, and whoever asked, what the writer has done since the last time."""
        while not self._writer.notices.empty():
            notice = self._writer.notices.get()
            self._orders.noticed(notice)
            if (event := event_of(self._camera, notice)) is not None:
                self._control.announce(event)
        self._orders.overdue()

    def _patient(self) -> bool:
        """While the writer takes nothing more: we live, answer, and wait until the process is to end."""
        self._obey()
        self.tell()
        self._pulse.beat(busy=True)
        return not self._stop.requested and self._writer.failure is None

    @property
    def encoded(self) -> int:
        """Frames that were encoded and not torn."""
        return self._pulse.encoded

    @property
    def lost(self) -> int:
        """Frames that were overwritten before they were encoded."""
        return self._cursor.lost
