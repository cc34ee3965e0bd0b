"""`shmcam run` makes the folders and the supervisord.conf of a configuration, and becomes supervisord."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from capture.settings import PRESETS
from shmcam.cli.camera_autoconfig import note_connected_cameras
from shmcam.cli.options import Options, default_config, whole_number
from shmcam.cli.run.banner import banner_of
from shmcam.cli.run.start_checks import find_path_problem, find_running
from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.config.toml_file import OVERRIDES, to_toml
from shmcam.runtime.atomic_files import open_atomic
from shmcam.runtime.folder_checks import explain_unusable, make_folders
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

UMASK = 0o027
"""Pictures, recordings and logs are for the service's user and group at most; supervisord.conf has the same."""

EXIT_CANNOT_CREATE = 73
"""sysexits.h EX_CANTCREAT: nothing can be written in [paths] run."""

EXIT_ALREADY_RUNNING = 75
"""sysexits.h EX_TEMPFAIL: stop the other instance, or give this one its own [paths] run."""

FOREGROUND = {"interactive": ("console", "--start"), "slave": ("slave", "--start", "--silent")}
"""Modes in which the service runs in the background of another word."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal to a child whose parent has ended."""


def run_supervised(argv: Sequence[str] | None = None) -> int:
    """Starts every process in the foreground; Ctrl-C or SIGTERM stops them all. Returns only where it cannot start."""
    options = build_parser().parse_args(argv)
    config = options.config.absolute() if options.mode == "slave" else choose_config(options.config.absolute())
    os.umask(UMASK | os.umask(UMASK))  # a user's 077 stays
    environ = dict(os.environ)
    environ["SHMCAM_CONFIG"] = str(config)
    environ["PYTHONUTF8"] = "1"  # supervisord reads its file in the locale's encoding otherwise
    overrides = [*overrides_of(options), *options.set]
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
    _start_what_goes_beside(options, config, environ)
    if options.mode in FOREGROUND:
        words = FOREGROUND[options.mode]
        if options.mode == "interactive" and options.preview is False:
            words = (*words, "--plain")
        elif options.mode == "interactive" and _has_windows():
            words = ("view", "--start")
        arguments = [sys.executable, "-m", "shmcam.cli.main", "--config", str(config), *words]
        return os.execve(sys.executable, arguments, environ)  # noqa: S606  (argv list, no shell)
    print(banner_of(settings, conf), flush=True)
    arguments = [sys.executable, "-m", "shmcam.supervisord", "--nodaemon", "--configuration", str(conf)]
    if not options.verbose:
        arguments.append("--silent")  # its log file has the same lines
    return os.execve(sys.executable, arguments, environ)  # noqa: S606  (argv list, no shell)


def overrides_of(options: argparse.Namespace) -> list[str]:
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


def _has_windows() -> bool:
    return bool(os.environ.get("DISPLAY") and importlib.util.find_spec("tkinter"))


def _start_what_goes_beside(options: argparse.Namespace, config: Path, environ: Mapping[str, str]) -> None:
    if options.console:
        _start_beside(environ, config, "logs", "-f", "-n", "0")
    if options.preview and options.mode != "interactive":
        if _has_windows():
            _start_beside(environ, config, "view")
        else:
            print("shmcam run: --preview: no display, or no Tk; the page shows the picture, too", file=sys.stderr)


def _start_beside(environ: Mapping[str, str], config: Path, *words: str) -> None:
    """Starts another word, its output on stderr; it ends with this process or with what this one becomes."""
    prctl = ctypes.CDLL(None).prctl
    subprocess.Popen(
        [sys.executable, "-m", "shmcam.cli.main", "--config", str(config), *words],
        env=environ,  # it has the overrides of this start
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509 - there are no threads yet
    )


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
    add("--resolution", type=whole_number, choices=range(len(PRESETS)), metavar="N", help=f"size: {presets}")
    add("--target-fps", type=float, metavar="F", help="frames per second")
    add(
        "--preview-size",
        type=whole_number,
        choices=range(len(PRESETS)),
        metavar="N",
        help="size of the live picture, as above",
    )
    add("--output-dir", metavar="DIR", help="where sessions go")
    add("--session-prefix", metavar="NAME", help="first part of a session folder's name")
    add("--auto-start-recording", action=argparse.BooleanOptionalAction, help="record from the start, or not")
    add(
        "--preview",
        action=argparse.BooleanOptionalAction,
        help="a window with the live pictures, where there is a display; with any mode",
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


if __name__ == "__main__":
    sys.exit(run_supervised())
