"""Changed keys in a configuration's tables, plain ones or tomlkit's with their comments."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from service.settings import Settings, SettingsError


def with_changes(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return a copy with all changes, checked once at the end: single steps may contradict each other."""
    document = copy.deepcopy(settings.document)
    for path, value in changes.items():
        settings.key(path)
        put(document, path.split("."), value)
    changed = Settings(settings.path, document)
    changed.check()
    return changed


def put(document: Any, parts: list[str], value: Any) -> None:
    """Set one key, making the tables on the way; None takes it out. *Raises* SettingsError."""
    for part in parts[:-1]:
        if part not in document:
            document[part] = tomlkit.table() if isinstance(document, tomlkit.items.Table | tomlkit.TOMLDocument) else {}
        document = document[part]
        if not isinstance(document, dict):
            raise SettingsError(f"{'.'.join(parts)}: {part} is not a table")
    if value is None:  # TOML has no null: an optional key without a value is one that is not there
        document.pop(parts[-1], None)
        return
    document[parts[-1]] = value


def commented(path: Path) -> tomlkit.TOMLDocument:
    """Return what stands in the file, with its comments. *Raises* SettingsError, OSError."""
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except (TOMLKitError, ValueError, RecursionError) as problem:
        raise SettingsError(f"{path}: was edited and is not TOML any more: {problem}") from problem


def has(document: dict[str, Any], camera: str, path: str) -> bool:
    """Tell whether [cameras.<camera>…] sets a key itself."""
    here: Any = document.get("cameras", {}).get(camera, {})
    parts = path.split(".")
    for part in parts[1:] if parts[0] == "camera" else parts:
        if not isinstance(here, dict) or part not in here:
            return False
        here = here[part]
    return True
