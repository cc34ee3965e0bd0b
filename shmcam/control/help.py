"""`help` and `help WORD`, made from the table of commands."""

from __future__ import annotations

import dataclasses
import typing

import msgspec

from shmcam.control.command_table import GROUPS, CommandRow, find, suggestion
from shmcam.control.messages import Reply, choices, error

SOCAT = "socat -t10 - UNIX-CONNECT:run/control.sock"
"""-t10: socat waits only 0.5 s for an answer unless told otherwise."""


def explain(word: str) -> Reply:
    """List all commands, or explain one."""
    if not word:
        lines = [line for name, rows in GROUPS.items() for line in (f"{name}:", *map(_line, rows))]
        names = [row.words[0] for rows in GROUPS.values() for row in rows]
        return Reply(text="\n".join([*lines, "help COMMAND explains one"]), data={"commands": names})
    found = find(word)
    if found is None:
        near = suggestion(word)
        return error(f"no command {word[:40]!r}" + (f"; did you mean {near}?" if near else ""), "unknown_command")
    return Reply(text="\n".join(details(found[0])), data={"usage": found[0].usage, "help": found[0].help})


def _line(row: CommandRow) -> str:
    return f"  {row.usage:<44} {row.help}"


def details(row: CommandRow) -> list[str]:
    """Explain one command: usage, what it does, each field with its meaning, an example."""
    lines = [f"{row.usage} {row.options}".rstrip(), row.help]
    if len(row.words) > 1:
        lines.append(f"also written: {', '.join(row.words[1:])}")
    lines += [f"  {name:<12} {text}" for name, text in fields(row)]
    return [*lines, f"example: echo {row.example} | {SOCAT}", f"answered by: {row.owner}"]


def fields(row: CommandRow) -> list[tuple[str, str]]:
    """Return each field's name and its meaning with unit, choices and default."""
    hints = typing.get_type_hints(row.message, include_extras=True)
    return [(f.name, _meaning(f, hints[f.name])) for f in dataclasses.fields(row.message)]


def _meaning(field: dataclasses.Field[object], hint: object) -> str:
    meta = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, msgspec.Meta)), None)
    said = (meta.description or "") if meta else ""
    unit = str((meta.extra or {}).get("unit", "")) if meta else ""
    parts = [said + (f" [{unit}]" if unit else ""), choices(field)]
    if field.default not in (dataclasses.MISSING, "", ()):
        parts.append(f"default {field.default}")
    return "; ".join(part for part in parts if part)
