"""The texts of `help` and `help WORD`, made from the table of commands."""

from __future__ import annotations

from functools import cache

import msgspec
from msgspec.structs import FieldInfo

from shmcam.control.command_table import GROUPS, CommandRow, find, suggestion
from shmcam.control.messages import Reply, choices, error, fields_of

SOCAT = "socat -t10 - UNIX-CONNECT:run/control.sock"
"""-t10: by default socat waits only 0.5 s for an answer."""


def explain(word: str) -> Reply:
    """Lists all commands, or explains one."""
    if not word:
        lines = [line for name, rows in GROUPS.items() for line in (f"{name}:", *map(_summary_of, rows))]
        names = [row.words[0] for rows in GROUPS.values() for row in rows]
        return Reply(text="\n".join([*lines, "help COMMAND explains one"]), data={"commands": names})
    match = find(word)
    if match is None:
        near = suggestion(word)
        return error(f"no command {word[:40]!r}" + (f"; did you mean {near}?" if near else ""), "unknown_command")
    row, _ = match
    return Reply(text="\n".join(explain_row(row)), data={"usage": row.usage, "help": row.help})


@cache
def _summary_of(row: CommandRow) -> str:
    return f"  {row.usage:<44} {row.help}"


@cache
def explain_row(row: CommandRow) -> list[str]:
    """Returns the explanation of one command: usage, purpose, each field with its meaning, an example."""
    lines = [f"{row.usage} {row.options}".rstrip(), row.help]
    if len(row.words) > 1:
        lines.append(f"also written: {', '.join(row.words[1:])}")
    lines += [f"  {name:<12} {text}" for name, text in describe_fields(row)]
    return [*lines, f"example: echo {row.example} | {SOCAT}", f"answered by: {row.owner}"]


def describe_fields(row: CommandRow) -> list[tuple[str, str]]:
    """Returns each field's name and its meaning with unit, choices and default."""
    return [(name, _meaning_of(field)) for name, field in fields_of(row.message).items()]


def _meaning_of(field: FieldInfo) -> str:
    meta = next((m for m in getattr(field.type, "__metadata__", ()) if isinstance(m, msgspec.Meta)), None)
    description = (meta.description or "") if meta else ""
    unit = str((meta.extra or {}).get("unit", "")) if meta else ""
    parts = [description + (f" [{unit}]" if unit else ""), choices(field)]
    if field.default not in (msgspec.NODEFAULT, "", ()):
        parts.append(f"default {field.default}")
    return "; ".join(part for part in parts if part)
