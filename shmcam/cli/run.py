"""`shmcam run` becomes supervisord; `shmcam start|stop|restart|update|processes` become supervisorctl.

Only `shmcam restart` of all is more: supervisord, from which the programs are forked, is executed anew, too.

`run` first makes the folders and the supervisord.conf of this configuration and prints where everything is.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import importlib.util
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from capture.settings import PRESETS
from shmcam.cli.camera_autoconfig import note_connected_cameras
from shmcam.cli.options import EXIT_UNAVAILABLE, Options, default_config
from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.config.toml_file import OVERRIDES, to_toml
from shmcam.runtime.atomic_files import open_atomic
from shmcam.runtime.folder_checks import explain_unusable, make_folders
from shmcam.runtime.peer_address import is_loopback
from shmcam.runtime.supervisord import SOCKET, Supervisord, SupervisordError, find_supervisord, is_listening
from shmcam.runtime.supervisord_programs import (
    HOME,
    INSTALLED,
    PROGRAMS,
    SHIPPED,
    TEMPLATE,
    is_home,
    render_supervisord_conf,
    write_programs,
)

SECRETS = ("token", "password", "insecure_no_auth")
"""Keys of [http]; an address that other machines can reach needs one of them."""

SOCAT_SPECIAL = re.compile(r"""[\\"'()\[\]{},:!]""")
"""Characters with a meaning in an address of socat(1)."""

ALL = "all"
"""supervisorctl's word for every program."""

SOCKET_BACK_S = 5.0
"""Limit for the watchdog to make supervisord's socket again, which it looks for twice a second."""

SOCKET_PATH_MAX = 107
"""sun_path of unix(7), less the final zero."""

PID_SUFFIX_BYTES = len(".4194304")
"""supervisord binds its socket under a name with its pid first, and renames it; the longest pid of proc(5)."""

UMASK = 0o027
"""Pictures, recordings and logs are for the service's user and group; supervisord.conf has the same."""

EXIT_CANNOT_CREATE = 73
"""sysexits.h EX_CANTCREAT: nothing can be written in [paths] run."""

EXIT_ALREADY_RUNNING = 75
"""sysexits.h EX_TEMPFAIL: stop the other instance, or give this one its own [paths] run."""


FOREGROUND = {"interactive": ("console", "--start"), "slave": ("slave", "--start", "--silent")}
"""Modes in which the service runs in the background of another word."""

READY_WITHIN_S = 90.0
"""Longest wait for a service in the background; a Pi needs several seconds."""

UNDER_WAY = ("STARTING", "BACKOFF", "STOPPING")
"""States of supervisord's programs that pass."""

STOP_WITHIN_S = 15.0
"""Time from SIGTERM to SIGKILL for a service in the background."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal to a child whose parent has ended."""


def run_supervised(argv: Sequence[str] | None = None) -> int:
    """Starts every process in the foreground; Ctrl-C or SIGTERM stops them all. Returns only where it cannot start."""
    options = build_parser().parse_args(argv)
    config = options.config.absolute() if options.mode == "slave" else choose_config(options.config.absolute())
    os.umask(UMASK)
    environ = dict(os.environ)
    environ["SHMCAM_CONFIG"] = str(config)
    environ["PYTHONUTF8"] = "1"  # supervisord reads its file in the locale's encoding otherwise
    overrides = [*_overrides_of(options), *options.set]
    environ[OVERRIDES] = "\n".join(overrides)  # reaches every child, also those that supervisord starts later
    try:
        settings = Settings.load(config, overrides)
    except SettingsError as error:
        print(f"shmcam run: {error}", file=sys.stderr)
        return EXIT_CONFIG
    if path_problem := find_path_problem(settings):
        print(f"shmcam run: {path_problem}", file=sys.stderr)
        return EXIT_CONFIG
    if running := find_running(settings):
        print(f"shmcam run: {running}", file=sys.stderr)
        return EXIT_ALREADY_RUNNING
    problems = make_folders(settings)
    for item in problems:
        print(f"shmcam run: {item}{'; please type: ' * bool(item.type_this)}{item.type_this}", file=sys.stderr)
    if any(item.name == "run" for item in problems):
        return EXIT_CANNOT_CREATE
    settings = note_connected_cameras(settings)
    conf = prepare(settings)
    if options.console:
        _print_log(config)
    if options.mode in FOREGROUND:
        words = FOREGROUND[options.mode]
        if options.mode == "interactive" and options.preview is False:
            words = (*words, "--plain")
        elif options.mode == "interactive" and os.environ.get("DISPLAY") and importlib.util.find_spec("tkinter"):
            words = ("view", "--start")
        arguments = [sys.executable, "-m", "shmcam.cli.main", "--config", str(config), *words]
        return os.execve(sys.executable, arguments, environ)  # noqa: S606  (argv list, no shell)
    print(banner_of(settings, conf), flush=True)
    arguments = [sys.executable, "-m", "shmcam.supervisord", "--nodaemon", "--configuration", str(conf)]
    if not options.verbose:
        arguments.append("--silent")  # its log file has the same lines
    return os.execve(sys.executable, arguments, environ)  # noqa: S606  (argv list, no shell)


def find_path_problem(settings: Settings) -> str:
    """Returns the reason why supervisord cannot use the paths of a configuration, and what to change; empty: it can."""
    paths = settings.paths
    for path in (settings.path, Path(sys.executable), paths.run, paths.logs):
        if not str(path).isprintable() and any(c in str(path) for c in "\n\r\0"):
            return f"{str(path)!r}: supervisord cannot use a path with a line break; rename that folder"
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return f"{os.fsencode(path)!r}: supervisord cannot use a path that is not UTF-8; rename that folder"
    longest = paths.run / SOCKET  # the longest name there
    length, limit = len(os.fsencode(longest)), SOCKET_PATH_MAX - PID_SUFFIX_BYTES
    if length > limit:
        return (
            f"the socket's path is {length} bytes long, {limit} are possible: {longest}; "
            'set [paths] run = "/run/shmcam" in config.toml, or another short folder'
        )
    return ""


def _overrides_of(options: argparse.Namespace) -> list[str]:
    """Returns the settings of this start that the options of the former camera module stand for."""
    wanted = {
        "camera.preset": options.resolution,
        "camera.framerate": options.target_fps,
        "mjpeg_server.width": None if options.preview_size is None else PRESETS[options.preview_size][0],
        "paths.recordings": None if options.output_dir is None else str(Path(options.output_dir).absolute()),
        "recorder.session_prefix": options.session_prefix,
        "recorder.auto_start": True if options.mode == "headless" else None,
        "logging.level": options.log_level,
        "logging.libcamera": options.libcamera_log_level,
    }
    if options.auto_start_recording is not None:
        wanted["recorder.auto_start"] = options.auto_start_recording
    return [f"{path}={to_toml(value)}" for path, value in wanted.items() if value is not None]


def _print_log(config: Path) -> None:
    """Prints the log on stderr from now on, by a process that ends with this one or with the supervisord it becomes."""
    prctl = ctypes.CDLL(None).prctl
    subprocess.Popen(
        [sys.executable, "-m", "shmcam.cli.main", "--config", str(config), "logs", "-f", "-n", "0"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509 - there are no threads yet
    )


class BackgroundService:
    """The whole service as a child of this program, for the time of a `with` block; its output is in logs/run.out."""

    def __init__(self, config: Path, settings: Settings) -> None:
        self._config, self._settings = config, settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> BackgroundService:
        """Starts it, and waits until all its processes are there and every camera delivers."""
        self._settings.paths.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "shmcam.cli.run", "--config", str(self._config)]
        command += [word for line in os.environ.get(OVERRIDES, "").splitlines() for word in ("--set", line)]
        with (self._settings.paths.logs / "run.out").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self._process, end_s = process, time.monotonic() + READY_WITHIN_S
        while time.monotonic() < end_s and process.poll() is None and not self._is_ready():
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _is_ready(self) -> bool:
        if not is_listening(self._settings.socket_path):
            return False
        from shmcam.control.call import call
        from shmcam.control.messages import Status

        reply = call(self._settings.socket_path, Status(), 5.0)
        cameras = reply.data.get("cameras", [])
        return reply.ok and reply.data["ok"] and all(row.get("fps", 0) > 0 for row in cameras)


def choose_config(config: Path) -> Path:
    """Returns the config.toml to run, and says which one if it is neither named nor in this folder.

    A file that pip installed is copied into this folder first: run/ and captures/ go where config.toml is.
    """
    here = Path.cwd() / "config.toml"
    if config != SHIPPED or config == here:
        return config
    if HOME != INSTALLED:
        print(f"no config.toml in this folder: running {config}")
        return config
    with open_atomic(here) as file:
        file.write(config.read_bytes())
    print(f"no config.toml in this folder: wrote one, {here}; edit it as you like")
    return here


def prepare(settings: Settings) -> Path:
    """Makes the folders and the supervisord.conf of this configuration. Returns: the path of that file.

    A folder on a disk that is away is left to the process that needs it; supervisord, which would not start without
    its logs, then writes them into the run folder.
    """
    paths = settings.paths
    make_folders(settings)
    (paths.run / PROGRAMS).mkdir(exist_ok=True)
    logs = paths.run if explain_unusable(paths.logs) else paths.logs
    conf = TEMPLATE
    if not is_home(settings) or logs != paths.logs:
        conf = paths.run / "supervisord.conf"
        with open_atomic(conf, replace=True) as file:
            file.write(render_supervisord_conf(settings, TEMPLATE.read_text(), logs).encode())
    write_programs(settings, conf)
    return conf


def banner_of(settings: Settings, conf: Path) -> str:
    """Returns what `run` prints at its start: addresses, and lines to type, on one screen."""
    scheme = "https" if settings.value("http.tls_cert") else "http"
    bind = str(settings.value("http.bind"))
    host = "127.0.0.1" if bind in ("0.0.0.0", "::", "") else bind  # noqa: S104  (shown, not bound)
    port = settings.value("mjpeg_server.port")
    supervisorctl = "supervisorctl" if conf == TEMPLATE else f"supervisorctl -c {shlex.quote(_shorten(conf))}"
    address = shlex.quote("UNIX-CONNECT:" + SOCAT_SPECIAL.sub(r"\\\g<0>", _shorten(settings.socket_path)))
    taken = find_port_holder(bind, port)
    page = {"page": f"{scheme}://{host}:{port}/", "stream": f"{scheme}://{host}:{port}/stream"}
    if taken:
        page = {"! page": f"not yet: port {port} is taken by {taken}; end that, or set mjpeg_server.port"}
    lines = {
        **page,
        "save": f"echo save | socat -t10 - {address}",
        "record": f"echo record start | socat -t10 - {address}",
        "status": f"{supervisorctl} status",
        "logs": f"tail -f {shlex.quote(_shorten(settings.paths.logs))}/*.log",
        "stop": "Ctrl-C",
    }
    if not is_loopback(bind) and not any(settings.value(f"http.{key}") for key in SECRETS):
        lines["! page"] = f"not served: http.bind = {bind} needs http.token or http.password"
    rows = "\n".join(f"  {name:7} {text}" for name, text in lines.items())
    return f"shmcam  {', '.join(settings.cameras)}  ({settings.path})\n{rows}"


def find_port_holder(bind: str, port: int) -> str:
    """Returns who has a TCP port, such as "pid 812 (python3)"; "" if it is free."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as problem:
            return _name_port_holder(port) if problem.errno == errno.EADDRINUSE else ""
    return ""


def _name_port_holder(port: int) -> str:
    import psutil

    with suppress(psutil.Error):  # other users' sockets have no pid
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and getattr(connection.laddr, "port", 0) == port
                and connection.pid
            ):
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another program"


def find_running(settings: Settings) -> str:
    """Returns words about the supervisord of this configuration that runs; empty: none does."""
    path = settings.paths.run / SOCKET
    if is_listening(path):
        return f"already running with run folder {settings.paths.run}"
    confs = [settings.paths.run / "supervisord.conf", *([TEMPLATE] if is_home(settings) else [])]
    if pid := find_supervisord(settings.paths.run, confs):
        text = f"already running as pid {pid}, but its socket {path} is gone"
        return f"{text}; if the watchdog does not bring it back, type: kill -HUP {pid}"
    return ""


def _shorten(path: Path) -> str:
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of what stands behind `shmcam run`."""
    parser = argparse.ArgumentParser(
        prog="shmcam run", description="Start every process in the foreground; Ctrl-C or SIGTERM stops them all."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=default_config(),
        metavar="FILE",
        help="config.toml to run (default: %(default)s)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="override one key")
    add = parser.add_argument_group("as in the former camera module, for this start only").add_argument
    add(
        "--mode",
        choices=("interactive", "headless", "slave"),
        help="interactive: the console here; headless: record from the start; slave: JSON on stdin and stdout",
    )
    presets = ", ".join(f"{number} = {width}x{height}" for number, (width, height) in enumerate(PRESETS))
    add("--resolution", type=int, choices=range(len(PRESETS)), metavar="N", help=f"size: {presets}")
    add("--target-fps", type=float, metavar="F", help="frames per second")
    add("--preview-size", type=int, choices=range(len(PRESETS)), metavar="N", help="size of the live picture, as above")
    add("--output-dir", metavar="DIR", help="where sessions go")
    add("--session-prefix", metavar="NAME", help="first part of a session folder's name")
    add("--auto-start-recording", action=argparse.BooleanOptionalAction, help="record from the start, or not")
    add(
        "--preview",
        action=argparse.BooleanOptionalAction,
        help="windows with the live pictures, where it can show them",
    )
    add("--console", action=argparse.BooleanOptionalAction, help="print the log here, too")
    add("--log-level", metavar="LEVEL", help="debug, info, warning, error, critical")
    add("--libcamera-log-level", metavar="LEVEL", help="DEBUG, INFO, WARN, ERROR, FATAL")
    add("--discovery-retry", metavar="N", help="taken for old command lines: a camera is looked for until it comes")
    parser.add_argument("--verbose", action="store_true", help="show supervisord's own lines too")
    return parser


def run(options: Options) -> int:
    """Becomes supervisord; `build_parser` reads the options behind the word."""
    return run_supervised(["--config", str(options.config), *["--help"] * options.help, *options.rest])


def run_supervisorctl(options: Options) -> int:
    """Becomes supervisorctl; without the name of a program it acts on all of them."""
    word = "status" if options.word == "processes" else options.word
    settings = options.settings()
    path, deadline_s = settings.paths.run / SOCKET, time.monotonic() + SOCKET_BACK_S
    while not is_listening(path):
        running = find_running(settings)
        if not running or time.monotonic() > deadline_s:
            from shmcam.cli.send import print_reply
            from shmcam.control.messages import error

            reply = error(running or f"no supervisord at {path}; try: shmcam run", "no_supervisord")
            return print_reply(reply, as_json=options.json) and EXIT_UNAVAILABLE
        time.sleep(0.1)
    if options.json and options.word == "processes":
        rows = [asdict(program) for program in supervisord_of(settings).programs()]
        print(json.dumps({"ok": True, "status": "processes", "data": {"processes": rows}}, indent=1))
        return 0
    programs = options.rest or ([] if word in {"status", "update"} else [ALL])
    if word == "restart" and programs == [ALL]:
        return restart_all(settings)
    names = [_full_name_of(name, settings) for name in programs]
    supervisorctl = [sys.executable, "-m", "supervisor.supervisorctl"]
    arguments = [*supervisorctl, "--configuration", str(conf_of(settings)), word, *names]
    return os.execv(sys.executable, arguments)  # noqa: S606 - argv list, no shell


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


if __name__ == "__main__":
    sys.exit(run_supervised())
