"""`shmcam console`: the loop and the keys of the full-screen view; `screen` draws it.

On a terminal it is full screen; with --plain, or when stdin is no terminal, it reads r, s, q + Enter line by line.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, cast

from shmcam.cli.console.key_commands import command_of_key, first_line_of
from shmcam.cli.console.screen import CameraPreview, View, cut, render
from shmcam.cli.options import EXIT_UNAVAILABLE, Options
from shmcam.cli.run.background_service import BackgroundService
from shmcam.control.call import call
from shmcam.control.messages import Command, Night, Reply, Status
from shmcam.runtime.log_tail import LogFollower, merge_tails

KEY_WAIT_S = 0.25
"""Wait for a key before the screen is drawn again."""

STATUS_S = 1.0
"""Time between two questions for the status."""

STATUS_ANSWER_S = 2.0

LOG_LINES = 200
ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def main(options: Options) -> int:
    """Shows the console until q; with --start the service runs as long."""
    if "--start" in options.switches():
        with BackgroundService(options.config, options.settings()):
            return _show(options)
    return _show(options)


def _show(options: Options) -> int:
    session = ConsoleSession(options)
    if "--plain" in options.rest or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return session.run_plain()
    with _raw_terminal():
        session.run_full_screen()
    return 0


class ConsoleSession:
    """The console of one service: its view, and what the keys do."""

    def __init__(self, options: Options) -> None:
        self._path = options.socket_path
        self._settings = options.settings()
        self._view = View(camera=self._settings.cameras[0])
        self._preview = CameraPreview(self._path)
        self._last_status_s = 0.0
        self._night = "auto"

    # ---- line by line

    def run_plain(self) -> int:
        """Reads one key a line and prints each answer. The end of stdin ends it like q."""
        print(f"shmcam console: {self._path}; r: record, s: save, n: night, ?: status, q: quit", flush=True)
        if not self._ask(Status()).ok:
            print(self._view.answer, file=sys.stderr)
            return EXIT_UNAVAILABLE
        for line in sys.stdin:
            key = line.strip()[:1]
            if key == "q":
                break
            if key == "?":
                print(self._ask(Status()).text, flush=True)
            elif key:
                self._obey(key)
                print(self._view.answer, flush=True)
        return 0

    # ---- full screen

    def run_full_screen(self) -> None:
        """Draws four times a second and obeys keys until q or a signal."""
        folder = self._settings.paths.logs
        follower, self._view.log = LogFollower(folder, ""), merge_tails(folder, "", LOG_LINES) or []
        previous: list[str] = []
        try:
            while not self._obey_keys():
                self._refresh()
                self._view.log = [*self._view.log, *follower.read_new()][-LOG_LINES:]
                columns, lines = shutil.get_terminal_size()
                self._view.picture = self._preview.draw(self._view.camera, columns, lines)
                fresh = render(self._view, columns, lines)
                _draw_changes(fresh, previous)
                previous = fresh
        finally:
            self._preview.close()

    def _obey_keys(self) -> bool:
        """Waits for keys and obeys them; returns whether to quit."""
        if not select.select([0], [], [], KEY_WAIT_S)[0]:
            return False
        keys = os.read(0, 64).decode(errors="replace")
        if "q" in keys or "\x03" in keys or not keys:
            return True
        for key in keys:
            self._obey(key)
        return False

    def _refresh(self) -> None:
        if time.monotonic() - self._last_status_s < STATUS_S:
            return
        self._last_status_s = time.monotonic()
        reply = call(self._path, Status(), STATUS_ANSWER_S)
        self._view.status = reply.data if reply.ok else {}
        self._view.problem = "" if reply.ok else reply.text

    # ---- keys

    def _obey(self, key: str) -> None:
        if key in ("r", "s"):
            self._ask(command_of_key(key, self._path, STATUS_ANSWER_S))
        elif key == "n":
            self._ask(Night(action=self._choose_next_night(), camera=self._view.camera))
        elif key == "c":
            cameras = self._settings.cameras
            self._view.camera = cameras[(cameras.index(self._view.camera) + 1) % len(cameras)]
            self._view.answer = f"camera {self._view.camera}"
        elif key == "p":
            self._preview.toggle()
        elif key.isprintable():
            self._view.answer = f"no key {key!r}"

    def _ask(self, command: Command) -> Reply:
        reply = call(self._path, command, 30.0)
        self._view.answer = first_line_of(reply)
        return reply

    def _choose_next_night(self) -> Literal["auto", "on", "off"]:
        """Returns the next of auto, on, off."""
        self._night = {"auto": "on", "on": "off", "off": "auto"}[self._night]
        return cast("Literal['auto', 'on', 'off']", self._night)


def _draw_changes(fresh: list[str], previous: list[str]) -> None:
    """Writes the lines that changed; all of them if their number changed."""
    is_whole = len(fresh) != len(previous)
    out = "\x1b[2J" if is_whole else ""
    for number, line in enumerate(fresh):
        if is_whole or line != previous[number]:
            out += f"\x1b[{number + 1};1H{cut(line, 10_000)}\x1b[K"
    sys.stdout.write(out)
    sys.stdout.flush()


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Switches the terminal to the console's screen, and back at the end, also after an exception or SIGTERM."""
    before = termios.tcgetattr(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.stdout.write(ENTER_SCREEN)
    tty.setcbreak(0)
    try:
        yield
    finally:
        with suppress(OSError):
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            sys.stdout.write(LEAVE_SCREEN)
            sys.stdout.flush()
