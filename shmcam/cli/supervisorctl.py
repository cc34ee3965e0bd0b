"""`shmcam start|stop|restart|update|processes` run supervisorctl.

Only `shmcam restart` of all is more: supervisord, from which the programs are forked, is executed anew, too.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import asdict

from shmcam.cli.options import EXIT_FAILED, EXIT_UNAVAILABLE, Options, UsageError
from shmcam.cli.run.background_service import READY_WITHIN_S
from shmcam.cli.run.start_checks import find_running
from shmcam.config.settings import Settings
from shmcam.runtime.supervisord import SOCKET, Program, Supervisord, SupervisordError, find_owner, is_listening
from shmcam.runtime.supervisord_programs import TEMPLATE, is_home

ALL = "all"
"""supervisorctl's word for every program."""

SOCKET_BACK_S = 5.0
"""Limit for the watchdog to make supervisord's socket again, which it looks for twice a second."""

UNDER_WAY = ("STARTING", "BACKOFF", "STOPPING")
"""States of supervisord's programs that pass."""


def run_supervisorctl(options: Options) -> int:
    """Runs supervisorctl; without the name of a program it acts on all of them. Raises: UsageError, OSError."""
    word = "status" if options.word == "processes" else options.word
    settings = options.settings()
    path, deadline_s = settings.paths.run / SOCKET, time.monotonic() + SOCKET_BACK_S
    if owner := find_owner(path):
        line = shlex.join(["sudo", "shmcam", options.word, *options.rest])
        return _refuse(f"{path} is for user {owner} only; type: {line}", "no_permission", options)
    while not is_listening(path):
        running = find_running(settings)
        if not running or time.monotonic() > deadline_s:
            return _refuse(running or f"no supervisord at {path}; try: shmcam run", "no_supervisord", options)
        time.sleep(0.1)
    if options.json and options.word == "processes":
        rows = [asdict(program) for program in supervisord_of(settings).programs()]
        print(json.dumps({"ok": True, "status": "processes", "data": {"processes": rows}}, indent=1))
        return 0
    programs = options.rest or ([] if word in {"status", "update"} else [ALL])
    if word == "restart" and programs == [ALL]:
        return restart_all(settings)
    names = [_full_name_of(name, settings) for name in programs]
    if word != "update":  # which may begin programs that supervisord does not know yet
        check_names(names, supervisord_of(settings).programs(), settings.cameras[0])
    supervisorctl = [sys.executable, "-u", "-m", "supervisor.supervisorctl"]
    return run_to_the_end([*supervisorctl, "--configuration", str(conf_of(settings)), word, *names])


def _refuse(text: str, status: str, options: Options) -> int:
    """Prints why supervisord cannot be asked. Returns: the exit code."""
    from shmcam.cli.send import print_reply
    from shmcam.control.messages import error

    return print_reply(error(text, status), as_json=options.json) and EXIT_UNAVAILABLE


def check_names(names: Sequence[str], programs: Sequence[Program], first_camera: str) -> None:
    """Refuses names of no program or group; supervisorctl tells each of them twice. Raises: UsageError.

    Groups of the first camera (`cam0:*`) are looked up by supervisord (`shmcam.supervisord.first_camera_group`).
    """
    known = {ALL, *(program.full_name for program in programs)}
    known |= {program.name for program in programs if program.name == program.group}
    known |= {f"{program.group}:*" for program in programs}
    for name in names:
        if name not in known and not name.startswith(f"{first_camera}:"):
            raise UsageError(f"no program {name!r}; programs: {', '.join(program.name for program in programs)}")


def run_to_the_end(command: Sequence[str]) -> int:
    """Runs a program and prints what it says; its exit codes, which have meanings of their own, become 0 and 1.

    Raises: OSError of stdout after the end of the program: half a restart would be a stop.
    """
    problem = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as program:
        for line in program.stdout or ():
            try:
                print(line, end="", flush=True)
            except OSError as error:
                problem = error
    if problem:
        raise problem
    return EXIT_FAILED if program.returncode else 0


def restart_all(settings: Settings) -> int:
    """Lets supervisord begin anew, with the code and supervisord.conf of now, and waits for its programs."""
    supervisord = supervisord_of(settings)
    try:
        waiting = {program.full_name for program in supervisord.programs()}
        supervisord.reload()
    except SupervisordError as problem:
        print(f"shmcam restart: {problem}", file=sys.stderr)
        return 1
    exit_code, end_s = 0, time.monotonic() + READY_WITHIN_S
    while waiting and time.monotonic() < end_s:
        time.sleep(0.1)
        with suppress(SupervisordError):  # it stops, or is not there yet
            programs = [program for program in supervisord.programs() if program.full_name in waiting]
            waiting.intersection_update(program.full_name for program in programs)
            for program in programs:
                if program.state not in UNDER_WAY:
                    print(f"{program.name}: {'started' if program.state == 'RUNNING' else program.state}", flush=True)
                    exit_code |= program.state not in ("RUNNING", "STOPPED")
                    waiting.remove(program.full_name)
    for name in sorted(waiting):
        print(f"{name}: not started within {READY_WITHIN_S:.0f} s", file=sys.stderr)
    return 1 if waiting else exit_code


def conf_of(settings: Settings) -> Path:
    """Returns the path of the supervisord.conf of this configuration."""
    return TEMPLATE if is_home(settings) else settings.paths.run / "supervisord.conf"


def supervisord_of(settings: Settings) -> Supervisord:
    """Returns the supervisord of this configuration."""
    return Supervisord(f"unix://{settings.paths.run}/supervisor.sock")


def _full_name_of(name: str, settings: Settings) -> str:
    """Returns supervisord's name of a program: recorder-cam1 stands for cam1:recorder-cam1."""
    if ":" in name or name == ALL:
        return name
    camera = next((camera for camera in settings.cameras[1:] if name.endswith(f"-{camera}")), "")
    return f"{camera}:{name}" if camera else name
