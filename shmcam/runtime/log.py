"""Writes the log of one process, which also owns file descriptors 1 and 2.

Every line, ours or a C library's (libcamera, ffmpeg), goes into one pipe; a thread moves it to the log file. The
pipe is the bounded queue: a write to it never blocks, and a line that does not fit is dropped and counted. So a slow
SD card, a full disk or a stopped supervisord can delay no frame.
"""

from __future__ import annotations

import faulthandler
import fcntl
import io
import logging
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shmcam.config.schema import find_settings_modules
from shmcam.config.settings import LoggingSettings
from shmcam.runtime.log_rotation import Quota, RotatingFile
from shmcam.runtime.non_utf8_escapes import ESCAPE

if TYPE_CHECKING:
    from typing_extensions import Buffer

PIPE_BYTES = 1 << 20
"""About 10,000 lines, seconds of the worst flood; an empty pipe costs nothing."""
MAX_LINE_BYTES = 4000
"""Below PIPE_BUF (4096), so that lines of several threads and libraries never mix (pipe(7))."""

IDLE_S = 60.0
"""The longest wait for a line; the end of the process ends it at once."""
LAST_LINES_S = 0.05
"""The time without a line after which a process that ends has written its last one."""

_ANSI = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_secrets: set[str] = set()
_crash_reports: list[int] = []


def hide(secret: str) -> None:
    """Replaces this string by *** in the log from now on; for tokens and passwords, as soon as they are read."""
    if secret:
        _secrets.add(secret)


def get_crash_descriptor() -> int:
    """Returns a descriptor for when no thread can run any more: of the log file, or stderr while there is none."""
    return _crash_reports[-1] if _crash_reports else 2


class _LineFormatter(logging.Formatter):
    """The format of a line: `2026-08-22T21:04:05.123Z INFO  analyzer.loop  night began score=0.13`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s  %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime


class _PipeHandler(logging.Handler):
    """A handler that writes a line into the pipe or drops it, and never waits."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in self.format(record).splitlines():
                os.write(self._descriptor, line.encode(errors=ESCAPE)[:MAX_LINE_BYTES] + b"\n")
        except BlockingIOError:
            self.dropped += 1


class _PipeWriter(io.RawIOBase):
    """The standard output of Python code: written into the pipe, too; a full pipe drops it and raises nothing."""

    def writable(self) -> bool:
        return True

    def write(self, block: Buffer) -> int:
        with suppress(BlockingIOError):
            os.write(1, block)
        return memoryview(block).nbytes


class _FileWriter:
    """The thread that moves lines from the pipe to the file."""

    def __init__(self, file: RotatingFile, handler_source: int, echo: int | None) -> None:
        self._file = file
        self._source = handler_source
        self._echo = echo
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(timeout=2.0)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _run(self) -> None:
        rest = b""
        while True:
            waits = [self._source] if self._closing else [self._source, self._wake]
            readable, _, _ = select.select(waits, [], [], LAST_LINES_S if self._closing else IDLE_S)
            if self._source not in readable:
                if self._closing and not readable:
                    if rest:
                        self._write(_clean(rest) + b"\n")
                    return
                continue
            block = rest + os.read(self._source, 1 << 16)
            whole, _, rest = block.rpartition(b"\n")
            if len(rest) > MAX_LINE_BYTES:  # a library that writes no line end
                whole, rest = whole + b"\n" + rest if whole else rest, b""
            if whole:
                self._write(_clean(whole) + b"\n")

    def _write(self, block: bytes) -> None:
        self._file.write(block)
        if self._echo is not None:
            with suppress(OSError):
                os.write(self._echo, block)


def _clean(block: bytes) -> bytes:
    """Removes colours, control characters (a line in a log must not drive a terminal) and secrets."""
    for secret in _secrets:
        block = block.replace(secret.encode(), b"***")
    return _CONTROL.sub(b"?", _ANSI.sub(b"", block).replace(b"\r", b""))


def _replace_descriptor(new: int, kept: int) -> None:
    os.dup2(new, kept, inheritable=False)


def _make_name_pattern() -> str:
    """Returns the pattern of our logs' names: of every installed package and camera, and supervisord's own."""
    roles = {point.name for point in find_settings_modules()} | {"hub", "watchdog", "supervisord"}
    return rf"(?:{'|'.join(map(re.escape, sorted(roles)))})(?:-[A-Za-z0-9_-]+)?\.log"


@contextmanager
def open_process_log(path: Path, settings: LoggingSettings) -> Iterator[None]:
    """Sends all output of this process to `path` until the block ends; logs an exception that leaves the block.

    If stderr is a terminal (the process was started by hand), lines go there, too.
    """
    echo = os.dup(2) if os.isatty(2) else None
    source, sink = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(sink, False)
    with suppress(OSError):  # some systems allow users less; the default 64 KiB will do
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    crash = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    # faulthandler keeps this descriptor for good; _replace_descriptor puts each new file behind it.
    quota = Quota(path.parent, _make_name_pattern(), settings.folder_bytes, settings.max_bytes)
    file = RotatingFile(path, settings.max_bytes, settings.files, lambda new: _replace_descriptor(new, crash), quota)
    with suppress(OSError):  # without a disk there is no crash report, but the process must run
        file.descriptor()
    _crash_reports.append(crash)
    faulthandler.enable(file=crash, all_threads=True)
    writer = _FileWriter(file, source, echo)
    handler = _PipeHandler(sink)
    handler.setFormatter(_LineFormatter())
    root = logging.getLogger()
    if root.getEffectiveLevel() != logging.getLevelName(settings.level):
        root.setLevel(settings.level)  # which writes into every logger: a forked program would copy all their pages
    for former in [*root.handlers]:
        root.removeHandler(former)
    root.addHandler(handler)
    logging.captureWarnings(True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    sys.stdout = sys.stderr = io.TextIOWrapper(io.BufferedWriter(_PipeWriter()), errors=ESCAPE, line_buffering=True)
    writer.start()
    try:
        yield
    except SystemExit:
        raise
    except BaseException:
        logging.getLogger("shmcam.runtime.log").exception("died of an unexpected error")
        raise SystemExit(1) from None  # the traceback is in the log; a second copy would only repeat it
    finally:
        if handler.dropped:
            logging.getLogger("shmcam.runtime.log").warning("log lines dropped=%d", handler.dropped)
        writer.stop()
