"""Takes the newest frame of a camera as a JPEG, for hooks that attach one. Imports numpy and OpenCV when it is used."""

from __future__ import annotations

import logging

from shmcam.config.settings import Settings

log = logging.getLogger(__name__)

QUALITY = 85
WIDTH_MAX = 1280
"""A push message or a mail needs no more, and a queue of them has a limit."""


def take_picture(settings: Settings, camera: str) -> bytes | None:
    """Returns the newest frame; None: there is none now."""
    from shm_ring import RingError, RingReader
    from shmcam.imaging.jpeg import to_jpeg

    try:
        with RingReader.open(settings.ring_name(camera)) as ring:
            newest = ring.latest()
            if newest is None:
                return None
            frame = ring.copy(newest)
            return to_jpeg(frame.payload, frame.picture_geometry, QUALITY, width=WIDTH_MAX)
    except (RingError, OSError, ValueError) as problem:
        log.warning("no picture of camera=%s: %s", camera, problem)
        return None
