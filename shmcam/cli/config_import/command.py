"""`shmcam import FILE`: writes a config.toml from the config.json or config.txt of a former program.

It prints, and keeps as comments in the new file, what became of each key.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shmcam.cli.config_import.conversion import Outcome, convert, document_of
from shmcam.cli.config_import.former_files import read_former
from shmcam.cli.options import EXIT_FAILED, Options
from shmcam.config.schema import list_keys
from shmcam.config.settings import Settings, SettingsError
from shmcam.config.toml_file import Document, parse, parse_value, read, to_toml
from shmcam.hub.config_file import write_back
from shmcam.runtime.atomic_files import open_atomic

KEY_CELLS = 36
"""The columns of the longest usual `key = value` of a former file."""
PLACES = ("paths.run", "paths.logs", "paths.recordings", "paths.archives", "paths.library", "export.base_dir")


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of what stands behind `shmcam import`; `shmcam.cli.local_commands` has its help."""
    parser = argparse.ArgumentParser(prog="shmcam import", add_help=False)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--output", type=Path, default=Path("config.toml"), metavar="FILE")
    parser.add_argument("--force", action="store_true")
    return parser


def main(options: Options) -> int:
    """Imports one file."""
    return import_file(options.rest)


def import_file(argv: Sequence[str]) -> int:
    """Imports one file. Returns: the exit code; where it is not 0, nothing was written."""
    arguments = build_parser().parse_args(argv)
    source, target = arguments.file, arguments.output.absolute()
    try:
        pairs, as_text = read_former(source)
        if not pairs:
            raise SettingsError(f"{source.name}: there is no key in it")
        outcomes = convert(pairs, as_text=as_text)
        if problems := [_describe_problem(source, outcome, as_text=as_text) for outcome in outcomes if outcome.problem]:
            raise SettingsError("\n".join(problems))
        if target.exists() and not arguments.force:
            raise SettingsError(f"{target} exists; --force replaces it, --output writes another file")
        kept = list_kept_places(document_of(outcomes), _read_replaced(target)) if target.is_file() else []
        document = document_of([*outcomes, *kept])
        text = render_config(source, [*outcomes, *kept], document)
        Settings(source, document).check()  # without lines: those of the new file say nothing to whoever wrote the old
        if target.is_file():
            write_back(target, text)
        else:
            with open_atomic(target, replace=arguments.force) as file:
                file.write(text.encode())
    except SettingsError as problem:
        print(f"shmcam import: {problem}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as problem:
        print(f"shmcam import: {target}: {problem.strerror}; nothing was written", file=sys.stderr)
        return EXIT_FAILED
    print("\n".join(describe_outcome(outcome) for outcome in [*outcomes, *kept]))
    left = sum(not outcome.became for outcome in outcomes)
    print(f"wrote {target}: {len(outcomes) - left} keys taken over, {left} not; next: shmcam run --config {target}")
    return 0


def _read_replaced(target: Path) -> Document:
    """Returns the tables of the file that is replaced; none of one that nobody can read."""
    with suppress(SettingsError):
        return parse(target, read(target))
    return {}


def list_kept_places(document: Document, replaced: Document) -> list[Outcome]:
    """Returns the absolute folders of a file that is replaced, where the new one has none: an installed service's."""
    old, new = _list_places(replaced), _list_places(document)
    return [
        Outcome(path, place, {path: place}, "kept from the file that is replaced")
        for path, place in old.items()
        if path not in new
    ]


def _list_places(document: Document) -> dict[str, str]:
    """Returns the absolute folders in a file, by key."""
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    found = {path: tables.get(path.split(".")[0], {}).get(path.split(".")[1]) for path in PLACES}
    return {path: place for path, place in found.items() if isinstance(place, str) and Path(place).is_absolute()}


def render_config(source: Path, outcomes: list[Outcome], document: Document) -> str:
    """Returns the text of the new config.toml: each key with its meaning, and the table of outcomes."""
    head = [
        f"# Imported from {source.name} by `shmcam import`. All keys, with units and ranges: docs/config.md.",
        "# What became of each key:",
        *(f"#   {describe_outcome(outcome)}" for outcome in outcomes),
    ]
    return "\n".join(head) + "\n" + "".join(_render_table(name, values) for name, values in document.items())


def describe_outcome(outcome: Outcome) -> str:
    """Returns one line: the former key, what it became, and what differs."""
    former = f"{outcome.key} = {_show(outcome.value)}"
    became = ", ".join(f"{path} = {to_toml(value)}" for path, value in outcome.became.items())
    words = [f"{former:<{KEY_CELLS}} ->", became or "nothing", f"({outcome.note})" if outcome.note else ""]
    return " ".join(word for word in words if word)


def _describe_problem(source: Path, outcome: Outcome, *, as_text: bool) -> str:
    shown = _show(outcome.value)
    if not as_text and isinstance(outcome.value, str) and not isinstance(parse_value(shown), str):
        shown = f'"{shown}"'  # 768 is right where it is no text
    return f"{source.name}: {outcome.key} = {shown}: {outcome.problem}"


def _show(value: object) -> str:
    """Returns a former value on one line, without what a terminal or TOML comment could take for more."""
    text = value if isinstance(value, str) else to_toml(value)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)[:80]


def _render_table(name: str, values: Document) -> str:
    keys = {key: value for key, value in values.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"\n[{name}]\n"] if keys else []
    for key, value in keys.items():
        declared = list_keys()[f"{name}.{key}"]
        unit = f" [{declared.unit}]" if declared.unit else ""
        lines.append(f"{f'{key} = {to_toml(value)}':<32} # {declared.help}{unit}\n")
    if name == "network" and "trigger_port" in keys:
        lines.append("# trusted = true                 # let the whole network in without a token, as before\n")
    return "".join(lines) + "".join(_render_table(f"{name}.{inner}", table) for inner, table in tables.items())
