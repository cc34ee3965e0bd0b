"""Opens the control socket: its permissions, the replacement of an old file, and a new one if it is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from shmcam.runtime.atomic_files import is_regular

log = logging.getLogger(__name__)

SOCKET_UMASK = 0o117
"""The umask during bind, so that the socket is 0660 from its first instant."""

ACCEPT_AT_ONCE = 8
"""Connections asyncio accepts before it serves those it has: with its default of 100, a flood of connections delayed
all others by 160 ms (bench control, flood_p99)."""

BACKLOG = 128
"""Connections the kernel holds meanwhile; beyond that a client's connect fails with EAGAIN."""


class SocketTakenError(OSError):
    """Another hub answers at this path, or what is in the place of its lock is none."""


class UnixListener:
    """One listening Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.AbstractServer | None = None
        self._inode = 0
        self._lock: TextIO | None = None

    async def open(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Listens. Replaces a stale socket file, never that of a live hub. Raises: SocketTakenError, OSError."""
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._lock = self._lock or _take_lock(self.path)
        if is_listening(self.path):
            raise SocketTakenError(f"another hub answers at {self.path}")
        await self._listen(factory)

    async def reopen_if_gone(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Listens again if another program deleted the socket file; connected peers do not notice."""
        try:
            inode = self.path.stat().st_ino
        except OSError:
            inode = 0
        if inode != self._inode:
            log.warning("socket file was deleted, made anew path=%s", self.path)
            if self._server:
                self._server.close()
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                await self._listen(factory)

    def close(self) -> None:
        """Stops listening and removes the socket file, if it is still ours."""
        if self._server:
            self._server.close()
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        if self._lock:
            self._lock.close()

    async def _listen(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Listens under another name first: whoever sees the socket file can connect."""
        unready = self.path.with_suffix(".new")
        unready.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(SOCKET_UMASK)
        try:
            sock.bind(str(unready))
        finally:
            os.umask(umask)
        self._inode = unready.stat().st_ino
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(factory, sock=sock, backlog=ACCEPT_AT_ONCE)
        sock.listen(BACKLOG)
        unready.replace(self.path)


def is_listening(path: Path) -> bool:
    """Returns whether a process listens at a socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as problem:
            log.warning("probing %s: %s", path, problem)
            return not isinstance(problem, PermissionError)
        return True


def _take_lock(path: Path) -> TextIO:
    """Takes the lock beside the socket, so that two hubs started at once cannot both replace it."""
    lock = path.with_suffix(".lock")
    if os.path.lexists(lock) and not is_regular(lock):
        raise SocketTakenError(f"{lock} is no file and cannot be locked; remove it")
    file = lock.open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        file.seek(0)
        owner = file.read(20).strip() or "unknown"
        file.close()
        raise SocketTakenError(f"another hub is using {path} (pid {owner})") from problem
    file.truncate(0)
    file.write(f"{os.getpid()}\n")  # only for the message above: the lock counts, not the number
    file.flush()
    return file
