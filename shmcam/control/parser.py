"""Parses what users type (a line of words) and what programs write (a JSON object) into messages. No I/O, no state."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from typing import Any

from msgspec.structs import FieldInfo

from shmcam.control import command_table
from shmcam.control.command_table import CommandRow, is_list
from shmcam.control.messages import MESSAGES, Command, Message, Set, Snapshot, build, choices, fields_of, type_of


class UnknownCommandError(ValueError):
    """A word that is no command; the text is the whole reply."""


def parse_line(line: str, cameras: Collection[str] = (), *, suggest: bool = True) -> Command:
    """Parses one line of the text dialect: `record start cam1 duration_s=60`, `archive trial --since 2h`.

    `cameras` are camera names beside those of the form cam0. `suggest`: an unknown command names the nearest one.

    Raises: UnknownCommandError, or ValueError with the expectation.
    """
    word, rest = (*line.split(maxsplit=1), "", "")[:2]
    row, preset = _find_row(word, suggest=suggest)
    try:
        words = shlex.split(rest) if rest else []
    except ValueError as problem:
        raise ValueError(f"{word}: {problem}".lower()) from problem
    if row.message is Set:
        return build(Set, _parse_settings(words))
    return build(row.message, preset | _parse_fields(row, words, cameras), text=True)


def parse_object(value: dict[str, Any]) -> tuple[Message, Any]:
    """Parses one object of the JSON dialect; returns the message and its id (None: no id).

    Master programs write {"command": word, fields …}; processes write {"message": wire name, fields …}.
    Raises: UnknownCommandError, or ValueError with the expectation.
    """
    if "message" in value:
        return parse_map(value)
    word = value.get("command")
    if not isinstance(word, str):
        raise ValueError('expected an object such as {"command": "start_recording"}')
    row, preset = _find_row(word)
    fields = {name: item for name, item in value.items() if name not in {"command", "id", "params", "camera_id"}}
    if isinstance(value.get("params"), dict):
        fields |= value["params"]
    if "camera_id" in value or "camera_id" in fields:
        fields["camera"] = camera_name_of(fields.pop("camera_id", value.get("camera_id")))
    if row.message is Snapshot and "camera" in fields:
        fields["cameras"] = [fields.pop("camera")]
    if row.message is Set and "key" in fields:
        fields = {"changes": {str(fields.pop("key")): fields.pop("value", None)}, **fields}
    return build(row.message, preset | fields), value.get("id")


def parse_map(value: dict[str, Any]) -> tuple[Message, Any]:
    """Parses one map of a process; returns the message and its id. Raises: ValueError with the expectation."""
    name = value.get("message")
    message = MESSAGES.get(name) if isinstance(name, str) else None
    if message is None:
        raise UnknownCommandError(f"UNKNOWN_COMMAND {escape(str(name))}")
    fields = {key: item for key, item in value.items() if key not in {"message", "id", "event_id"}}
    return build(message, fields), value.get("id")


def escape(word: str) -> str:
    """Returns at most 40 characters of an untrusted word, with control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in word[:40])


def _find_row(word: str, *, suggest: bool = True) -> tuple[CommandRow, dict[str, Any]]:
    if match := command_table.find(word):
        return match
    near = command_table.suggestion(word) if suggest else ""
    hint = f"did you mean {near}?" if near else "`help` lists the commands"
    raise UnknownCommandError(f"UNKNOWN_COMMAND {escape(word)}; {hint}")


def _parse_settings(words: list[str]) -> dict[str, Any]:
    """Parses `KEY VALUE`, or any number of KEY=VALUE, with `--save` anywhere."""
    save = "--save" in words
    words = [word for word in words if word != "--save"]
    if len(words) >= 2 and "=" not in words[0]:
        return {"changes": {words[0]: " ".join(words[1:])}, "save": save}
    pairs = [word.partition("=") for word in words]
    if not pairs or not all(equals for _, equals, _ in pairs):
        raise ValueError("set: expected KEY VALUE, or KEY=VALUE …; `get` lists the keys")
    return {"changes": {key: value for key, _, value in pairs}, "save": save}


def _parse_fields(row: CommandRow, words: list[str], cameras: Collection[str]) -> dict[str, Any]:
    """Assigns each word to its field: name=value and --name value by name, the others by position."""
    fields = fields_of(row.message)
    values: dict[str, Any] = {}
    bare: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        name = {"from": "since", "to": "until", "cam": "camera"}.get(name, name).replace("-", "_")
        if equals or word.startswith("--"):
            if name not in fields:
                raise ValueError(f"{row.words[0]}: no option {escape(name)}; it has: {', '.join(fields) or 'none'}")
            if not equals and type_of(fields[name]) is bool:
                value = "true"
            elif not equals:
                try:
                    value = next(rest)
                except StopIteration:
                    raise ValueError(f"{row.words[0]}: {escape(word)} needs a value") from None
            values[name] = value.split(",") if is_list(fields[name]) else _to_bool_word(fields[name], value)
        else:
            bare.append(word)
    values |= _parse_positional(row, bare, values, cameras)
    return {name: value.lower() if choices(fields[name]) else value for name, value in values.items()}


def _parse_positional(
    row: CommandRow, bare: list[str], named: dict[str, Any], cameras: Collection[str]
) -> dict[str, Any]:
    """Assigns bare words to row.positional in order; a camera's name may stand before, between or after formats."""
    fields = fields_of(row.message)
    values: dict[str, Any] = {}
    is_mixed = row.positional[-1:] == ("formats",)
    for name in (name for name in row.positional if name not in named):
        field = fields[name]
        if is_mixed:
            fitting = [word for word in bare if _is_camera(word, cameras) is not (name == "formats")]
            words = fitting if is_list(field) else fitting[:1]
            if words:
                values[name] = words if is_list(field) else words[0]
            bare = [word for word in bare if word not in words]
        elif is_list(field):
            values[name], bare = bare, []
        elif bare and not (choices(field) and name != row.positional[-1] and bare[0] in cameras):
            values[name] = bare.pop(0)  # a camera's name stands behind a choice, which may be left out
    if bare:
        usage = f"{row.usage} {row.options}".strip()
        raise ValueError(f"{row.words[0]}: {escape(bare[0])!r} is too much; usage: {usage}")
    return values


def _to_bool_word(field: FieldInfo, word: str) -> str:
    """Turns on, off, yes and no into true and false where the field is a bool."""
    if type_of(field) is not bool:
        return word
    return {"on": "true", "yes": "true", "off": "false", "no": "false"}.get(word.lower(), word.lower())


def _is_camera(word: str, cameras: Collection[str]) -> bool:
    """Returns whether a word is a camera's name, not a picture format."""
    return word in cameras or re.fullmatch(r"[a-z][a-z_-]*[0-9]+", word) is not None


def camera_name_of(camera_id: Any) -> Any:
    """Returns cam0 for camera_id 0, as the user's former programs numbered their cameras; a name as it is."""
    is_number = isinstance(camera_id, int) and not isinstance(camera_id, bool) and camera_id >= 0
    return f"cam{camera_id}" if is_number else camera_id
