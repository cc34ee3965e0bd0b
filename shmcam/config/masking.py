"""Masks the secrets of a configuration before it is shown or copied."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from shmcam.config.schema import Key, base_key_of, keys_of, list_keys

PARTS = re.compile(r"[/?&=@\s]+|:(?=\D)")
"""Where a URL or a header is cut."""

PART = 10
"""The shortest part of a secret in a row that is hidden by itself; shorter ones are words of every log."""

MASK = "***"
"""Shown instead of a secret."""


def mask_secret(key: Key, value: Any) -> Any:
    """Returns a value as it may be shown: secrets masked, also those in the named rows of a table."""
    if key.row is not None and isinstance(value, Mapping):
        return {name: _mask_row(key.row, row) for name, row in value.items()}
    return MASK if key.secret and value else value


def _mask_row(kind: type[msgspec.Struct], row: Any) -> Any:
    """Returns a row of config.toml, or its struct, with its secrets masked."""
    values = msgspec.to_builtins(row) if isinstance(row, msgspec.Struct) else row
    if not isinstance(values, Mapping):
        return MASK
    keys = {key.path.removeprefix("."): key for key in keys_of("", kind)}
    return {name: mask_secret(keys[name], value) if name in keys else value for name, value in values.items()}


def find_secrets(key: Key, value: Any) -> Iterator[str]:
    """Yields the secrets in a value of a key, and the longer parts of a row's: a library may quote a part of a URL."""
    if key.row is not None and isinstance(value, Mapping):
        for row in value.values():
            for own in keys_of("", key.row):
                for secret in find_secrets(own, getattr(row, own.path.removeprefix("."))):
                    yield from (part for part in (secret, *PARTS.split(secret)) if len(part) >= PART or part == secret)
    elif key.secret and value:
        values = value.values() if isinstance(value, Mapping) else [value] if isinstance(value, str) else value
        yield from map(str, values)


def mask_secrets(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a document of config.toml with every secret masked, those of [cameras.<name>] too.

    `prefix`: the dotted path of the table, with a dot behind it. Unknown keys stay as they are.
    """
    masked: dict[str, Any] = {}
    for name, value in table.items():
        key = list_keys().get(base_key_of(f"{prefix}{name}"))
        if key is not None:
            masked[name] = mask_secret(key, value)
        else:
            masked[name] = mask_secrets(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
    return masked
