"""Wakes a thread that waits in poll or select."""

from __future__ import annotations

import contextlib
import os
import threading


class Bell:
    """An eventfd that any thread may ring, also while another closes it: its number may be another file's by then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rings = False

    def fileno(self) -> int:
        """Readable while it rings."""
        return self._descriptor

    def ring(self) -> None:
        """Wake whoever waits; once closed, nobody does."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it rings already
            if self._descriptor >= 0:
                self._rings = True
                os.eventfd_write(self._descriptor, 1)

    def hush(self) -> None:
        """Stop ringing; costs nothing where it does not, as it is asked once per frame."""
        if not self._rings:
            return
        with self._lock, contextlib.suppress(BlockingIOError):
            self._rings = False
            if self._descriptor >= 0:
                os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
