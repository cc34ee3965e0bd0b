"""Unlinks, when the service ends, the rings that killed writers left in shared memory."""

from __future__ import annotations

from contextlib import suppress

from shm_ring.errors import RingError
from shm_ring.ownership import discard, list_locks
from shmcam.config.settings import Settings


def unlink_leftover_rings(settings: Settings) -> None:
    """Retires and unlinks each ring that has a writer's lock file in [paths] run and no writer that lives.

    A writer that ends unlinks its ring; one that was killed leaves it for the next, and after the last stop there is
    no next. Another user's segment stays.
    """
    run = settings.paths.run
    for camera, stream in list_locks(run):
        with suppress(RingError, OSError):
            discard(settings.ring_name(camera, stream), run, camera, stream)
