"""Writes files that exist whole or not at all, and renames damaged ones so that they cause no second failure."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import re
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

PART = ".part"
"""The suffix of a file that is being written. A file with it that a crash left may be removed on start."""

UNLOCKED_S = 86_400
"""Age at which a temporary file on a disk without locks is a leftover."""

_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
"""Of fcntl.h and stdio.h, for renameat2(2)."""

_TEMPORARY = re.compile(r"\..+\.\d+" + re.escape(PART))
_CREATE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _open_descriptor(descriptor: int) -> BinaryIO:
    return os.fdopen(descriptor, "wb")


@contextmanager
def open_atomic(
    path: Path,
    *,
    replace: bool = False,
    durable: bool = True,
    mode: int = 0o640,
    opener: Callable[[int], BinaryIO] = _open_descriptor,
) -> Iterator[BinaryIO]:
    """Writes `path` so that a crash at any instant leaves the old file, the new one or none, never a half.

    Yields a binary file. At the end of the block the file is fsynced and renamed to `path`, and the folder is fsynced;
    an exception removes the temporary file and changes nothing. If not `durable`, nothing is fsynced: the call does not
    wait for the disk, and the promise holds for a crash of the program only. `opener` makes the file object from the
    descriptor (tests inject faults there).
    Raises: FileExistsError if `path` exists and `replace` is not set; OSError of the disk, and for a device.
    """
    if path.is_char_device() or path.is_block_device():  # root could replace /dev/null by a file, for everybody
        raise OSError(errno.EINVAL, "a device, no file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    with suppress(FileNotFoundError):
        temporary.unlink()  # it has our pid: an earlier process of this number left it
    descriptor = create_locked(temporary, os.O_WRONLY, mode=mode, needs_lock=False)
    lock = os.dup(descriptor)  # held until the file has its name, so that no sweep takes it before
    try:
        with opener(descriptor) as file:
            yield file
            file.flush()
            if durable:
                os.fsync(descriptor)
        _put_in_place(temporary, path, replace=replace)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(lock)
    if durable:
        try:
            sync_folder(path.parent)
        except OSError:
            if not replace:  # the caller will say that it was not saved: then it is not there, either
                with suppress(OSError):
                    path.unlink()
            raise


def create_locked(path: Path, access: int, *, mode: int = 0o640, needs_lock: bool = True) -> int:
    """Creates a file that is locked as long as it is open: the lock tells `sweep` and others that it is in use.

    `access`: O_WRONLY or O_RDWR. `needs_lock`: refuse a file system that knows no locks.
    Returns: the descriptor. Raises: OSError; FileExistsError where `path` exists.
    """
    while True:
        descriptor = os.open(path, access | _CREATE_FLAGS, mode)
        try:
            with suppress(*(() if needs_lock else (OSError,))):
                fcntl.flock(
                    descriptor, fcntl.LOCK_EX
                )  # a sweep that takes it for a leftover holds it only for a moment
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        os.close(descriptor)  # removed as a leftover between open and lock


MAX_STATE_BYTES = 1 << 20
"""The largest state file that is read: ours have a few kilobytes."""
GROWTH_BYTES = 4096
"""By so much a file that is read may have grown since its size was looked at."""


def wait_for_flock(descriptor: int, how: int, limit_s: float) -> bool:
    """Takes a lock (flock(2), LOCK_SH or LOCK_EX); bounded, because a stopped process might hold it.

    Returns: whether it was free within `limit_s`. Raises: OSError of a file system without locks.
    """
    deadline_s = time.monotonic() + limit_s
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.02)
        else:
            return True


def open_regular(path: Path, max_bytes: int | None = None) -> BinaryIO:
    """Opens a regular file to read it; opening never waits, as it would for a FIFO without a writer.

    Raises: OSError, also for a FIFO, a device or a folder, and for a file of more than `max_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return _to_file(descriptor, path, "rb", max_bytes)


def open_to_append(path: Path) -> BinaryIO:
    """Opens a regular file to write behind its end, made if there is none; opening never waits.

    Raises: OSError, also for a FIFO, a device or a folder.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    return _to_file(os.open(path, flags, 0o640), path, "ab")


def _to_file(descriptor: int, path: Path, mode: str, max_bytes: int | None = None) -> BinaryIO:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if max_bytes is not None and status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes, at most {max_bytes} are read", str(path))
        return cast("BinaryIO", os.fdopen(descriptor, mode))
    except BaseException:
        os.close(descriptor)
        raise


def is_regular(path: Path) -> bool:
    """Tells whether it is a file, no link, FIFO or device; a disk that does not answer has none."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_state(path: Path, max_bytes: int = MAX_STATE_BYTES) -> bytes:
    """Returns the content of a state file. Raises: OSError, as `open_regular` does."""
    with open_regular(path, max_bytes) as file:
        size = os.fstat(file.fileno()).st_size  # Python reserves all that it is asked to read
        return file.read(min(max_bytes, size + GROWTH_BYTES))


def sweep(folder: Path) -> list[Path]:
    """Removes the files that killed processes left of `open_atomic` in a folder, not below it, and no others.

    Returns: the files removed. One that cannot be removed stays for the next time.
    """
    return [path for path in folder.glob(f".*{PART}") if _TEMPORARY.fullmatch(path.name) and _sweep_file(path)]


def _sweep_file(path: Path) -> bool:
    with suppress(OSError):  # it is another user's, or gone
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False  # no FIFO and no folder is ours
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it is being written
                return False
            except OSError:  # a disk without locks, which may be another machine's, too: only age tells
                if time.time() - os.fstat(descriptor).st_mtime < UNLOCKED_S:
                    return False
            path.unlink()
            return True
        finally:
            os.close(descriptor)
    return False


def _put_in_place(temporary: Path, path: Path, *, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike rename, link refuses an existing name
    except FileExistsError:
        raise
    except OSError:  # FAT and exFAT (EPERM), SMB (EOPNOTSUPP), sshfs (ENOSYS), mergerfs (EXDEV), full tables (EMLINK)
        _rename_without_replacing(temporary, path)
        return
    with suppress(OSError):  # it has its name; a second one that stays is a leftover for `sweep`
        temporary.unlink()


def _rename_without_replacing(source: Path, target: Path) -> None:
    """Renames where there are no hard links. Raises: FileExistsError, OSError.

    Where the file system does not know the flag either, a file that appears between look and rename is replaced.
    """
    names = os.fsencode(source), os.fsencode(target)
    if ctypes.CDLL(None, use_errno=True).renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return
    if ctypes.get_errno() == errno.EEXIST or target.exists():
        raise FileExistsError(f"{target} exists already")
    source.rename(target)


def sync_folder(folder: Path) -> None:
    """Makes a created, renamed or removed name in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def existing_parent_of(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that exists."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def find_unused_path(path: Path) -> Path:
    """Returns `path`, or the first of `name_2.ext`, `name_3.ext` … that does not exist (two saves in one second)."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return candidate


log = logging.getLogger(__name__)

DAMAGED_SUFFIX = ".damaged"
"""The suffix of a damaged file; the newest one of each file is kept for an inquiry."""
DAMAGE_ERRORS = (
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of reading an .npz that is empty, torn, or not ours. OSError is none of them: the file may be whole."""


def set_aside(path: Path, problem: Exception) -> None:
    """Renames a damaged file and logs it; if the disk refuses, the file stays."""
    aside = path.with_name(path.name + DAMAGED_SUFFIX)
    try:
        path.replace(aside)
    except OSError as refused:
        log.warning("damaged file stays path=%s reason=%s: %s", path, refused, problem)
        return
    log.warning("damaged file set aside path=%s as=%s reason=%s", path, aside.name, problem)
