"""`shmcam completion bash|zsh|fish`: scripts that shtab generates from the parser of the whole command line.

Two things that shtab cannot do have their lines of shell here: a field such as `label=` is completed without a space
behind it (bash, zsh), and a zsh script also works when a shell sources it.
"""

from __future__ import annotations

import argparse
import importlib
from functools import cache
from typing import Any

import shtab

from shmcam.cli.local_commands import SUPERVISOR, find_word, summaries
from shmcam.cli.options import Options, UsageError, WordParser, default_config
from shmcam.config.settings import PROGRAMS
from shmcam.control.command_table import COMMANDS, CommandRow
from shmcam.control.messages import EVENTS, TOPIC_GROUPS, choices, fields_of

SHELLS = ("bash", "zsh", "fish")
FORMATS = ("jpg", "png", "npy", "tiff")

BASH_END = """
_shmcam() {
  _shtab_shmcam "$@"
  [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
  return 0
}
complete -o bashdefault -F _shmcam shmcam
"""
"""Runs after shtab's function: what shtab calls itself runs in a subshell, where compopt has no effect."""

ZSH_PREAMBLE = """_shmcam_offer() {
  compadd -- ${argv:#*=}
  compadd -S '' -- ${(M)argv:#*=}
}
if [[ $zsh_eval_context[-1] == file ]]; then
  compdef _shtab_shmcam -N shmcam
  return 0
fi"""
"""`source script`: shtab's own script registers itself for `eval` and for autoload only."""


def main(options: Options) -> int:
    """Prints the script of one shell."""
    if len(options.rest) != 1 or options.rest[0] not in SHELLS:
        raise UsageError("completion: expected bash, zsh or fish")
    print(write_script(options.rest[0]), end="")
    return 0


def write_script(shell: str) -> str:
    """Returns the completion script of bash, zsh or fish."""
    script = str(shtab.complete(build_parser(shell), shell, preamble=ZSH_PREAMBLE if shell == "zsh" else ""))
    return script + (BASH_END if shell == "bash" else "\n")


def build_parser(shell: str) -> argparse.ArgumentParser:
    """Builds the parser of the whole command line: every word with its options and with what may follow it."""
    line = WordParser()
    _complete_files(line)
    words = line.add_subparsers(metavar="WORD", parser_class=argparse.ArgumentParser)
    followers = find_followers()
    for word, text in summaries().items():
        parser = words.add_parser(word, help=text, parents=[_build_word(word)], add_help=False)
        _complete_files(parser)
        if offered := followers.get(word):
            title = " " if shell == "fish" else "words"  # fish shows it beside each of them
            rest: Any = parser.add_argument("words", nargs=argparse.REMAINDER, choices=offered, metavar=title)
            if shell == "zsh":
                rest.complete = {"zsh": f" _shmcam_offer {' '.join(offered)}"}
    return line


def find_followers() -> dict[str, tuple[str, ...]]:
    """Returns the words that may follow each word, beside its options."""
    followers = {row.words[0]: _find_fields(row) for row in COMMANDS}
    followers |= dict.fromkeys((*SUPERVISOR, "logs"), PROGRAMS)
    followers |= dict.fromkeys(("subscribe", "unsubscribe"), (*TOPIC_GROUPS, *sorted(EVENTS)))
    followers |= dict.fromkeys(("set", "get"), _find_keys())
    return followers | {"completion": SHELLS, "help": tuple(summaries()), "shortstream": (), "library": ()}


def _build_word(word: str) -> argparse.ArgumentParser:
    """Builds the parser of one word: its program's own, or the shared options and those of the word."""
    local = find_word(word)
    if local and local.parser:
        module, function = local.parser.split(":")
        own: argparse.ArgumentParser = getattr(importlib.import_module(module), function)()
        return own
    parser = WordParser(word)
    for option in local.options if local else ():
        if option.value:
            parser.add_argument(*option.names, metavar=option.value, help=option.help)
        else:
            parser.add_argument(*option.names, action="store_true", help=option.help)
    return parser


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Makes the shells offer files and folders as values of the options that take them."""
    action: Any
    for action in parser._get_optional_actions():
        if action.metavar in {"FILE", "PATH"}:
            action.complete = shtab.FILE
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY


def _find_fields(row: CommandRow) -> tuple[str, ...]:
    """Returns the fixed words and the `field=` of a command."""
    offered: list[str] = []
    for field in fields_of(row.message).values():
        if field.name in row.positional:
            offered += choices(field).split("|") if choices(field) else []
            offered += find_cameras() if field.name in {"camera", "cameras"} else []
            offered += FORMATS if field.name == "formats" else []
        else:
            offered.append(f"{field.name}=")
    return tuple(offered)


@cache
def find_cameras() -> tuple[str, ...]:
    """Returns the cameras of the configuration in use; the script is made anew when cameras come."""
    from shmcam.config.settings import Settings, SettingsError

    try:
        return Settings.load(default_config()).cameras
    except SettingsError:
        return ("cam0",)


def _find_keys() -> tuple[str, ...]:
    """Returns every key of config.toml."""
    from shmcam.config.schema import keys_of, load_tables

    return tuple(key.path for name, section in load_tables().items() for key in keys_of(name, section))
