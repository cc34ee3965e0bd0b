"""Publishes encoded frames for live viewers in the packets ring, while there are viewers."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
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
    """The packets ring of one camera; created when it is first needed, retired by `close`."""

    def __init__(self, name: str, lock_dir: Path, camera: str, settings: RecorderSettings) -> None:
        self.published = 0
        """Counts published frames."""
        self.needs_key = False
        """Viewers wait for a key frame, because frames before were not published."""
        self._name, self._lock_dir, self._camera, self._settings = name, lock_dir, camera, settings
        self._ring: RingWriter | None = None
        self._lease_s = 0.0
        self._backoff, self._retry_s = Backoff(), 0.0
        self._last_ns = 0
        self._has_key = False
        """A key frame and all frames since have been published."""

    def watch(self, seconds: float, *, key: bool = False) -> None:
        """Publishes for so long from now, because viewers watch; 0 ends it. `key`: one of them needs a key frame."""
        self._lease_s = max(self._lease_s, time.monotonic() + seconds) if seconds else 0.0
        self.needs_key |= key

    def should_publish(self, *, recording: bool) -> bool:
        """Tells whether to publish a frame now. `recording`: it is recorded, too."""
        if self._settings.live == "always":
            return True
        if self._settings.live == "recording":
            return recording
        return time.monotonic() < self._lease_s

    @property
    def needs_frames(self) -> bool:
        """True if frames should be published although nothing is recorded."""
        return self.should_publish(recording=False)

    def publish(self, unit: AccessUnit, track: Track, epoch: int) -> None:
        """Publishes a frame, unless it is older than the last one (a pre-roll is no live video)."""
        if unit.meta.captured_ns <= self._last_ns:
            self.pause()
            return
        if not self._has_key and not unit.is_key:
            self.needs_key = True
            return
        ring = self._ring or self._create(track)
        if ring is None:
            return
        self._has_key, self.needs_key, self._last_ns = True, False, unit.meta.captured_ns
        flags = (unit.meta.flags | Flags.KEY) if unit.is_key else (unit.meta.flags & ~Flags.KEY)
        meta = unit.meta._replace(flags=int(flags))
        pts_us = unit.packet.pts or 0
        data, duration_us = bytes(unit.packet), unit.meta.frame_duration_us
        size = (track.width, track.height)
        packets.publish(
            ring, packets.Unit(data, meta, pts_us, duration_us, *size, epoch, sample_aspect=track.sample_aspect)
        )
        self.published += 1

    def pause(self) -> None:
        """Notes that frames are left out: viewers go on at the next key frame."""
        self._has_key = False

    def send_heartbeat(self) -> None:
        """Tells readers that the writer lives; a ring that another program removed or overwrote is made anew."""
        if self._ring is None:
            return
        self._ring.heartbeat()
        if not self._ring.intact:
            log.warning("ring %s: its name was taken away or its header overwritten; a new one follows", self._name)
            self._ring.retire()
            self._ring = None
            self.pause()

    def close(self) -> None:
        """Retires the ring, also one that a killed recorder before us left."""
        if self._ring is not None:
            self._ring.retire()
            self._ring = None
        else:
            with suppress(RingError, OSError):
                discard(self._name, self._lock_dir, self._camera, packets.STREAM)

    def _create(self, track: Track) -> RingWriter | None:
        if time.monotonic() < self._retry_s:
            return None
        try:
            self._ring = RingWriter.create(
                self._name,
                slots=packets.slots_for(self._settings.live_seconds, track.fps),
                payload_bytes=packets.slot_bytes_for(track.width, track.height),
                lock_dir=self._lock_dir,
                camera=self._camera,
                stream=packets.STREAM,
            )
        except (RingError, OSError) as error:
            self._retry_s = time.monotonic() + self._backoff.next_delay_s()
            log.warning("no live packets reason=%s", error)
            return None
        self._backoff.reset()
        log.info("live packets ring=%s %s", self._name, self._ring.account)
        return self._ring
