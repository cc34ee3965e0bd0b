"""The options that every word of `shmcam` shares, and exit codes. Light to import: it runs before anything is known."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmcam.config.settings import Settings


EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
"""sysexits.h EX_UNAVAILABLE: no hub, no supervisord."""
EXIT_TIMEOUT = 75

VALUED = {"--config": "config", "--socket": "socket", "--timeout": "timeout"}
OWN = frozenset({"run", "library", "gen-cert"})
"""Words that read their options themselves."""


class UsageError(ValueError):
    """The command line cannot be understood; the text says what was expected."""


@dataclass
class Options:
    """One command line, taken apart."""

    word: str = ""
    rest: list[str] = field(default_factory=list)
    """Everything behind the word that is not one of ours."""
    json: bool = False
    help: bool = False
    config: Path = Path("config.toml")
    socket: Path | None = None
    """Control socket; None: that of the configuration."""
    timeout: float | None = None
    """Seconds to wait for an answer; None: as the command needs."""
    _settings: Settings | None = None
    """Loaded once."""

    @property
    def socket_path(self) -> Path:
        """Where the hub is. *Raises* SystemExit(78) with one line if config.toml is wrong."""
        if self.socket is None:
            self.socket = self.settings().socket_path
        return self.socket

    def settings(self) -> Settings:
        """Load config.toml. *Raises* SystemExit(78) with one line if it is wrong."""
        from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError

        try:
            self._settings = self._settings or Settings.load(self.config)
        except SettingsError as problem:
            print(f"shmcam: {problem}", file=sys.stderr)
            raise SystemExit(EXIT_CONFIG) from None
        return self._settings


def read(words: list[str]) -> Options:
    """Take a command line apart; our options may stand before or behind the word. *Raises* UsageError."""
    options = Options(config=default_config())
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if options.word in OWN:
            options.rest.append(word)
        elif word in {"-h", "--help"}:
            options.help = True
        elif word == "--json":
            options.json = True
        elif name in VALUED:
            given = value if equals else next(rest, "")
            if not given:
                raise UsageError(f"{name} needs a value")
            _take(options, name, given)
        elif not options.word and word.startswith("-"):
            raise UsageError(f"unknown option {word}; see: shmcam --help")
        elif not options.word:
            options.word = word
        else:
            options.rest.append(word)
    return options


def default_config() -> Path:
    """SHMCAM_CONFIG, ./config.toml, /etc/shmcam/config.toml if there is one, else the file that is shipped."""
    if given := os.environ.get("SHMCAM_CONFIG"):
        return Path(given)
    from shmcam.runtime.programs import SHIPPED

    places = [Path("config.toml"), Path("/etc/shmcam/config.toml"), SHIPPED]
    return next((place.absolute() for place in places if place.exists()), places[0])


def _take(options: Options, name: str, given: str) -> None:
    if name == "--timeout":
        try:
            options.timeout = float(given)
        except ValueError:
            raise UsageError(f"--timeout {given}: expected seconds") from None
        if not 0 < options.timeout < 1e6:
            raise UsageError(f"--timeout {given}: expected seconds above 0")
    else:
        setattr(options, VALUED[name], Path(given))
