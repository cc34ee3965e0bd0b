"""Starts every process: command line, settings, log, stop, and the end together with supervisord."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from shmcam.config.errors import UnknownCamera
from shmcam.config.masking import find_secrets
from shmcam.config.optional_program import Need, find_missing
from shmcam.config.settings import EXIT_CONFIG, EXIT_USAGE, LoggingSettings, Settings, SettingsError
from shmcam.runtime.log import hide, open_process_log
from shmcam.runtime.stop import Stop

PR_SET_PDEATHSIG = 1

COUNTS_AS_STARTED_S = 6.0
"""Above startsecs (supervisord.conf): whatever ends earlier is started again, whatever its exit code."""

PR_SET_NAME = 15

log = logging.getLogger(__name__)

_parent_pid = os.getppid()
"""The parent, read as early as this package can."""


def _note_parent() -> None:
    global _parent_pid  # noqa: PLW0603 - a forked program has imported this module in its parent
    _parent_pid = os.getppid()


os.register_at_fork(after_in_child=_note_parent)


class Process(Struct, frozen=True):
    """The parts that a `__main__` needs to wire its process."""

    role: str
    """The folder name: capture, analyzer, …"""
    camera: str
    """The camera of this process (the first one for processes that serve all)."""
    name: str
    """The program name, as in supervisord and logs: `recorder`, `recorder-cam1`."""
    settings: Settings
    stop: Stop


def program_name_of(role: str, camera: str, settings: Settings) -> str:
    """Returns `recorder` for the first camera, `recorder-cam1` for another one."""
    return role if camera == settings.cameras[0] else f"{role}-{camera}"


def end_with_error(problem: Exception) -> int:
    """Prints what ends a command line. Returns: its exit code, that of wrong usage for a camera that there is not."""
    print(f"ERROR: {problem}", file=sys.stderr)
    return EXIT_USAGE if isinstance(problem, UnknownCamera) else 1


def find_config() -> Path:
    """Returns SHMCAM_CONFIG, else config.toml in the current folder."""
    return Path(os.environ.get("SHMCAM_CONFIG", "config.toml"))


@contextmanager
def startup(role: str, *, oom_score_adj: int = 0, argv: Sequence[str] | None = None) -> Iterator[Process]:
    """Starts this process as a child of supervisord: yields once settings, log and stop are ready.

    `oom_score_adj` > 0 lets the kernel end this process first when memory runs out (proc_pid_oom_score_adj(5)).
    Exits 78 with one line on stderr if the configuration is wrong; with one line in the log if what an optional
    program needs is not installed.
    """
    options = _parse_options(role, argv)
    try:
        settings = Settings.load(options.config, options.set)
        camera = options.camera or settings.cameras[0]
        if camera not in settings.cameras:
            raise SettingsError(f"--camera {camera}: not in {settings.path.name}; known: {', '.join(settings.cameras)}")
    except SettingsError as error:
        print(f"{role}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None
    _die_with_supervisord()
    if oom_score_adj > 0:
        with suppress(OSError):  # hidepid or a locked-down container: only a hint is lost
            Path("/proc/self/oom_score_adj").write_text(str(oom_score_adj))
    for secret in _find_secrets(settings):
        hide(secret)
    stop = Stop()
    stop.catch_signals()
    name = program_name_of(role, camera, settings)
    _prctl(PR_SET_NAME, name.encode())  # what top and ps -e show: its first 15 characters
    with open_process_log(settings.paths.logs / f"{name}.log", settings.table(LoggingSettings)):
        log.info("started program=%s pid=%d camera=%s config=%s", name, os.getpid(), camera, settings.path)
        if need := find_missing(settings, role):
            _end_without(need, stop)
        try:
            yield Process(role, camera, name, settings, stop)
        except SystemExit:
            if not stop.failed:
                raise
        log.info("ended program=%s%s", name, " because a part of it broke" if stop.failed else "")
        if stop.failed:
            raise SystemExit(1)


def _end_without(need: Need, stop: Stop) -> NoReturn:
    """Ends a program that lacks something; supervisord starts it again only when it is asked to."""
    log.error("%s", need)
    if "SUPERVISOR_ENABLED" in os.environ:
        stop.wait(COUNTS_AS_STARTED_S)
    raise SystemExit(EXIT_CONFIG)


def _parse_options(role: str, argv: Sequence[str] | None) -> argparse.Namespace:
    if not (sys.argv[1:] if argv is None else argv):  # a megabyte less to copy in a forked program
        return argparse.Namespace(config=find_config(), camera=None, set=[])
    parser = argparse.ArgumentParser(prog=f"python -m {role}")
    parser.add_argument("--config", type=Path, default=find_config(), help="config.toml to read")
    parser.add_argument("--camera", help="which camera of [cameras.…] (default: the first)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="override one key")
    return parser.parse_args(argv)


def _find_secrets(settings: Settings) -> Iterator[str]:
    """Yields every secret of the file, those of single cameras (a URL with its password), too."""
    for key in settings.schema():
        if key.secret or key.row is not None:
            for path in (key.path, *(f"cameras.{camera}.{key.path}" for camera in settings.cameras)):
                yield from find_secrets(key, settings.value(path))


def _die_with_supervisord() -> None:
    """Lets the kernel kill this process when supervisord dies: no child may keep the camera.

    The signal is SIGKILL, because a process that hangs must not survive, and every process is crash-only. If
    supervisord died before this call, no signal comes any more: the process then has another parent and exits itself.
    """
    if "SUPERVISOR_ENABLED" in os.environ:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != _parent_pid or (
            _parent_pid == 1 and b"supervisord" not in Path("/proc/1/cmdline").read_bytes()
        ):
            raise SystemExit(1)


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
