"""The write deadline no HTTP library sets for us: a peer that takes no byte for `write_s` is reset."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)

PART_S = 60.0
"""A peer that takes a byte now and then still has to finish one write in this time."""


class Stall:
    """One time that the kernel has no room for a peer: made when it begins, given up when everything is out."""

    __slots__ = ("_left", "_loop", "_on_reset", "_since", "_timer", "_transport", "_write_s")

    def __init__(self, transport: asyncio.Transport, write_s: float, on_reset: Callable[[], None]) -> None:
        """Start the clock; `on_reset` is called when the peer has been reset."""
        self._loop = asyncio.get_running_loop()
        self._transport, self._write_s, self._on_reset = transport, write_s, on_reset
        self._since, self._left = self._loop.time(), unsent(transport)
        self._timer = self._loop.call_later(write_s, self._check)

    def end(self) -> None:
        """The peer has taken everything, or is gone."""
        self._timer.cancel()

    def _check(self) -> None:
        left = unsent(self._transport)
        if left >= self._left or self._loop.time() - self._since > PART_S:
            reset(self._transport)
            self._on_reset()
            return
        self._left = left
        self._timer = self._loop.call_later(self._write_s, self._check)


def reset(transport: asyncio.Transport) -> None:
    """End a connection at once and free the kernel's buffers (SO_LINGER 0 before the abort, shared/faults.md 0.11)."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def unsent(transport: asyncio.Transport) -> int:
    """Bytes the peer has not acknowledged: in our buffer and in the kernel's (SIOCOUTQ, tcp(7))."""
    waiting = struct.unpack("i", fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, b"\0" * 4))[0]
    return int(waiting) + transport.get_write_buffer_size()
