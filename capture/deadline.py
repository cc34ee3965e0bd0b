"""Ends the process when a call into a C library never returns; nothing else can.

libcamera's Python bindings keep the interpreter lock during their calls, so that no thread of ours could time one out;
faulthandler's timer is a C thread that needs no lock. There is one timer a process: deadlines do not nest.
"""

from __future__ import annotations

import faulthandler
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from shmcam.runtime.log import get_crash_descriptor

log = logging.getLogger(__name__)


def arm(seconds: float) -> None:
    """Ends the process with a traceback and exit code 1 after `seconds`, unless `disarm` comes first."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=get_crash_descriptor())


def disarm() -> None:
    """Cancels the deadline: the call returned."""
    faulthandler.cancel_dump_traceback_later()


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Ends the process if the block takes longer."""
    log.debug("%s, at most %.0f s", what, seconds)
    arm(seconds)
    try:
        yield
    finally:
        disarm()
