"""Finished frames on their way from Picamera2's thread to the capture loop: a bounded queue that wakes the loop.

Picamera2's own ways of waiting lose requests when they time out (a job that nobody waits for keeps its buffers for
ever); a callback and a queue do not. What does not fit goes back to the camera at once, oldest first.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from service.stop import Stop

log = logging.getLogger(__name__)


class Arrivals:
    """Holds at most `most` requests. `arrived` is called on Picamera2's thread, all else by the capture loop.

    Requests that are not `whole` are passed over: one damaged frame is a lost frame, and when all are damaged the loop
    sees that nothing comes and opens the camera anew.
    """

    def __init__(self, most: int, whole: Callable[[Any], bool], stop: Stop) -> None:
        self._most, self._whole, self._stop = most, whole, stop
        self._damaged = 0
        self._requests: deque[Any] = deque()
        self._lock = threading.Lock()
        self._count = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self.dropped = 0
        """Frames given back unseen because the loop was late; timestamps show them as lost frames too."""

    def arrived(self, request: Any) -> None:
        """Picamera2's callback for every good frame."""
        if not self._whole(request):
            self._damaged += 1
            return
        if self._damaged:
            log.warning("damaged frames passed over n=%d", self._damaged)
            self._damaged = 0
        request.acquire()
        late = None
        with self._lock:
            self._requests.append(request)
            if len(self._requests) > self._most:
                late = self._requests.popleft()
                self.dropped += 1
            else:
                os.eventfd_write(self._count, 1)
        if late is not None:
            late.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is a frame. Returns: whether there is one; False at once when stop is requested."""
        if self._requests:
            return True
        ready, _, _ = select.select([self._count, self._stop.fileno()], [], [], max(0.0, timeout_s))
        return self._count in ready

    def take(self) -> Any | None:
        """The oldest frame, or None. The caller releases it."""
        with self._lock:
            if not self._requests:
                return None
            os.eventfd_read(self._count)
            return self._requests.popleft()

    def clear(self) -> None:
        """Give everything back."""
        while (request := self.take()) is not None:
            request.release()

    def close(self) -> None:
        """Give everything back and close the event descriptor."""
        self.clear()
        os.close(self._count)
