"""The pipe that is written: stdout or a FIFO. Never waits longer than its reader, and knows when the reader is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from shm_ring.frame import Frame
from shmcam.runtime.stop import Stop

PIPE_BYTES = 1 << 20
"""The capacity asked for; /proc/sys/fs/pipe-max-size allows everybody so much."""

LOOK_S = 0.25
"""Time between two looks for a reader of a FIFO; Linux cannot be asked to tell."""

Part = memoryview | bytes


class ReaderGone(BrokenPipeError):
    """The program at the other end has closed the pipe."""


class PipeOutput:
    """One reader's end of the way; a context manager."""

    def __init__(self, descriptor: int, stop: Stop) -> None:
        """Takes over a descriptor of a pipe, a FIFO, a socket or a file."""
        self._descriptor, self._stop = descriptor, stop
        self._was_blocking = os.get_blocking(descriptor)
        self._has_reader = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        self.sent_bytes = 0
        self.damaged = 0
        """Frames that were overwritten while they were written: this process had been stopped for a whole ring."""
        os.set_blocking(descriptor, False)
        with suppress(OSError):  # no pipe, or the user's pipes have all the memory they may have
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def __enter__(self) -> PipeOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.set_blocking(self._descriptor, self._was_blocking)

    def check(self) -> None:
        """Raises ReaderGone if the reader has closed its end, also while there is nothing to write."""
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if self._has_reader and any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
            raise ReaderGone(errno.EPIPE, "the reader has gone")

    def write(self, parts: Sequence[Part], borrow: Frame | None = None) -> bool:
        """Writes all parts; the pipe's own copy is the only one while the reader keeps up.

        `borrow`: the frame of a ring whose memory the parts show. Once the reader makes us wait, what is left of it is
        copied, because the writer of the ring does not wait. Returns: False if stop was requested before the end.
        Raises: ReaderGone.
        """
        pending = [memoryview(part).cast("B") for part in parts]
        is_intact = True
        while pending:
            try:
                sent = os.writev(self._descriptor, pending)
            except BlockingIOError:
                if borrow is not None:
                    pending = [memoryview(b"".join(pending))]
                    is_intact, borrow = borrow.valid, None
                if not self._wait():
                    return False
                continue
            except (BrokenPipeError, ConnectionResetError) as gone:
                raise ReaderGone(errno.EPIPE, "the reader has gone") from gone
            self.sent_bytes += sent
            pending = _drop(pending, sent)
        if borrow is not None:
            is_intact = borrow.valid
        self.damaged += not is_intact
        return True

    def _wait(self) -> bool:
        """Waits for room. Returns: False once stop is requested."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.register(self._stop.fileno(), select.POLLIN)
        while not self._stop.requested:
            ready = dict(poll.poll(1000))
            if self._stop.fileno() in ready:
                return False
            if ready.get(self._descriptor, 0) & select.POLLERR:
                raise ReaderGone(errno.EPIPE, "the reader has gone")
            if ready:
                return True
        return False


def _drop(pending: list[memoryview], sent: int) -> list[memoryview]:
    """Returns what is left after so many bytes."""
    while pending and sent >= len(pending[0]):
        sent -= len(pending.pop(0))
    return [pending[0][sent:], *pending[1:]] if pending else []


class Fifo:
    """A named pipe (fifo(7)) that readers open one after the other; one that we made is removed at the end."""

    def __init__(self, path: Path) -> None:
        """Raises: FileExistsError if there is a file of another kind; OSError."""
        self.path = path
        try:
            os.mkfifo(path, 0o640)
            self._made: int | None = path.stat().st_ino
        except FileExistsError:
            self._made = None
            if not stat.S_ISFIFO(path.stat().st_mode):
                raise FileExistsError(errno.EEXIST, "there is a file that is no FIFO", str(path)) from None
        except OSError as problem:  # mkfifo leaves its name out
            raise OSError(problem.errno, problem.strerror, str(path)) from None

    def wait_for_reader(self, stop: Stop) -> int | None:
        """Returns a descriptor once a program reads; None when stop is requested. The caller closes it."""
        while not stop.requested:
            try:
                return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as problem:
                if problem.errno != errno.ENXIO:  # nobody reads
                    raise
            stop.wait(LOOK_S)
        return None

    def __enter__(self) -> Fifo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            if self._made is not None and self.path.stat().st_ino == self._made:
                self.path.unlink()
