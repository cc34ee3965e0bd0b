"""Programs of ours that a test starts, forked from a process that has loaded them, as `shmcam run` starts them.

A new interpreter takes half a second of a core to import what a program needs, and the tests start a thousand of them.
`Program([sys.executable, "-m", "capture", …])` is used as subprocess.Popen. Whatever concerns the interpreter itself
(another Python, its options, variables that it or a library reads when it is loaded) is executed as ever.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any, NoReturn

import cv2  # noqa: F401 - it changes LD_LIBRARY_PATH, which ENVIRON must have already

from shmcam.supervisord.fork_options import find_other_variable
from shmcam.supervisord.forked_program import run_forked
from shmcam.supervisord.preload import LIMITS

PACKAGES = {
    **{name: name for name in ("capture", "analyzer", "exporter", "recorder", "streamer")},
    **{name: name for name in ("shmcam.hub", "shmcam.mqtt", "shmcam.hooks")},
    "tests.capture.scripted": "capture",
}
"""The modules that are forked, and the package whose __main__ is loaded before."""
STATUS_BYTES = 20
"""The length of a number that is told, with blanks."""
REQUEST_BYTES_MAX = 128 * 1024
TITLE = "-" * 400
"""Room for the command lines that `ps` shows (forked_program.set_command_line)."""

ENVIRON = dict(os.environ)
"""What the process that forks is started with: the first test that needs it may have changed its own."""

_link: socket.socket | None = None
"""The connection to that process."""


class Program(subprocess.Popen[Any]):
    """A program of ours, started as subprocess.Popen starts one with `python -m MODULE …`."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *more: Any) -> None:
        """Stands in for Popen's: has the child forked elsewhere, with the descriptors that Popen has prepared."""
        _, pass_fds, cwd, env, _, _, shell, *rest = more
        argv, environ = [os.fspath(word) for word in args], dict(os.environ if env is None else env)
        if executable or preexec_fn or pass_fds or shell or not _can_be_forked(argv, environ):
            self._status = None
            super()._execute_child(args, executable, preexec_fn, *more)  # type: ignore[misc]
            return
        pipes = rest[:6]  # for each stream the child's and our end, -1: inherited
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        status, told = os.pipe()
        self._status = os.fdopen(status, "rb", buffering=0)
        streams = [end if end != -1 else number for number, end in enumerate((p2cread, c2pwrite, errwrite))]
        request = {"argv": argv, "cwd": os.fspath(cwd or os.getcwd()), "env": environ}  # noqa: PTH109
        try:
            socket.send_fds(_connect(), [json.dumps(request).encode()], [*streams, told])
        finally:
            os.close(told)
        self.pid = int(self._status.read(STATUS_BYTES))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Stands in for os.waitpid."""
        if self._status is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        if not select.select([self._status], [], [], 0 if wait_flags & os.WNOHANG else None)[0]:
            return 0, 0
        return self.pid, int(self._status.read(STATUS_BYTES) or b"9")  # nothing: the process that forks is gone

    def _internal_poll(self, _deadstate: int | None = None, **more: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(_deadstate, **more)  # type: ignore[misc, no-any-return]
        with self._waitpid_lock:  # type: ignore[attr-defined]
            if self.returncode is None:
                pid, status = self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def _can_be_forked(argv: list[str], environ: dict[str, str]) -> bool:
    is_ours = argv[0] == sys.executable and len(argv) > 2 and argv[1] == "-m" and argv[2] in PACKAGES
    return is_ours and not find_other_variable(environ, ENVIRON)


def _connect() -> socket.socket:
    global _link
    if _link is None:
        _link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * REQUEST_BYTES_MAX)
        command = [sys.executable, "-m", "tests.programs", str(theirs.fileno()), TITLE]
        home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
        pass_fds = [theirs.fileno()]
        process = subprocess.Popen(command, cwd=home, env=ENVIRON, pass_fds=pass_fds, stdin=subprocess.DEVNULL)
        theirs.close()
        atexit.register(_disconnect, process)
    return _link


def _disconnect(process: subprocess.Popen[bytes]) -> None:
    assert _link
    _link.close()
    process.wait(10)


# ---- the process that forks


def main() -> int:
    """Forks what it is asked for, and tells how each ended, until the test process closes the connection."""
    os.environ.update({name: value for name, value in LIMITS.items() if name not in os.environ})
    link = socket.socket(fileno=int(sys.argv[1]))
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test process
    running: dict[int, int] = {}
    while True:
        ready = select.select([link, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if link in ready:
            data, descriptors, _, _ = socket.recv_fds(link, REQUEST_BYTES_MAX, 4)
            if not data:
                return 0
            request = json.loads(data)
            with suppress(Exception):  # the program says so itself
                importlib.import_module(f"{PACKAGES[request['argv'][2]]}.__main__")
            if (pid := os.fork()) == 0:
                _become(request, descriptors)
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            running[pid] = descriptors[3]
            os.write(running[pid], str(pid).ljust(STATUS_BYTES).encode())


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, 1 << 20)
    os.chdir(request["cwd"])
    run_forked(request["argv"][2], request["argv"], request["env"])


def _reap(running: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            told = running.pop(ended[0])
            with suppress(BrokenPipeError):
                os.write(told, str(ended[1]).ljust(STATUS_BYTES).encode())
            os.close(told)


if __name__ == "__main__":
    sys.exit(main())
