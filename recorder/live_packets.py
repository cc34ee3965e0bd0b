"""Publishes encoded frames for live viewers in the packets ring, while somebody wants them."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from recorder.clips.clip import Track
from recorder.encoding.encoder import AccessUnit
from recorder.settings import RecorderSettings
from shm_ring import Flags, RingError, RingWriter
from shm_ring.ownership import discard
from shm_ring.records import packets
from shmcam.runtime.timers import Backoff

log = logging.getLogger(__name__)


class LivePackets:
    """The packets ring of one camera; made when it is first needed, given back by `close`."""

    def __init__(self, name: str, lock_dir: Path, camera: str, settings: RecorderSettings) -> None:
        self.published = 0
        """Frames."""
        self.key_wanted = False
        """Viewers wait for a key frame, because frames before were not published."""
        self._name, self._lock_dir, self._camera, self._settings = name, lock_dir, camera, settings
        self._ring: RingWriter | None = None
        self._lease_s = 0.0
        self._backoff, self._retry_s = Backoff(), 0.0
        self._last_ns = 0
        self._joined = False

    def watch(self, seconds: float) -> None:
        """Somebody watches for so long."""
        self._lease_s = max(self._lease_s, time.monotonic() + seconds) if seconds else 0.0

    def wanted(self, *, recording: bool) -> bool:
        """Whether packets should be published now."""
        if self._settings.live == "always":
            return True
        if self._settings.live == "recording":
            return recording
        return time.monotonic() < self._lease_s

    @property
    def watched(self) -> bool:
        """Whether packets should be published although nothing is recorded."""
        return self.wanted(recording=False)

    def publish(self, unit: AccessUnit, track: Track, epoch: int) -> None:
        """Publish a frame, unless it is older than the last one (a pre-roll is no live video)."""
        if unit.row.captured_ns <= self._last_ns:
            self.pause()
            return
        if not self._joined and not unit.key:
            self.key_wanted = True
            return
        ring = self._ring or self._create(track.fps)
        if ring is None:
            return
        self._joined, self.key_wanted, self._last_ns = True, False, unit.row.captured_ns
        flags = (unit.row.flags | Flags.KEY) if unit.key else (unit.row.flags & ~Flags.KEY)
        meta = replace(unit.row, flags=int(flags))
        pts_us = unit.packet.pts or 0
        data, duration_us = bytes(unit.packet), unit.row.frame_duration_us
        packets.publish(ring, packets.Unit(data, meta, pts_us, duration_us, track.width, track.height, epoch))
        self.published += 1

    def pause(self) -> None:
        """Frames are left out: viewers go on at the next key frame."""
        self._joined = False

    def heartbeat(self) -> None:
        """Tell readers that the writer lives."""
        if self._ring is not None:
            self._ring.heartbeat()

    def close(self) -> None:
        """Retire the ring, also one that a killed recorder before us left."""
        if self._ring is not None:
            self._ring.retire()
            self._ring = None
        else:
            with suppress(RingError, OSError):
                discard(self._name, self._lock_dir, self._camera, packets.STREAM)

    def _create(self, fps: float) -> RingWriter | None:
        if time.monotonic() < self._retry_s:
            return None
        try:
            self._ring = RingWriter.create(
                self._name,
                slots=packets.slots_for(self._settings.live_seconds, fps),
                payload_bytes=packets.SLOT_BYTES,
                lock_dir=self._lock_dir,
                camera=self._camera,
                stream=packets.STREAM,
            )
        except (RingError, OSError) as error:
            self._retry_s = time.monotonic() + self._backoff.delay_s()
            log.warning("no live packets reason=%s", error)
            return None
        self._backoff.reset()
        log.info("live packets ring=%s %s", self._name, self._ring.account)
        return self._ring
