"""Turns what people type (a line of words) and what programs write (a JSON object) into messages. No I/O, no state."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Collection
from typing import Any

from shmcam.control import command_table
from shmcam.control.command_table import CommandRow, is_many
from shmcam.control.messages import MESSAGES, Command, Message, Set, build


class UnknownCommandError(ValueError):
    """No such command; the text is the whole reply."""


def from_line(line: str, cameras: Collection[str] = (), *, suggest: bool = True) -> Command:
    """Read one line of the text dialect: `record start cam1 duration_s=60`, `archive trial --since 2h`.

    `cameras` are names to take as cameras beside those that look like cam0.

    *Raises* UnknownCommandError, or ValueError saying what was expected.
    """
    word, _, rest = line.strip().partition(" ")
    row, preset = _found(word, suggest=suggest)
    try:
        words = shlex.split(rest)
    except ValueError as problem:
        raise ValueError(f"{word}: {problem}".lower()) from problem
    if row.message is Set:
        return build(Set, _settings(words))
    return build(row.message, preset | _fields(row, words, cameras), text=True)


def from_object(given: dict[str, Any]) -> tuple[Message, Any]:
    """Read one object of the JSON dialect; return the message and its id (None: none given).

    {"command": word, fields …} is what master programs write; {"message": wire name, fields …} is what processes write.
    *Raises* UnknownCommandError, or ValueError saying what was expected.
    """
    if "message" in given:
        return from_wire(given)
    word = given.get("command")
    if not isinstance(word, str):
        raise ValueError('expected an object such as {"command": "start_recording"}')
    row, preset = _found(word)
    fields = {name: value for name, value in given.items() if name not in {"command", "id", "params", "camera_id"}}
    if isinstance(given.get("params"), dict):
        fields |= given["params"]
    if "camera_id" in given or "camera_id" in fields:
        fields["camera"] = _camera_name(fields.pop("camera_id", given.get("camera_id")))
    if row.message is Set and "key" in fields:
        fields = {"changes": {str(fields.pop("key")): fields.pop("value", None)}, **fields}
    return build(row.message, preset | fields), given.get("id")


def from_wire(given: dict[str, Any]) -> tuple[Message, Any]:
    """Read one map as processes send it. *Raises* ValueError saying what was expected."""
    name = given.get("message")
    kind = MESSAGES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UnknownCommandError(f"UNKNOWN_COMMAND {printable(str(name))}")
    fields = {key: value for key, value in given.items() if key not in {"message", "id", "again"}}
    return build(kind, fields), given.get("id")


def printable(word: str) -> str:
    """Return at most 40 characters of a stranger's word, control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in word[:40])


def _found(word: str, *, suggest: bool = True) -> tuple[CommandRow, dict[str, Any]]:
    if found := command_table.find(word):
        return found
    near = command_table.suggestion(word) if suggest else ""
    hint = f"did you mean {near}?" if near else "`help` lists the commands"
    raise UnknownCommandError(f"UNKNOWN_COMMAND {printable(word)}; {hint}")


def _settings(words: list[str]) -> dict[str, Any]:
    """Read `KEY VALUE`, or any number of KEY=VALUE, with `--save` anywhere."""
    save = "--save" in words
    words = [word for word in words if word != "--save"]
    if len(words) >= 2 and "=" not in words[0]:
        return {"changes": {words[0]: " ".join(words[1:])}, "save": save}
    pairs = [word.partition("=") for word in words]
    if not pairs or not all(equals for _, equals, _ in pairs):
        raise ValueError("set: expected KEY VALUE, or KEY=VALUE …; `get` lists the keys")
    return {"changes": {key: value for key, _, value in pairs}, "save": save}


def _fields(row: CommandRow, words: list[str], cameras: Collection[str]) -> dict[str, Any]:
    """Give each word its field: name=value and --name value by name, the others by their place."""
    known = {f.name: f for f in dataclasses.fields(row.message)}
    found: dict[str, Any] = {}
    free: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        name = {"from": "since", "to": "until", "cam": "camera"}.get(name, name).replace("-", "_")
        if equals or word.startswith("--"):
            if name not in known:
                raise ValueError(f"{row.words[0]}: no option {printable(name)}; it has: {', '.join(known) or 'none'}")
            if not equals and "bool" not in str(known[name].type):
                value = next(rest, "")
            given = value if equals or value else "true"
            found[name] = given.split(",") if is_many(known[name]) else _switch(known[name], given)
        else:
            free.append(word)
    return found | _by_place(row, free, found, cameras)


def _by_place(row: CommandRow, free: list[str], taken: dict[str, Any], cameras: Collection[str]) -> dict[str, Any]:
    """Give bare words to row.takes in order; a camera's name may stand before, between or behind formats."""
    known = {f.name: f for f in dataclasses.fields(row.message)}
    found: dict[str, Any] = {}
    mixed = row.takes[-1:] == ("formats",)
    for name in (name for name in row.takes if name not in taken):
        kind = known[name]
        if mixed:
            fitting = [word for word in free if _is_camera(word, cameras) is not (name == "formats")]
            given = fitting if is_many(kind) else fitting[:1]
            if given:
                found[name] = given if is_many(kind) else given[0]
            free = [word for word in free if word not in given]
        elif is_many(kind):
            found[name], free = free, []
        elif free:
            found[name] = free.pop(0)
    if free:
        usage = f"{row.usage} {row.options}".strip()
        raise ValueError(f"{row.words[0]}: {printable(free[0])!r} is too much; usage: {usage}")
    return found


def _switch(kind: dataclasses.Field[Any], given: str) -> str:
    """Let people write on/off/yes/no where a bool is wanted."""
    if "bool" not in str(kind.type):
        return given
    return {"on": "true", "yes": "true", "off": "false", "no": "false"}.get(given.lower(), given.lower())


def _is_camera(word: str, cameras: Collection[str]) -> bool:
    """Tell a camera's name from a picture format."""
    return word in cameras or re.fullmatch(r"[a-z][a-z_-]*[0-9]+", word) is not None


def _camera_name(given: Any) -> Any:
    """Take camera_id 0 as cam0, as the user's recording module numbered its cameras."""
    return f"cam{given}" if isinstance(given, int) and not isinstance(given, bool) and given >= 0 else given
