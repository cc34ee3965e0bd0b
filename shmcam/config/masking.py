"""Masks the secrets of a configuration before it is shown or copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmcam.config.schema import Key, base_key_of, list_keys

MASK = "***"
"""Shown instead of a secret."""


def mask_secret(key: Key, value: Any) -> Any:
    """Returns a value as it may be shown: secrets masked."""
    return MASK if key.secret and value else value


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
