"""Answers `detect`, which looks for the cameras of this machine, in a thread of its own."""

from __future__ import annotations

import queue

from shmcam.control.client import Request
from shmcam.control.messages import Reply, error
from shmcam.runtime.guarded_thread import Worker

WAITING_MAX = 16
"""Requests that may wait; one takes a second at most."""


class DetectCommand:
    """The command, answered by a thread: looking can take a second, and frames do not wait.

    It begins with the first request and stays, as beginning one takes longer than to look where there are no cameras.
    """

    def __init__(self) -> None:
        self._requests: queue.Queue[Request] = queue.Queue(WAITING_MAX)
        self._worker = Worker("detect", self._run, stop=None)
        self._is_started = False

    def answer(self, request: Request) -> None:
        """Has a request answered; never waits."""
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            request.reply(error(f"busy: {WAITING_MAX} requests to look for cameras wait", "busy"))
        if not self._is_started:
            self._is_started = True
            self._worker.start()

    def _run(self) -> None:
        from capture.sources import detect

        while True:
            request = self._requests.get()
            reply = error("looking for cameras failed; the log of capture tells why", "failed")
            with self._worker.guard():
                found = detect.detect_cameras()
                reply = Reply(text="\n".join(one.line() for one in found), data={"cameras": detect.rows_of(found)})
            request.reply(reply)
