"""What the kernel tells of the other end of a connection."""

from __future__ import annotations

import asyncio
import select
import socket
import struct


def is_gone(transport: asyncio.Transport) -> bool:
    """Tell whether the other end is closed altogether: a half-closed one (socat) shows no POLLHUP."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))


def credentials(link: socket.socket) -> str:
    """Return "pid/uid/gid" of the other end, as the kernel knows them."""
    pid, uid, gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"{pid}/{uid}/{gid}"
