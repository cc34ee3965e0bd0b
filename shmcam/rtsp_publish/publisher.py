"""One camera's access units on their way to the RTSP server; connects again when it breaks."""

from __future__ import annotations

import logging
import time
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from shm_ring import LiveRing
from shm_ring.records.packets import Unit, follow
from shmcam.network.connection_errors import reason_of
from shmcam.rtsp_publish.address import to_shown
from shmcam.rtsp_publish.rtsp_connection import Stopped, open_stream
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff
from shmcam.video.annexb import ParameterSets, find_parameter_sets

log = logging.getLogger(__name__)

IDLE_S = 0.5
FRAMELESS_S = 5.0
"""A recorder that is asked for packets sends a key frame within this time."""
SETTLED_S = 10.0
"""A connection that has lasted so long was a good one; the next trouble is a new one."""


class PublisherStatus(Struct, frozen=True):
    """How one camera's publishing goes; replaced, never changed, as two threads read it."""

    state: str = "waiting"
    """waiting (for frames), published or retrying."""
    reason: str = ""
    """For retrying: what the server or the network said."""
    units: int = 0
    """Access units sent since start."""
    sent_bytes: int = 0
    connections: int = 0
    """Connections since start."""


class Publisher:
    """The work of one thread."""

    def __init__(self, camera: str, url: str, ring: LiveRing, stop: Stop) -> None:
        self.camera = camera
        self.status = PublisherStatus()
        self.needs_key = True
        """The recorder is to be asked for a key frame; the loop does, and takes it back."""
        self._url, self._ring, self._stop = url, ring, stop
        self._backoff = Backoff()

    def run(self) -> None:
        """Publishes until stop is requested."""
        while not self._stop.requested:
            try:
                self._publish()
            except Stopped:
                return
            except OSError as error:
                delay_s = self._backoff.next_delay_s()
                reason = reason_of(error)
                self._note(state="retrying", reason=f"{to_shown(self._url)}: {reason}")
                log.warning("cannot publish camera=%s to=%s reason=%s", self.camera, to_shown(self._url), reason)
                self._stop.wait(delay_s)
                self._note(state="waiting")
                self.needs_key = True

    # ---- inside

    def _publish(self) -> None:
        """Publishes one stream: until stop is requested, or another encoder or size begins. Raises: OSError."""
        began_s = time.monotonic()
        for unit in follow(self._ring, idle_s=IDLE_S):
            if self._stop.requested:
                return
            if self.status.reason and time.monotonic() - began_s > FRAMELESS_S:
                self._note(reason="")  # no frames come: how the server is by now is not known
            sets = find_parameter_sets(unit.data) if unit and unit.key else None
            if unit and sets:
                self._publish_stream(unit, sets)
                return

    def _publish_stream(self, first: Unit, sets: ParameterSets) -> None:
        """Connects, and sends what follows the key frame that the connection was opened for."""
        with open_stream(self._url, self.camera, sets, self._stop) as connection:
            self.needs_key = True  # the one that opened the connection is old by now
            began_s, is_begun = time.monotonic(), False
            for unit in follow(self._ring, idle_s=IDLE_S):
                if self._stop.requested:
                    return
                if unit is None:
                    connection.keep_alive()
                    continue
                if unit.key and find_parameter_sets(unit.data) != sets:
                    log.info("another stream begins camera=%s", self.camera)
                    self.needs_key = True
                    return
                connection.send_unit(unit.data, unit.pts_us - first.pts_us)
                if not is_begun:
                    is_begun = True
                    log.info("published camera=%s to=%s", self.camera, to_shown(self._url))
                    self._note(state="published", reason="", connections=self.status.connections + 1)
                if time.monotonic() - began_s > SETTLED_S:
                    self._backoff.reset()
                self._note(units=self.status.units + 1, sent_bytes=self.status.sent_bytes + len(unit.data))

    def _note(self, **fields: Any) -> None:
        self.status = replace(self.status, **fields)
