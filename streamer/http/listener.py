"""The listening socket: opens it, and accepts connections, of which few may be in their TLS handshake at once.

asyncio's own server has no limit on handshakes: a peer that never sends a byte kept a descriptor for ten seconds, and a
thousand of them all that the process may have.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

BACKLOG = 512
TLS_HANDSHAKE_S = 10.0
HANDSHAKES_MAX = 64
"""Handshakes at once. Beyond it the longest makes room: an honest one takes milliseconds, seconds on a bad line."""
HANDSHAKE_MIN_S = 0.5
"""The time that a handshake has before it must make room; the next connection waits for it in the backlog."""

ACCEPT_RETRY_S = 1.0
"""The pause when no connection can be accepted: there is no descriptor or no memory left."""


def listen(bind: str, port: int) -> socket.socket:
    """Opens the listening socket. Raises: OSError, which names address and port."""
    family, _, _, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {bind}:{port}: {os.strerror(error.errno or 0)}") from None
    sock.setblocking(False)
    return sock


async def accept_forever(
    sock: socket.socket,
    make_protocol: Callable[[], asyncio.Protocol],
    tls: ssl.SSLContext | None,
    on_evicted: Callable[[], None],
) -> None:
    """Accepts connections until cancelled, one between two rounds of serving, so that a flood delays no viewer.

    `on_evicted` is called for each handshake that had to make room.
    """
    loop = asyncio.get_running_loop()
    handshakes: dict[asyncio.Task[None], float] = {}  # task → its start, in the order of arrival
    try:
        while True:
            if len(handshakes) >= HANDSHAKES_MAX:
                longest, started_s = next(iter(handshakes.items()))
                patience_s = max(0.0, started_s + HANDSHAKE_MIN_S - loop.time())
                if not (await asyncio.wait(handshakes, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED))[0]:
                    longest.cancel()
                    on_evicted()
                    await asyncio.wait([longest])
                continue
            try:
                accepted, _ = await loop.sock_accept(sock)
            except ConnectionError:  # the peer is gone already
                continue
            except OSError as problem:
                log.error("no connection can be accepted: %s; next try in %g s", problem, ACCEPT_RETRY_S)
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            task = loop.create_task(_connect(accepted, make_protocol, tls))
            handshakes[task] = loop.time()
            task.add_done_callback(lambda done: handshakes.pop(done, None))
            await asyncio.sleep(0)  # accepting does not wait while connections are there, and the task must start
    finally:
        for task in tuple(handshakes):
            task.cancel()


async def _connect(
    accepted: socket.socket, make_protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
) -> None:
    """Hands an accepted connection to its protocol, after the handshake; one that fails is closed without a word."""
    timeout = {"ssl_handshake_timeout": TLS_HANDSHAKE_S} if tls else {}
    try:
        with suppress(OSError):  # also ssl.SSLError and TimeoutError
            await asyncio.get_running_loop().connect_accepted_socket(make_protocol, accepted, ssl=tls, **timeout)
    except asyncio.CancelledError:
        accepted.close()
        raise
