"""Sends one command and returns its answer: for the command line, tests, and the streamer's REST interface."""

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
from shmcam.control.parser import parse_line

DEFAULT_TIMEOUT_S = 10.0
GRACE_S = 2.0
"""Added to the hub's own time limit: the hub fails the command first, and its explanation arrives."""


def call(
    socket_path: Path | str,
    command: Command | str,
    timeout_s: float | None = None,
    on_chunk: Callable[[bytes], None] | None = None,
) -> Reply:
    """Sends one command (or a line of the text dialect) and returns its answer; a missing hub is a failed Reply.

    `timeout_s` None: the time that the table of commands allows. Chunks of a binary answer go to `on_chunk`.
    Raises: ValueError for a line that is no command.
    """
    command = parse_line(command) if isinstance(command, str) else command
    limit_s = timeout_s if timeout_s is not None else wait_s_of(command)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            # a Python timeout would make connect fail at once (EAGAIN) while many others are connecting
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(limit_s), 0))
            sock.connect(str(socket_path))
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # refused already: the reason can still be read
                sock.sendall(encode("msgpack", command, 1))
            for message in _receive_messages(sock, time.monotonic() + limit_s):
                if isinstance(message, Reply):
                    return message
                if isinstance(message, Chunk) and on_chunk:
                    on_chunk(message.data)
    except TimeoutError:
        return _timeout_reply(command, limit_s)
    except OSError as problem:
        return no_hub_reply(socket_path, problem)
    return error("the hub hung up before it answered; it was probably restarted", "no_hub")


async def acall(socket_path: Path | str, command: Command | str, timeout_s: float | None = None) -> Reply:
    """Does the same as `call`, in asyncio; drops chunks."""
    command = parse_line(command) if isinstance(command, str) else command
    limit_s = timeout_s if timeout_s is not None else wait_s_of(command)
    try:
        async with asyncio.timeout(limit_s):
            return await _ask(socket_path, command)
    except TimeoutError:
        return _timeout_reply(command, limit_s)
    except OSError as problem:
        return no_hub_reply(socket_path, problem)


async def _ask(socket_path: Path | str, command: Command) -> Reply:
    loop = asyncio.get_running_loop()
    with socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM
    ) as sock:  # an asyncio stream loses the bytes that came before a broken pipe
        sock.setblocking(False)
        await loop.sock_connect(sock, str(socket_path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await loop.sock_sendall(sock, encode("msgpack", command, 1))
        decoder = Decoder(limit_bytes=PROCESS_BYTES_MAX)
        while data := await loop.sock_recv(sock, READ_BYTES):
            for message in _decode(decoder, data):
                if isinstance(message, Reply):
                    return message
    return error("the hub hung up before it answered; it was probably restarted", "no_hub")


def wait_s_of(command: Command) -> float:
    """Returns the longest wait for a command's answer, in seconds."""
    row = BY_NAME.get(wire_name(command))
    return (row.timeout_s if row else DEFAULT_TIMEOUT_S) + GRACE_S


def no_hub_reply(socket_path: Path | str, problem: OSError) -> Reply:
    """Returns the failed Reply for a socket without a hub, with the remedy."""
    if isinstance(problem, PermissionError):
        text = f"no permission for {socket_path}; ask to be added to the group that owns it (ls -l {socket_path})"
        return error(text, "no_permission")
    text = f"no hub at {socket_path} ({problem.strerror or problem}); is the service running? try: shmcam run"
    return error(text, "no_hub")


def _timeout_reply(command: Command, limit_s: float) -> Reply:
    return error(f"no answer to {wire_name(command)} within {limit_s:.0f} s", "timeout")


def _receive_messages(sock: socket.socket, deadline_s: float) -> Iterator[Message]:
    """Yields the hub's messages until it closes the connection. Raises: TimeoutError at the deadline."""
    decoder = Decoder(limit_bytes=PROCESS_BYTES_MAX)
    while True:
        sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        data = sock.recv(READ_BYTES)
        if not data:
            return
        yield from _decode(decoder, data)


def _decode(decoder: Decoder, data: bytes) -> Iterator[Message]:
    """Yields the messages of some bytes. A hub that refuses a connection gives the reason in text, in any dialect."""
    if not decoder.dialect and dialect_of(data[0]) == "text":
        yield Reply(ok=False, status="refused", text=data.decode(errors="replace").strip())
        return
    for decoded in decoder.feed(data, 0.0):
        yield decoded.message if isinstance(decoded, Received) else decoded.reply
