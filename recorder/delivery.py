"""Where encoded frames go: to live viewers, and into the clip they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recorder.clip_writer import ClipWriter
from recorder.encoder import AccessUnit
from recorder.encoding import Encoding
from recorder.inbox import End, Item
from recorder.live import LivePackets
from recorder.order import Order


class Delivery:
    """Used by the loop's thread only."""

    def __init__(self, encoding: Encoding, live: LivePackets, writer: ClipWriter, patient: Callable[[], bool]) -> None:
        """`patient` is asked again and again while the writer takes nothing more; False: give up."""
        self.order: Order | None = None
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
                self._put(Item(unit, track), more=more)

    def drain(self) -> None:
        """Hand on what the encoder still holds."""
        self.deliver(self._encoding.drain())

    def belongs(self, order: Order | None, reason: str) -> None:
        """Note which clip the last frame belongs to; the clip before is closed if that is none."""
        if order is None and self.order is not None:
            self.drain()
            self._put(End(reason), more=False)
        self.order = order

    def _put(self, item: Item | End, *, more: bool) -> None:
        """Hand it to the writer; while too much waits for it, the ring is the buffer."""
        while not self._writer.put(item, more=more):
            if not self._patient():
                return
