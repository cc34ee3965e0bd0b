"""The request to stop a process: a flag and a pipe, never a lock.

`threading.Event.set()` in a signal handler can hang the process for good when the signal lands inside the same
event's `wait()`. So the handler sets a boolean, and the interpreter itself writes the
signal's number into a pipe (`signal.set_wakeup_fd`) that every waiting thread can select on.
"""

from __future__ import annotations

import os
import select
import signal
import weakref
from types import FrameType


class Stop:
    """A stop flag for everything that waits. The pipe is never drained, so it wakes all waiters, for ever."""

    def __init__(self) -> None:
        self.requested = False
        self.failed = False
        """True if the process must end with an error, because a part of it failed (see `fail`)."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # a process has one for its life; a program that makes hundreds, such as our tests, gets the descriptors back
        weakref.finalize(self, _close, self._read, self._write).atexit = False

    def request(self) -> None:
        """Requests the stop; callable from any thread and from a signal handler."""
        self.requested = True
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # full: it has been readable for 65,536 requests already

    def fail(self) -> None:
        """Ends the process because one of its threads or tasks failed; callable from any thread.

        `startup` then exits 1, so that supervisord's log tells a failure from a stop; it restarts after both.
        """
        self.failed = True
        self.request()

    def wait(self, seconds: float) -> bool:
        """Sleeps until the stop is requested, at most `seconds`. Returns: True if it is requested."""
        if not self.requested and select.select([self._read], [], [], max(0.0, seconds))[0]:
            self.requested = True
        return self.requested

    def fileno(self) -> int:
        """Returns a descriptor that is readable once the stop is requested; for select, poll and asyncio."""
        return self._read

    def catch_signals(self, *signals: signal.Signals) -> None:
        """Lets SIGTERM and SIGINT (or the given ones) request the stop. Main thread only."""
        for number in signals or (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        # Wakes select() in every thread even while the main thread sits in C code and cannot run the handler.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
