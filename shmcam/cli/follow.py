"""`shmcam logs` and `shmcam subscribe`: what goes on until Ctrl-C."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shmcam.cli.options import EXIT_FAILED, EXIT_UNAVAILABLE, Options, UsageError
from shmcam.cli.send import show
from shmcam.control.call import no_hub
from shmcam.control.codec import READ_BYTES
from shmcam.control.messages import Subscribe
from shmcam.runtime.log_tail import LogFollower, log_files, merged_tail

TURN_S = 0.2


def logs(options: Options) -> int:
    """Print the last lines of one log or of all merged by time, and (-f) what follows. Works with the service down."""
    follow, lines, process = _log_options(options.rest)
    folder = options.settings().paths.logs
    follower = LogFollower(folder, process)
    found = merged_tail(folder, process, lines)
    if found is None:
        known = ", ".join(path.stem for path in log_files(folder, "")) or "none"
        print(f"shmcam: no log of {process!r} in {folder}; there are: {known}", file=sys.stderr)
        return EXIT_FAILED
    print("\n".join(found), flush=True) if found else None
    while follow:
        for line in follower.new_lines():
            print(line, flush=True)
        time.sleep(TURN_S)
    return 0


def _log_options(words: list[str]) -> tuple[bool, int, str]:
    follow, lines, process = False, 20, ""
    rest = iter(words)
    for word in rest:
        if word in {"-f", "--follow"}:
            follow = True
        elif word in {"-n", "--lines"} or (word.isdigit() and process):
            given = word if word.isdigit() else next(rest, "")
            if not given.isdigit():
                raise UsageError("logs -n: expected a number of lines")
            lines = int(given)
        elif word.startswith("-"):
            raise UsageError(f"logs: unknown option {word}; usage: logs [-f] [-n LINES] [PROCESS]")
        else:
            process = word
    return follow, lines, process


def events(options: Options) -> int:
    """Print events, one a line (--json: one object a line), until Ctrl-C or the hub goes."""
    try:
        for line in _lines(options.socket_path, Subscribe(topics=tuple(options.rest)), as_json=options.json):
            print(line, flush=True)
    except OSError as problem:
        return show(no_hub(options.socket_path, problem), as_json=options.json)
    print("shmcam: the hub hung up", file=sys.stderr)
    return EXIT_UNAVAILABLE


def _lines(path: Path, command: Subscribe, *, as_json: bool) -> Iterator[str]:
    """Yield what the hub sends to a text or JSON connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(str(path))
        words = f"subscribe {' '.join(command.topics)}\n".encode()
        link.sendall(_json_line(command) if as_json else words)
        data = b""
        while piece := link.recv(READ_BYTES):
            *whole, data = (data + piece).split(b"\n")
            yield from (line.decode() for line in whole)


def _json_line(command: Subscribe) -> bytes:
    return b'{"command": "subscribe", "topics": [%s]}\n' % b", ".join(b'"%s"' % t.encode() for t in command.topics)
