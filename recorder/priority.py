"""Which of the recorder's threads goes first on a busy machine: the one that takes frames out of the ring."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

WRITING, FINISHING = 5, 15
"""Steps of niceness behind it. What is encoded can wait in the inbox, a closed file for hours; frames in the ring
cannot."""
LAST = 19


def give_way(steps: int) -> None:
    """Put this thread behind the others of its process (setpriority(2) is per thread on Linux)."""
    thread = threading.get_native_id()
    with suppress(OSError):
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(LAST, own + steps))
