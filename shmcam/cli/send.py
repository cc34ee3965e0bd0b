"""Commands of the control socket from the shell: sends one, prints the reply, returns the exit code."""

from __future__ import annotations

import json
import shlex
import sys

from shmcam.cli.local_commands import ELSEWHERE, LOCAL, SUPERVISOR
from shmcam.cli.options import EXIT_FAILED, EXIT_TIMEOUT, EXIT_UNAVAILABLE, Options, UsageError
from shmcam.config.settings import EXIT_USAGE
from shmcam.control.call import call
from shmcam.control.command_table import find, suggestion
from shmcam.control.messages import Reply, Set
from shmcam.control.parser import parse_line

EXIT_CODES = {
    "no_hub": EXIT_UNAVAILABLE,
    "no_permission": EXIT_UNAVAILABLE,
    "timeout": EXIT_TIMEOUT,
    "no_answer": EXIT_TIMEOUT,
}
EXIT_CODES |= dict.fromkeys(("bad_arguments", "unknown_command", "unknown_camera"), EXIT_USAGE)


def send_command(options: Options) -> int:
    """Sends one command and prints its reply: text to stdout, errors to stderr, everything as JSON with --json."""
    if find(options.word) is None:
        near = suggestion(options.word) or next(
            (w for w in (*LOCAL, *ELSEWHERE, *SUPERVISOR) if w.startswith(options.word[:3])), ""
        )
        raise UsageError(
            f"unknown word {options.word!r}" + (f"; did you mean {near}?" if near else "; see: shmcam --help")
        )
    cameras = () if options.socket else options.settings().cameras  # the hub of another socket may have others
    try:
        command = parse_line(line_of(options), cameras)
    except ValueError as problem:  # UnknownCommandError too
        raise UsageError(str(problem)) from problem
    return print_reply(call(options.socket_path, command, options.timeout), as_json=options.json)


def line_of(options: Options) -> str:
    """Returns the command as one line of the text dialect; words with spaces keep them."""
    command = find(options.word)
    is_set = command is not None and command[0].message is Set
    quoted = [word if is_set and "=" in word else shlex.quote(word) for word in options.rest]
    return " ".join([options.word, *quoted])


def print_reply(reply: Reply, *, as_json: bool) -> int:
    """Prints a reply; returns the exit code."""
    if as_json:
        data = {"ok": reply.ok, "status": reply.status, "data": reply.data}
        print(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        print(reply.text or reply.status, file=sys.stdout if reply.ok else sys.stderr)
    return 0 if reply.ok else EXIT_CODES.get(reply.status, EXIT_FAILED)
