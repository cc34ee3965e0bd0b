"""Reads the two configuration files of the former programs as (key, value) pairs: config.json and config.txt.

Pairs come in the order of the file and may repeat a key: which one counts is decided by the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shmcam.config.toml_file import SettingsError, read

Pairs = list[tuple[str, Any]]

_REMARK = re.compile(r"\s+[#;].*$")
_QUOTES = "\"'"


def read_former(file: Path) -> tuple[Pairs, bool]:
    """Returns the pairs of the file, keys dotted, and whether its values are text. Raises: SettingsError."""
    text = read(file)
    if text.lstrip().startswith("{") or file.suffix == ".json":  # `[Recording]` may begin a config.txt
        return read_json(file, text), False
    return read_lines(file, text), True


def read_json(file: Path, text: str) -> Pairs:
    """Returns the pairs of a config.json. Raises: SettingsError with the line."""
    try:
        document = json.loads(text, object_pairs_hook=_JsonObject)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{file.name}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file.name}: not JSON: {error}") from None
    if not isinstance(document, _JsonObject):
        raise SettingsError(f'{file.name}: expected an object such as {{"camera": {{"width": 1024}}}}')
    return list(_flatten(document, ""))


def read_lines(file: Path, text: str) -> Pairs:
    """Returns the pairs of a config.txt, values as text. Raises: SettingsError with the line."""
    pairs: Pairs = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(("#", ";", "[")):
            continue
        key, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]+", key.strip()):
            raise SettingsError(f"{file.name}:{number}: {line[:60]!r}: expected `key = value`")
        pairs.append((key.strip(), _strip(value)))
    return pairs


def _strip(value: str) -> str:
    value = value.strip()
    if value[:1] in _QUOTES and value[:1]:
        inner, quote, _ = value[1:].partition(value[0])
        return inner if quote else value
    return "" if value.startswith(("#", ";")) else _REMARK.sub("", value)


class _JsonObject(list[tuple[str, Any]]):
    """The pairs of one JSON object, with repeated keys, which a dict would drop."""


def _flatten(pairs: _JsonObject, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in pairs:
        if isinstance(value, _JsonObject):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
