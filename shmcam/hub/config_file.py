"""Writes config.toml back as its owner has it."""

from __future__ import annotations

import codecs
import errno
import os
import re
from contextlib import suppress
from pathlib import Path

from shmcam.runtime.atomic_files import open_atomic


def write_back(file: Path, text: str) -> None:
    """Writes an edited text as the owner of the file has it: behind a link, with BOM, line ends, mode and owner.

    A file with several names (hard links), or one that is a mount of its own (`docker run -v config.toml:…`), keeps its
    inode and is written in place by one call, a shorter text with empty lines up to the old length, so that a kill
    leaves the old text or the new one; any other file is replaced whole. Raises: OSError.
    """
    file = file.resolve()
    before, status = file.read_bytes(), file.stat()
    if before.count(b"\n") == before.count(b"\r\n") > 0:
        text = re.sub("(?<!\r)\n", "\r\n", text)
    raw = codecs.BOM_UTF8 * before.startswith(codecs.BOM_UTF8) + text.encode()
    if status.st_nlink > 1 or _is_mount(file):
        with file.open("r+b", buffering=0) as stream:
            padded = raw.ljust(len(before), b"\n")
            if stream.write(padded) < len(padded):  # what is there already has its room
                os.pwrite(stream.fileno(), before, 0)
                stream.truncate(len(before))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
            stream.truncate(len(raw))
            os.fsync(stream.fileno())
        return
    with open_atomic(file, replace=True, mode=status.st_mode & 0o777) as stream:
        stream.write(raw)
        with suppress(OSError):  # only root may; another user's file becomes that of this process
            os.fchown(stream.fileno(), status.st_uid, status.st_gid)
        os.fchmod(stream.fileno(), status.st_mode & 0o777)  # whatever the umask


def _is_mount(file: Path) -> bool:
    """Returns whether a file is a mount, onto which nothing can be renamed (proc_pid_mountinfo(5))."""
    escaped = str(file).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with suppress(OSError):
        return any(line.split(" ")[4] == escaped for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return False
