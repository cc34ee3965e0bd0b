"""One command, one answer: for the command line, tests, and the streamer's REST interface."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shmcam.control.codec import READ_BYTES, Decoder, Received, dialect_of, encode
from shmcam.control.command_table import BY_NAME
from shmcam.control.messages import PROCESS_BYTES_MAX, Chunk, Command, Message, Reply, error, wire_name
from shmcam.control.parser import from_line

DEFAULT_TIMEOUT_S = 10.0
GRACE_S = 2.0
"""The hub gives up on an owner first, so that its explanation arrives rather than our own timeout."""


def call(
    socket_path: Path | str,
    command: Command | str,
    timeout_s: float | None = None,
    on_chunk: Callable[[bytes], None] | None = None,
) -> Reply:
    """Send one command (or a line of the text dialect) and return its answer; never raises for a missing hub.

    `timeout_s` None: as long as the table of commands allows. Chunks of a binary answer go to `on_chunk`.
    *Raises* ValueError for a line that is no command.
    """
    given = from_line(command) if isinstance(command, str) else command
    limit_s = timeout_s if timeout_s is not None else patience_s(given)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            # a timeout of Python's would make connect fail at once (EAGAIN) while many others are connecting
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(limit_s), 0))
            link.connect(str(socket_path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused already: why is still to be read
                link.sendall(encode("msgpack", given, 1))
            for message in _messages(link, time.monotonic() + limit_s):
                if isinstance(message, Reply):
                    return message
                if isinstance(message, Chunk) and on_chunk:
                    on_chunk(message.data)
    except TimeoutError:
        return _late(given, limit_s)
    except OSError as problem:
        return no_hub(socket_path, problem)
    return error("the hub hung up before it answered; it was probably restarted", "no_hub")


async def acall(socket_path: Path | str, command: Command | str, timeout_s: float | None = None) -> Reply:
    """Do as `call` does, in asyncio; chunks are dropped."""
    given = from_line(command) if isinstance(command, str) else command
    limit_s = timeout_s if timeout_s is not None else patience_s(given)
    try:
        async with asyncio.timeout(limit_s):
            return await _ask(socket_path, given)
    except TimeoutError:
        return _late(given, limit_s)
    except OSError as problem:
        return no_hub(socket_path, problem)


async def _ask(socket_path: Path | str, command: Command) -> Reply:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:  # a stream forgets what came before a broken pipe
        link.setblocking(False)
        await loop.sock_connect(link, str(socket_path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await loop.sock_sendall(link, encode("msgpack", command, 1))
        decoder = Decoder(limit=PROCESS_BYTES_MAX)
        while data := await loop.sock_recv(link, READ_BYTES):
            for message in _decoded(decoder, data):
                if isinstance(message, Reply):
                    return message
    return error("the hub hung up before it answered; it was probably restarted", "no_hub")


def patience_s(command: Command) -> float:
    """Return how long to wait for a command's answer."""
    row = BY_NAME.get(wire_name(command))
    return (row.timeout_s if row else DEFAULT_TIMEOUT_S) + GRACE_S


def no_hub(socket_path: Path | str, problem: OSError) -> Reply:
    """Say that nobody listens, and what would help."""
    if isinstance(problem, PermissionError):
        said = f"no permission for {socket_path}; ask to be added to the group that owns it (ls -l {socket_path})"
        return error(said, "no_permission")
    said = f"no hub at {socket_path} ({problem.strerror or problem}); is the service running? try: shmcam run"
    return error(said, "no_hub")


def _late(command: Command, limit_s: float) -> Reply:
    return error(f"no answer to {wire_name(command)} within {limit_s:.0f} s", "timeout")


def _messages(link: socket.socket, deadline_s: float) -> Iterator[Message]:
    """Yield what the hub sends until it hangs up. *Raises* TimeoutError at the deadline."""
    decoder = Decoder(limit=PROCESS_BYTES_MAX)
    while True:
        link.settimeout(max(0.001, deadline_s - time.monotonic()))
        data = link.recv(READ_BYTES)
        if not data:
            return
        yield from _decoded(decoder, data)


def _decoded(decoder: Decoder, data: bytes) -> Iterator[Message]:
    """Yield the messages of some bytes; a hub that refuses a connection says why in text, whatever we would speak."""
    if not decoder.dialect and dialect_of(data[0]) == "text":
        yield Reply(ok=False, status="refused", text=data.decode(errors="replace").strip())
        return
    for one in decoder.feed(data, 0.0):
        yield one.message if isinstance(one, Received) else one.reply
