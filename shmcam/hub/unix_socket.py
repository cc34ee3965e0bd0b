"""Where the control socket lives: who may reach it, what to do with an old one, and coming back when it is deleted."""

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

log = logging.getLogger(__name__)

SOCKET_UMASK = 0o117
"""Set before bind, so that the socket is 0660 from its first instant."""


ACCEPT_AT_ONCE = 8
"""Connections asyncio accepts before it serves those it has: its default of 100 let a flood of connections delay
everyone by 160 ms (bench control, flood_p99)."""

BACKLOG = 128
"""Connections the kernel holds meanwhile; beyond it a client's connect fails with EAGAIN."""


class SocketTakenError(OSError):
    """Another hub answers at this path."""


class UnixPlace:
    """One listening Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.AbstractServer | None = None
        self._inode = 0
        self._lock: TextIO | None = None

    async def open(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Listen. A stale socket file is replaced; a live hub is respected. *Raises* SocketTakenError, OSError."""
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._lock = self._lock or _locked(self.path)
        if answers(self.path):
            raise SocketTakenError(f"another hub answers at {self.path}")
        await self._listen(factory)

    async def reopen_if_gone(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Listen anew if a tidy-up deleted the socket file; those connected do not notice."""
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
        """Stop listening and remove the socket file, if it is still ours."""
        if self._server:
            self._server.close()
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        if self._lock:
            self._lock.close()

    async def _listen(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self.path.unlink(missing_ok=True)
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(SOCKET_UMASK)
        try:
            link.bind(str(self.path))
        finally:
            os.umask(before)
        self._inode = self.path.stat().st_ino
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(factory, sock=link, backlog=ACCEPT_AT_ONCE)
        link.listen(BACKLOG)


def answers(path: Path) -> bool:
    """Tell whether somebody listens at a socket file."""
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


def _locked(path: Path) -> TextIO:
    """Hold the lock beside the socket, so that two hubs started at once cannot both replace it."""
    file = path.with_suffix(".lock").open("a+")
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
