"""Turns a forked child of supervisord into a program, as `python -m MODULE` in a new interpreter would be."""

from __future__ import annotations

import atexit
import ctypes
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

ARG_START, ARG_END = 48, 49
"""Fields of /proc/PID/stat, from 1 (proc_pid_stat(5)): where the kernel reads the command line that ps shows."""

SUPERVISORD_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)
"""The signals that its `setsignals` handles, beside SIGINT."""

_supervisords_streams: list[object] = []
"""Kept for the life of a child: freed, they would write what they still hold, into the child's log."""


def run_forked(module: str, argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Runs a module as the main one of this process, whose descriptors above 2 are closed, and ends the process."""
    code = 1
    try:
        _take_over(argv, env)
        # Loaded before the fork: to look for it again would copy more pages than some programs need.
        if main := getattr(sys.modules.get(f"{module}.__main__"), "main", None):
            sys.exit(main())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:  # as the interpreter reads it
        code = end.code if isinstance(end.code, int) else end.code is not None
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the end of the program, as the interpreter reports it
        traceback.print_exc()
    finally:
        _end(code)


def reset_signals() -> None:
    """Takes back supervisord's handlers, and lets signals in that were held back since the fork."""
    signal.set_wakeup_fd(-1)
    for number in SUPERVISORD_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as an interpreter has it
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _take_over(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Replaces what is supervisord's: exit functions, signals, environment, streams, random state, command line."""
    atexit._clear()
    reset_signals()
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    sys.orig_argv = list(argv)
    sys.argv = ["-m", *argv[3:]]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - what `python -m` puts there
    _supervisords_streams.extend((sys.stdout, sys.stderr))
    sys.stdin, sys.stdout, sys.stderr = _open_stream(0, "r"), _open_stream(1, "w"), _open_stream(2, "w")
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    if numpy_random := sys.modules.get("numpy.random"):  # `random` seeds itself after a fork
        numpy_random.seed()
    with suppress(OSError):  # without /proc it is called as its parent is
        set_command_line(argv)


def _open_stream(descriptor: int, mode: str) -> TextIOWrapper:
    """Opens a standard stream as the interpreter does; output is written through at each line's end."""
    errors = "backslashreplace" if descriptor == 2 else "surrogateescape"
    binary = cast("BinaryIO", open(descriptor, f"{mode}b", closefd=False))  # noqa: SIM115 - for the process's life
    return TextIOWrapper(binary, encoding="utf-8", errors=errors, line_buffering=True)


def _end(code: int) -> NoReturn:
    """Ends as an interpreter does, less the frames of supervisord below this one."""
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does in its forked children
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(code & 0xFF)


def set_command_line(argv: Sequence[str]) -> None:
    """Shows these arguments to ps, top and `pgrep -f`, as far as those that the process was started with are long.

    A last byte that is not zero tells the kernel that this is one text (get_mm_cmdline in fs/proc/base.c), so that no
    empty arguments follow.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[number - 3]) for number in (ARG_START, ARG_END))  # the first one after ")" is field 3
    length = end - start
    if start > 0 and length > 2:  # 0: this kernel does not tell
        text = b" ".join(map(os.fsencode, argv))[: length - 2]
        ctypes.memmove(start, text.ljust(length - 1, b"\0") + b"\1", length)
