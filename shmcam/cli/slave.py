"""`shmcam slave`: the JSON dialect on stdin and stdout, for a master program that started this process.

One object a line in, one object a line out; `{"command": "quit"}` or the end of stdin ends the session. With --start
the slave starts the whole service first, and stops it at the end. It writes nothing but JSON to stdout.
"""

from __future__ import annotations

import json
import os
import select
import socket
from datetime import UTC, datetime
from pathlib import Path

from shmcam.cli.options import EXIT_UNAVAILABLE, Options
from shmcam.cli.run.background_service import BackgroundService
from shmcam.control.codec import READ_BYTES

GREETING = b'{"command": "ping"}\n'
"""The first line to the hub: it makes the connection a JSON one, whatever the master's first line is."""

SHOWN_MAX = 60
"""Bytes of a line without JSON that the refusal shows."""

LINE_BYTES_MAX = 64 * 1024
"""Longest line of the master; a longer line ends the session."""


def main(options: Options) -> int:
    """Passes lines between the master and the hub until one of them ends."""
    greet = "--silent" not in options.switches()
    if "--start" not in options.rest:
        return _run_session(options.socket_path, started=False, greet=greet)
    with BackgroundService(options.config, options.settings()):
        return _run_session(options.socket_path, started=True, greet=greet)


def _run_session(path: Path, *, started: bool, greet: bool) -> int:
    """Passes lines until the master or the hub ends.

    `started`: this program started the service. `greet`: the first line out is the status `ready`, which the former
    camera module did not send.
    """
    try:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.connect(str(path))
    except OSError as problem:
        message = f"no hub at {path} ({problem.strerror}); try: shmcam slave --start"
        _write_status("error", "error", {"message": message, "reason": "no_hub"})
        return EXIT_UNAVAILABLE
    with link:
        return _relay(link, {"socket": str(path), "pid": os.getpid(), "started": started} if greet else None)


def _relay(link: socket.socket, facts: dict[str, object] | None) -> int:
    """Carries bytes both ways; `facts`: those of the status `ready`.

    Reads stdin unbuffered, because select does not see what a buffer holds.

    A line that is no JSON goes to the hub too, as a JSON string: so its refusal comes in the order of the lines.
    """
    if not _greet(link):
        _write_status("error", "error", {"message": "the hub closed the connection", "reason": "no_hub"})
        return EXIT_UNAVAILABLE
    if facts is not None:
        _write_status("status", "ready", facts)
    lines, unsent, ended = b"", b"", False
    while True:
        # no more is read from the master while the hub takes nothing, and what it says is read in any case
        reading = [link.fileno(), *([] if ended or unsent else [0])]
        readable, writable, _ = select.select(reading, [link.fileno()] if unsent else [], [])
        try:
            if readable and readable[0] == link.fileno():
                data = link.recv(READ_BYTES)
                if not data:
                    break
                _write(data)
            if writable:
                unsent = unsent[link.send(unsent) :]
            if 0 in readable:
                data = os.read(0, READ_BYTES)
                *whole, lines = (lines + data).split(b"\n")
                unsent += b"".join(map(_to_json_line, whole))
                ended = not data or len(lines) > LINE_BYTES_MAX
                if len(lines) > LINE_BYTES_MAX:
                    _write_status(
                        "error", "error", {"message": f"line longer than {LINE_BYTES_MAX} bytes", "reason": "too_long"}
                    )
                elif ended:
                    unsent += _to_json_line(lines)
            if ended and not unsent:
                link.shutdown(socket.SHUT_WR)  # the hub still answers what it has got
        except OSError:  # the hub hung up while something was on its way
            break
    if not ended:
        _write_status("status", "closed", {"message": "session ended"})
    return 0


def _greet(link: socket.socket) -> bool:
    """Makes the connection a JSON one and waits for the answer. Returns False if the hub hung up."""
    link.sendall(GREETING)
    data = b""
    while not data.endswith(b"\n"):
        more = link.recv(READ_BYTES)
        if not more:
            return False
        data += more
    return True


def _to_json_line(line: bytes) -> bytes:
    """Returns a line of the master as the hub can read it in order; nothing for an empty one."""
    line = line.strip()
    if not line or line.startswith(b"{"):
        return line + b"\n" if line else b""
    return json.dumps(line[:SHOWN_MAX].decode(errors="replace")).encode() + b"\n"


def _write_status(kind: str, status: str, data: dict[str, object]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    _write(json.dumps({"type": kind, "status": status, "timestamp": now, "data": data}).encode() + b"\n")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
