"""supervisord's options object, which makes its processes: execve of a program of ours becomes a run in the fork."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder

from supervisor import loggers
from supervisor.options import ServerOptions
from supervisor.poller import Poller

from shmcam.supervisord.forked_program import reset_signals, run_forked
from shmcam.supervisord.memory import refuse_huge_pages
from shmcam.supervisord.preload import LIMITS, LoadedFiles, find_module

READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "OPENBLAS_", "OMP_", "OPENCV_", "AIOHTTP_")
"""First letters of variables that the interpreter, the loader or a library reads when it is loaded."""

OBEYED = "PYTHONUNBUFFERED"
"""One that supervisord.conf sets for its programs only: the streams of a forked one write each line through."""


class ForkOptions(ServerOptions):  # type: ignore[misc]  # supervisor has no annotations
    """The options of a supervisord that runs programs of ours in the forked child, without a new interpreter."""

    def __init__(self) -> None:
        super().__init__()
        self.poller = SignalPoller(self)
        self.preloaded: LoadedFiles | None = None
        """The files of the modules that were loaded before the first fork."""

    def commands(self) -> list[list[str]]:
        """Returns the command line of each program, without those that nobody can parse: supervisord reports them."""
        found = []
        for group in self.process_group_configs:
            for program in group.process_configs:
                try:
                    found.append(shlex.split(program.command))
                except ValueError:
                    continue
        return found

    def make_logger(self) -> None:
        """Makes supervisord's log, which goes on while neither standard output nor standard error has a reader."""
        loggers.Handler.handleError = _report_lost_line
        super().make_logger()

    def setsignals(self) -> None:
        """Lets each of supervisord's signals end a wait, too."""
        super().setsignals()
        self.poller.wake_on_signals()

    def fork(self) -> int:
        """Forks with signals held back in the child until it has its own handlers, or a stop would be lost."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def execve(self, filename: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Runs a program of ours here, in the forked child, and ends it; executes any other one."""
        module = find_module([filename, *argv[1:]])
        if module and (reason := self._find_hindrance(module, env)):
            self.write(2, f"{module} runs in an interpreter of its own: {reason}\n")  # sys.stderr may hold older lines
        elif module:
            run_forked(module, argv, env)
        reset_signals()
        if not module:
            refuse_huge_pages(refuse=False)
        super().execve(filename, argv, {**LIMITS, **env} if module else env)

    def _find_hindrance(self, module: str, env: Mapping[str, str]) -> str:
        """Returns the reason why the loaded code is not what this program would load; "" if it is."""
        if name := find_other_variable(env, os.environ):
            return f"its environment has another {name}"
        top = module.partition(".")[0]
        here, loaded = PathFinder.find_spec(top, [os.getcwd()]), sys.modules.get(top)  # noqa: PTH109
        if here and here.origin and loaded and here.origin != loaded.__file__:
            return f"its folder has another {top}"
        changed = self.preloaded.find_changed() if self.preloaded else ""
        return f"{changed} has changed; `shmcam restart` loads it for all" if changed else ""


def find_other_variable(env: Mapping[str, str], loaded_with: Mapping[str, str]) -> str:
    """Returns a variable that is read when a program is loaded, and differs from what was read; "" if none does."""
    read = (name for name in sorted({*env, *loaded_with}) if name.startswith(READ_AT_START) and name != OBEYED)
    return next((name for name in read if env.get(name) != loaded_with.get(name)), "")


def _report_lost_line(handler: loggers.Handler) -> None:
    """Writes the traceback of a line that could not be logged; an error of its own would end supervisord."""
    with suppress(OSError, ValueError):
        traceback.print_exc()


class SignalPoller(Poller):  # type: ignore[misc]
    """A poll that ends when a signal comes: supervisord's own waits on, up to a second (PEP 475)."""

    def __init__(self, options: ServerOptions) -> None:
        super().__init__(options)
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._due_s = 0.0
        """Monotonic time at which to look again; 0 at first, so that the programs start at once."""

    def wake_on_signals(self) -> None:
        """Begins; after supervisord has set its handlers."""
        self.register_readable(self._read)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def look_again_in(self, seconds: float) -> None:
        """Ends a poll then, at the latest."""
        self._due_s = min(self._due_s, time.monotonic() + seconds)

    def poll(self, timeout: float) -> tuple[list[int], list[int]]:
        """Waits for descriptors, a signal, or a time that was asked for."""
        wait_s = max(0.0, min(timeout, self._due_s - time.monotonic()))
        self._due_s = float("inf")
        readable, writable = super().poll(wait_s)
        if self._read in readable:
            readable.remove(self._read)
            os.read(self._read, 4096)
            self._due_s = 0.0  # supervisord reaps after it has looked what to start: the next round starts it
        return readable, writable

    def close(self) -> None:
        """Gives the descriptors back."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)
