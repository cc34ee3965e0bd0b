"""Reads config.toml into plain tables, puts the overrides of one start on top, and finds the line of a key.

This module knows no key. It looks for lines itself, as tomllib does not tell them; error messages name them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 1_000_000
"""A config written by hand has a few KB. The limit bounds what a wrong path (a video, a device) can cost."""

OVERRIDES = "SHMCAM_SET"
"""The variable with the assignments of `shmcam run --set`, one a line."""

Document = dict[str, Any]


class SettingsError(ValueError):
    """The configuration cannot be used; a person must act. The message names the place."""


def read(file: Path) -> str:
    """Returns the text of the file. Raises: SettingsError."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"{file}: larger than {MAX_FILE_BYTES} bytes; is this a config file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SettingsError(f"{file.name}:{line}: not UTF-8 text (byte 0x{raw[error.start]:02x})") from None


def parse(file: Path, text: str) -> Document:
    """Returns the tables of the text. Raises: SettingsError with the line."""
    try:
        return tomllib.loads(text)
    except RecursionError:  # tomllib does not catch it for deeply nested arrays
        raise SettingsError(f"{file.name}: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or int() refusing 5000 digits
        raise SettingsError(f"{file.name}: {error}") from None


def read_environ(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the overrides in the environment, each with its source: SHMCAM_CAMERA__WIDTH=640 is camera.width=640.

    Names without the double underscore are not settings. SHMCAM_SET holds the assignments of `shmcam run --set` as
    they were written, because names of cameras may have capitals, which names of variables lose.
    """
    overrides = []
    for name, value in sorted(environ.items()):
        if name.startswith("SHMCAM_") and "__" in name:
            overrides.append((name, f"{name.removeprefix('SHMCAM_').lower().replace('__', '.')}={value}"))
    return [*overrides, *(("--set", line) for line in environ.get(OVERRIDES, "").splitlines() if line)]


def assign(document: Document, source: str, assignment: str) -> None:
    """Carries out one `TABLE.KEY=VALUE` from `source`. Raises: SettingsError."""
    path, equals, raw = assignment.partition("=")
    if not equals or "." not in path:
        raise SettingsError(f"{source} {assignment!r}: must be TABLE.KEY=VALUE, for example camera.width=640")
    put(document, path.strip().split("."), parse_value(raw.strip()))


def parse_value(raw: str) -> Any:
    """Returns the value of a text typed after `set KEY`: as TOML if it is valid TOML, else the text itself."""
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        return raw


_BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_quote = json.JSONEncoder(ensure_ascii=False).encode
"""JSON's escapes are TOML's, but for DEL, which JSON leaves as it is."""


def to_toml(value: object) -> str:
    """Returns a value as it is written in config.toml; `unset` for an optional key without a value."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quote(value).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, Mapping):
        rows = ((name if _BARE_NAME.fullmatch(name) else to_toml(name), inner) for name, inner in value.items())
        return "{" + ", ".join(f"{name} = {to_toml(inner)}" for name, inner in rows) + "}"
    return str(value)


def put(document: Document, parts: list[str], value: Any) -> None:
    """Sets a dotted key and makes the tables on the way; None removes the key, as TOML has no null.

    Raises: SettingsError where a key stands in the place of a table.
    """
    table = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{'.'.join(parts)}: {part} is not a table")
    if value is None:
        table.pop(parts[-1], None)
    else:
        table[parts[-1]] = value


def copy_tables(value: Any) -> Any:
    """Copies tables within tables; other values are shared."""
    return {key: copy_tables(inner) for key, inner in value.items()} if isinstance(value, dict) else value


_HEADER = re.compile(r"^\s*\[([^\[\]]+)\]\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+?)\s*=")


def line_of(text: str, place: Sequence[str]) -> int | None:
    """Returns the line (from 1) of `place`, a table or key as its dotted parts; None if the text does not have it."""
    wanted = list(place)
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _split_key(header[1])
            if table == wanted:
                return number
        elif (key := _KEY.match(line)) and [*table, *_split_key(key[1])] == wanted:
            return number
    return None


def _split_key(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]
