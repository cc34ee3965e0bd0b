"""The configuration in use, as JSON and as TOML with each key's meaning beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit

from service.schema import Key, all_keys

if TYPE_CHECKING:
    from control.configuration import Configuration


def as_json(configuration: Configuration) -> dict[str, Any]:
    """Return {table: {key: value}}, nested as in the file, secrets masked."""
    settings = configuration.current
    found: dict[str, Any] = {}
    for key in settings.schema():
        *tables, name = key.path.split(".")
        here = found
        for table in tables:
            here = here.setdefault(table, {})
        here[name] = _plain(configuration.shown(key, settings.value(key.path)))
    if own := _cameras(configuration):
        found["cameras"] = own
    return found


def as_toml(configuration: Configuration) -> str:
    """Return a config.toml that says what is in use; keys without a value are left out."""
    settings = configuration.current
    document = tomlkit.document()
    for key in settings.schema():
        value = _plain(configuration.shown(key, settings.value(key.path)))
        if value is None:
            continue
        *tables, name = key.path.split(".")
        here: Any = document
        for table in tables:
            here = here.setdefault(table, tomlkit.table())
        item = tomlkit.item(value)
        item.comment(_note(key, changed=key.path in configuration.unsaved))
        here[name] = item
    text = tomlkit.dumps(document)
    own = _cameras(configuration)
    return text + ("\n" + tomlkit.dumps({"cameras": own}) if own else "")


def _cameras(configuration: Configuration) -> dict[str, Any]:
    """Return what [cameras.…] overrides, secrets (a camera's URL holds its password) masked."""
    return {
        name: _masked(configuration, f"cameras.{name}", own)
        for name, own in configuration.current.document.get("cameras", {}).items()
    }


def _masked(configuration: Configuration, path: str, value: Any) -> Any:
    plain = path.split(".", 2)[-1]
    if isinstance(value, dict) and not all_keys().keys() & {plain, f"camera.{plain}"}:
        return {name: _masked(configuration, f"{path}.{name}", inner) for name, inner in value.items()}
    return _plain(configuration.shown(configuration.current.key(path), value))


def _note(key: Key, *, changed: bool) -> str:
    unit = f" [{key.unit}]" if key.unit else ""
    return f"{key.help}{unit}; {key.apply}{'; CHANGED, not saved' if changed else ''}"


def _plain(value: Any) -> Any:
    """Turn tuples into lists, as TOML and JSON want them."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return {str(k): _plain(v) for k, v in value.items()} if isinstance(value, dict) else value
