"""The file object through which files grow: whole writes, fsync on demand, and a barrier before overwriting.

It is the one place for everything that can go wrong with a disk. Tests put their faults here, so that they are met the
way a real disk delivers them.

The writer of a growing file holds its lock (flock). By that everyone else knows that it is no leftover: another thread,
a second process, a command line.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shmcam.runtime.atomic_files import PART, create_locked, find_unused_path, sync_folder

_NOT_OURS = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP)
"""Gone, another user's, or a symbolic link, which no writer of ours makes."""


@contextmanager
def hold(path: Path, *, without_locks: bool) -> Iterator[bool]:
    """Holds the lock of a leftover, so that only one process adopts it.

    Yields: False where it is not to be had: a process writes it, has closed or adopted it since it was opened, or
    another user owns it; `without_locks` where the file system knows no locks. Raises: OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)  # NFS locks only what may be written
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        yield False
        return
    try:
        yield _lock(descriptor, without_locks) and _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, without_locks: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without_locks
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def put_in_place(part: Path) -> Path:
    """Gives a finished file its final name, or `…_2` where that exists. Returns: the name. Raises: OSError."""
    path = find_unused_path(part.with_name(part.name.removesuffix(PART)))
    part.rename(path)
    sync_folder(path.parent)
    return path


class DiskFile:
    """An unbuffered file that PyAV writes into (`write`, `seek`, `tell`, `close`) and its owner syncs.

    Once a write or a sync has failed the file is `broken`: what is left of it on disk up to `intact_bytes` is good,
    further writes are swallowed (FFmpeg insists on writing a trailer), and it is never synced again, because after a
    failed fsync the kernel may have dropped the pages and a second one would lie ("fsyncgate").
    """

    def __init__(self, path: Path, *, needs_lock: bool = False) -> None:
        """Creates `path`, locked; the name survives a power cut. Raises: OSError.

        `needs_lock`: refuse a file system without locks, such as some network file systems.
        """
        self.path = path
        self.bytes = 0
        """Size of the file."""
        self.intact_bytes = 0
        """Everything before this was complete at the last `checkpoint`."""
        self.broken: OSError | None = None
        self.is_torn = False
        """A broken file could not be brought back to its last checkpoint when it was closed."""
        self._position = 0
        self._overwritten: list[tuple[int, bytes]] = []
        self._unsynced = False
        self._descriptor = create_locked(path, os.O_RDWR, needs_lock=needs_lock)
        try:
            sync_folder(path.parent)
        except OSError:
            os.close(self._descriptor)
            with suppress(OSError):
                path.unlink()
            raise

    @property
    def is_closed(self) -> bool:
        """True if `close` has been called."""
        return self._descriptor < 0

    def write(self, data: bytes) -> int:
        """Writes all of `data` at the current place. Raises: OSError, once; later writes are swallowed."""
        if self.broken is None:
            if self._position < self.bytes:
                # SYNC POINT: FFmpeg overwrites an mp4's head when the index it now points to is written. On disk the
                # index must come first, else a power cut in between leaves a file without any.
                self.sync()
                before = os.pread(self._descriptor, len(data), self._position)
                self._overwritten.append((self._position, before))
            self._break_on_error(lambda: self._write_all(data))
        self._position += len(data)
        self.bytes = max(self.bytes, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the place of the next write or read. Returns: the new place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.bytes}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Returns the place of the next write."""
        return self._position

    def read(self, size: int) -> bytes:
        """Reads back what was written (FFmpeg's faststart moves the data of a file). Raises: OSError."""
        data = os.pread(self._descriptor, size, self._position)
        self._position += len(data)
        return data

    def sync(self) -> None:
        """Brings all written bytes to the disk. Raises: OSError, once; also if the file is no longer where it was."""
        if self._unsynced and self.broken is None:
            self._break_on_error(lambda: self._sync_data(self._descriptor))
            self._break_on_error(self._check_path)
            self._unsynced = False

    def checkpoint(self, end: int | None = None) -> None:
        """Notes that the bytes so far (or up to `end`) are good by themselves: a broken file is cut back to them."""
        if self.broken is None:
            self.intact_bytes = self.bytes if end is None else end

    def close(self) -> None:
        """Closes; a broken file is first brought back to its last checkpoint. Further calls do nothing.

        Raises: OSError, but not of a broken file.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self.broken is None:
            os.close(descriptor)
            return
        self.is_torn = True
        with suppress(OSError):  # a disk that is read-only or gone: readers stop at the torn tail by themselves
            for position, before in reversed(self._overwritten):
                os.pwrite(descriptor, before, position)
            os.ftruncate(descriptor, self.intact_bytes)
            self.bytes, self.is_torn = self.intact_bytes, False
        with suppress(OSError):
            os.close(descriptor)

    # ---- replaced by tests

    def _write_some(self, descriptor: int, data: memoryview, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def _sync_data(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    # ---- inside

    def _write_all(self, data: bytes) -> None:
        view, offset = memoryview(data), self._position
        self._unsynced = True
        while view:
            written = self._write_some(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def _check_path(self) -> None:
        """Checks that the file is where it was: writes succeed after it was deleted or unmounted. Raises: OSError."""
        if not _is_at(self._descriptor, self.path):
            raise FileNotFoundError(
                errno.ENOENT, "was moved, deleted or unmounted while it was written", str(self.path)
            )

    def _break_on_error(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self.broken = error
            raise
