"""`shmcam run`, and supervisorctl with this instance's configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from control.programs import TEMPLATE, is_home
from control.running import is_listening, run_supervised
from control.shell.options import EXIT_UNAVAILABLE, Options
from control.shell.words import SUPERVISOR
from control.watchdog.supervisord import Supervisord
from service.settings import Settings

ALL = "all"


def run(options: Options) -> int:
    """Become supervisord (`control.running` reads the options behind the word)."""
    chosen = any(word.partition("=")[0] == "--config" for word in options.rest)
    return run_supervised(options.rest if chosen else ["--config", str(options.config), *options.rest])


def supervisorctl(options: Options) -> int:
    """Become supervisorctl; without a program's name it means all of them."""
    word = "status" if options.word == "processes" else options.word
    if options.help:
        print(f"shmcam {options.word} [PROGRAM …]: {SUPERVISOR[options.word]}")
        return 0
    settings = options.settings()
    if not is_listening(settings.paths.run / "supervisor.sock"):
        print(f"shmcam: no supervisord at {settings.paths.run}/supervisor.sock; try: shmcam run", file=sys.stderr)
        return EXIT_UNAVAILABLE
    named = options.rest or ([] if word in {"status", "update"} else [ALL])
    named = [_full_name(name, settings) for name in named]
    program = Path(sys.executable).with_name("supervisorctl")
    arguments = [str(program), "--configuration", str(conf_of(settings)), word, *named]
    return os.execv(program, arguments)  # noqa: S606 - argv list, no shell


def conf_of(settings: Settings) -> Path:
    """Return the supervisord.conf this configuration runs with."""
    return TEMPLATE if is_home(settings) else settings.paths.run / "supervisord.conf"


def supervisord_of(settings: Settings) -> Supervisord:
    """Return the supervisord of this configuration."""
    return Supervisord(f"unix://{settings.paths.run}/supervisor.sock")


def _full_name(name: str, settings: Settings) -> str:
    """Let people write recorder-cam1 for supervisord's cam1:recorder-cam1."""
    if ":" in name or name == ALL:
        return name
    camera = next((camera for camera in settings.cameras[1:] if name.endswith(f"-{camera}")), "")
    return f"{camera}:{name}" if camera else name
