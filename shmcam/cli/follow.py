"""`shmcam logs` and `shmcam subscribe`: log lines and events as they come, until Ctrl-C."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from shmcam.cli.options import EXIT_FAILED, EXIT_UNAVAILABLE, Options, UsageError
from shmcam.cli.send import print_reply
from shmcam.control.call import no_hub_reply
from shmcam.control.codec import READ_BYTES
from shmcam.control.messages import topics_of
from shmcam.runtime.log_tail import LogFollower, find_logs, merge_tails

POLL_S = 0.2
"""Time between two looks into the logs."""


def print_logs(options: Options) -> int:
    """Prints the last lines of one log or of all merged by time, and with -f what follows; needs no running service."""
    follow, lines, process = _read_log_options(options.rest)
    folder = options.settings().paths.logs
    follower = LogFollower(folder, process)
    tail = merge_tails(folder, process, lines)
    if tail is None:
        names = ", ".join(path.stem for path in find_logs(folder, "")) or "none"
        print(f"shmcam: no log of {process!r} in {folder}; there are: {names}", file=sys.stderr)
        return EXIT_FAILED
    if tail:
        print("\n".join(tail), flush=True)
    while follow:
        for line in follower.read_new():
            print(line, flush=True)
        time.sleep(POLL_S)
    return 0


def _read_log_options(words: list[str]) -> tuple[bool, int, str]:
    follow, lines, process = False, 20, ""
    rest = iter(words)
    for word in rest:
        if word in {"-f", "--follow"}:
            follow = True
        elif word in {"-n", "--lines"} or (word.isdigit() and process):
            value = word if word.isdigit() else next(rest, "")
            if not value.isdigit():
                raise UsageError("logs -n: expected a number of lines")
            lines = int(value)
        elif word.startswith("-"):
            raise UsageError(f"logs: unknown option {word}; usage: logs [-f] [-n LINES] [PROCESS]")
        else:
            process = word
    return follow, lines, process


def print_events(options: Options) -> int:
    """Prints events, one a line (--json: one object a line), until Ctrl-C or the end of the hub."""
    topics = options.rest
    try:
        topics_of(tuple(topics))  # the hub would tell it, too, but then wait for the next line
    except ValueError as problem:
        raise UsageError(f"subscribe: {problem}") from None
    words = json.dumps({"command": "subscribe", "topics": topics}) if options.json else f"subscribe {' '.join(topics)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        try:
            link.connect(str(options.socket_path))
            link.sendall(f"{words}\n".encode())
        except OSError as problem:
            return print_reply(no_hub_reply(options.socket_path, problem), as_json=options.json)
        for line in _receive_lines(link):
            print(line, flush=True)
    print("shmcam: the hub hung up", file=sys.stderr)
    return EXIT_UNAVAILABLE


def _receive_lines(link: socket.socket) -> Iterator[str]:
    """Yields the lines of a text or JSON connection until its end."""
    data = b""
    with suppress(ConnectionResetError):
        while piece := link.recv(READ_BYTES):
            *whole, data = (data + piece).split(b"\n")
            yield from (line.decode() for line in whole)
