"""The command line of `shmcam` as an argparse parser: the options that every word shares, and the exit codes.

The parser reads these options and `--help`. Everything else behind a word is handed on as it stands: a command's fields
are read by `shmcam.control.parser`, which reads the same line on the socket. Light to import, as every word needs it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shmcam.cli.local_commands import find_word, help_of

if TYPE_CHECKING:
    from shmcam.config.settings import Settings


EXIT_FAILED = 1
EXIT_UNAVAILABLE = 69
"""sysexits.h EX_UNAVAILABLE: no hub, no supervisord."""
EXIT_TIMEOUT = 75

VALUE_MISSING = "expected one argument"
VALUE_TOO_MUCH = "ignored explicit argument"
"""The beginnings of argparse's messages about an option without its value and a switch with one."""


class UsageError(ValueError):
    """The command line cannot be understood; the text says what was expected."""


@dataclass
class Options:
    """A command line, taken apart."""

    word: str = ""
    rest: list[str] = field(default_factory=list)
    """Everything behind the word that is not a shared option, in its order."""
    json: bool = False
    help: bool = False
    version: bool = False
    config: Path = Path("config.toml")
    socket: Path | None = None
    """Control socket; None: that of the configuration."""
    timeout: float | None = None
    """Seconds to wait for an answer; None: as the command needs."""
    _settings: Settings | None = None
    """Loaded once."""

    @property
    def socket_path(self) -> Path:
        """The hub's socket. Raises: SystemExit(78) with one line if config.toml is wrong."""
        if self.socket is None:
            self.socket = self.settings().socket_path
        return self.socket

    def settings(self) -> Settings:
        """Loads config.toml. Raises: SystemExit(78) with one line if it is wrong."""
        from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError

        try:
            self._settings = self._settings or Settings.load(self.config)
        except SettingsError as problem:
            print(f"shmcam: {problem}", file=sys.stderr)
            raise SystemExit(EXIT_CONFIG) from None
        return self._settings

    def switches(self, *, with_bare_words: bool = False) -> list[str]:
        """Returns what stands behind a word that has switches only. Raises: UsageError for one that it has not."""
        word = find_word(self.word)
        known = {name for option in word.options for name in option.names} if word else set()
        for one in self.rest:
            if word and one not in known and (one.startswith("-") or not with_bare_words):
                raise UsageError(
                    f"{self.word}: {one!r} is too much; usage: {word.usage}; it has: {', '.join(sorted(known))}"
                )
        return self.rest


class WordParser(argparse.ArgumentParser):
    """The parser of one word, or of the whole line ("" for the word): shared options, and its help."""

    def __init__(self, word: str = "") -> None:
        super().__init__(prog=f"shmcam {word}".rstrip(), add_help=False, allow_abbrev=False, exit_on_error=False)
        self.word = word
        self.add_argument("--config", type=_path, metavar="FILE", help="config.toml to use")
        self.add_argument("--socket", type=_path, metavar="PATH", help="control socket")
        self.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="seconds to wait for an answer")
        self.add_argument("--json", action="store_true", help="answer as JSON")
        self.add_argument("--version", action="store_true", help="print the version")
        self.add_argument("-h", "--help", action="store_true", help="explain a word")

    def format_help(self) -> str:
        """Returns the text of `--help`."""
        return f"{help_of(self.word)}\n"

    def take(self, words: Sequence[str], options: Options) -> list[str]:
        """Sets the shared options; returns all other words in their order. Raises: UsageError."""
        try:
            return self.parse_known_args(words, options)[1]
        except argparse.ArgumentError as problem:
            raise UsageError(_message_of(problem)) from None


def read(words: Sequence[str]) -> Options:
    """Takes a command line apart; shared options may stand before or behind the word. Raises: UsageError."""
    options = Options(config=default_config())
    line = WordParser()
    line.add_argument("word", nargs="?", default="")
    line.add_argument("rest", nargs=argparse.REMAINDER)
    unknown = line.take(words, options)
    if unknown or options.word.startswith("-"):  # argparse takes "-" and "-5" for words
        raise UsageError(f"unknown option {[*unknown, options.word][0]}; see: shmcam --help")
    word = find_word(options.word)
    if not (word and word.parser):
        options.rest = WordParser(options.word).take(options.rest, options)
    return options


def default_config() -> Path:
    """Returns SHMCAM_CONFIG, ./config.toml, /etc/shmcam/config.toml if there is one, else the file that is shipped."""
    if path := os.environ.get("SHMCAM_CONFIG"):
        return Path(path)
    from shmcam.runtime.supervisord_programs import SHIPPED

    places = [Path("config.toml"), Path("/etc/shmcam/config.toml"), SHIPPED]
    return next((place.absolute() for place in places if place.exists()), places[0])


def whole_number(text: str) -> int:
    """Reads the value of an option. Raises: ArgumentTypeError in words for people."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def _message_of(problem: argparse.ArgumentError) -> str:
    if problem.message.startswith(VALUE_MISSING):
        return f"{problem.argument_name} needs a value"
    if problem.message.startswith(VALUE_TOO_MUCH):
        return f"{problem.argument_name} takes no value"
    return problem.message


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError(VALUE_MISSING)
    return Path(text)


def _seconds(text: str) -> float:
    if not text:
        raise argparse.ArgumentTypeError(VALUE_MISSING)
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"--timeout {text}: expected seconds") from None
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"--timeout {text}: expected seconds above 0")
    return seconds
