"""Runs a command upon an event: argv from config.toml, no shell; JSON on stdin, fields as environment."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from shmcam.hooks.attempt import Attempt

LOOK_S = 0.2
"""The period of looking whether the program ends."""


def run_command(
    argv: Sequence[str], payload: bytes, environment: Mapping[str, str], timeout_s: float, closing: threading.Event
) -> Attempt:
    """Runs a command and waits for it; kills it, and what it started, at its time limit and when `closing` is set."""
    with tempfile.TemporaryFile() as stdin:  # not a pipe: a command that does not read it keeps nobody waiting
        stdin.write(payload)
        stdin.seek(0)
        try:
            child = subprocess.Popen(argv, stdin=stdin, env={**os.environ, **environment}, start_new_session=True)
        except OSError as problem:
            return Attempt("failed", f"{problem.strerror}: {argv[0]}")
        except ValueError as problem:  # a null byte in argv
            return Attempt("failed", str(problem))
    end_s = time.monotonic() + timeout_s
    while not closing.is_set():
        left_s = end_s - time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(max(0.0, min(LOOK_S, left_s)))
            if code < 0:
                return Attempt("failed", f"ended by {_name_signal(-code)}")
            return Attempt("done", "exit code 0") if code == 0 else Attempt("failed", f"exit code {code}")
        if left_s <= 0:
            _kill(child)
            return Attempt("failed", f"killed after {timeout_s:g} s")
    _kill(child)
    return Attempt("failed", "killed, as hooks stops")


def _name_signal(number: int) -> str:
    """Returns SIGTERM, or "signal 40" for one that has no name in Python (real-time signals)."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Ends a command and what it started: it leads a session, and so a process group, of its own."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
