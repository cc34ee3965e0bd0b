"""The process of one plug-in: calls the user's `score(frame) -> dict` on the newest frame and sends the result."""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable

from shm_ring import Frame, FrameOverwritten, LiveRing
from shmcam.runtime.stop import Stop

ITEMS_MAX = 32
NAME_MAX = 32
TEXT_MAX = 64
NICE = 10
"""Niceness: plug-ins give way to all processes that handle frames."""
PR_SET_PDEATHSIG = 1

Value = float | int | str | bool | None


def check_result(result: object) -> dict[str, Value]:
    """Checks the result of a function. Raises: TypeError that names what is wrong."""
    if not isinstance(result, dict):
        raise TypeError(f"score() returned {type(result).__name__}; expected a dict of numbers")
    if len(result) > ITEMS_MAX:
        raise TypeError(f"score() returned {len(result)} items; at most {ITEMS_MAX}")
    return {_check_name(name): _check_value(name, value) for name, value in result.items()}


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX:
        raise TypeError(f"score() returned a name {name!r:.80}; expected 1 to {NAME_MAX} characters")
    return name


def _check_value(name: str, value: object) -> Value:
    plain = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None
    if isinstance(plain, int) and not isinstance(plain, bool) and abs(plain) >= 1 << 63:
        raise TypeError(f"score() returned {name} = an integer beyond 64 bits")
    if plain is None or isinstance(plain, bool | int | float):
        return plain
    if isinstance(plain, str):
        return plain[:TEXT_MAX]
    raise TypeError(f"score() returned {name} = {type(plain).__name__}; expected a number, text, true, false or None")


def import_function(function: str) -> Callable[[Frame], object]:
    """Imports `module:function`. Raises: ImportError, AttributeError, TypeError, or what the module raises."""
    module, _, name = function.partition(":")
    score = getattr(importlib.import_module(module), name)
    if not callable(score):
        raise TypeError(f"{function} is not a function")
    return score  # type: ignore[no-any-return]


class Pipe:
    """The pipe to the analyzer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, **message: object) -> None:
        """Sends one line. Raises: SystemExit when the analyzer reads no more."""
        try:
            os.write(self._fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise SystemExit(0) from None


def serve(ring: LiveRing, score: Callable[[Frame], object], pipe: Pipe, period_s: float, stop: Stop) -> None:
    """Calls the function on the newest frame, at most once per `period_s`, for ever."""
    reported = ""
    for item in ring.sequences(newest_first=True):
        if item is None:
            pipe.send(idle=True)
            continue
        began_s = time.monotonic()
        try:
            reader, sequence = item
            with reader.borrow(sequence) as frame:
                result = check_result(score(frame))
        except FrameOverwritten:
            continue  # too slow for this one; the next is waiting
        except Exception as problem:  # noqa: BLE001 - foreign code: all it raises is reported
            text = f"{type(problem).__name__}: {problem}"[:200]
            pipe.send(error=text)
            if text != reported:
                traceback.print_exc()
            reported = text
        else:
            pipe.send(frame_id=frame.frame_id, result=result)
        stop.wait(period_s - (time.monotonic() - began_s))


def main() -> int:
    """Runs until the analyzer ends."""
    parser = argparse.ArgumentParser(prog="python -m analyzer.plugins.worker")
    for name, kind in (
        ("function", str),
        ("ring", str),
        ("path", str),
        ("fps", float),
        ("memory-mb", int),
        ("fd", int),
    ):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(
        PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0
    )  # a killed analyzer must not leave this process behind
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (options.memory_mb << 20, options.memory_mb << 20))
    stop = Stop()
    stop.catch_signals()
    sys.path.insert(0, options.path)
    pipe = Pipe(options.fd)
    try:
        score = import_function(options.function)
    except (ImportError, AttributeError, TypeError) as problem:
        pipe.send(error=f"{type(problem).__name__}: {problem}"[:200])
        return 1
    pipe.send(idle=True)
    with LiveRing(options.ring, stop) as ring:
        serve(ring, score, pipe, 1 / options.fps, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
