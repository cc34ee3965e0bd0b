"""Says what is wrong with a configuration: where it stands, what it is, what it must be, what may have been meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from shmcam.config.schema import Section, base_key_of, list_keys, load_tables, table_name_of
from shmcam.config.toml_file import Document, SettingsError, line_of, to_toml

NEAR_ENOUGH = 0.8
"""Likeness (difflib's) of a key that is worth suggesting: keys of one table are all a little alike."""

VALUE_MAX = 80
"""Characters of a wrong value that are shown."""


@dataclass(frozen=True)
class Diagnostics:
    """Errors about one file; they name its lines."""

    path: Path
    text: str
    """What stands in it; empty where the configuration was changed since."""

    def from_msgspec(
        self, section: type[Section], merged: Document, places: Mapping[str, tuple[str, ...]], problem: str
    ) -> SettingsError:
        """Turn msgspec's words about a table into ours; `places` tells where each key of `merged` stands."""
        name = table_name_of(section)
        inside = problem.rpartition(" - at `$")[2].rstrip("`").lstrip(".") if "`$" in problem else ""
        parts = inside.split("[")[0].split(".") if inside else []
        if problem.startswith("Object contains unknown field"):
            unknown = problem.split("`")[1]
            parts = [part for part in parts if part]
            siblings = [path.split(".")[-1] for path in list_keys() if path.split(".")[:-1] == [name, *parts]]
            place = places.get(parts[0] if parts else unknown, (name, *parts, unknown))
            return self.unknown_key((*place, *parts[1:]) if parts else place[:-1], unknown, siblings)
        if not parts or not parts[0]:
            return SettingsError(f"{self.path.name}: [{name}] {problem}")
        value: Any = merged
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else value
        found = list_keys().get(".".join([name, *parts]))
        place = (*places.get(parts[0], (name, parts[0])), *parts[1:])
        return self.bad_value(place, value, found.expected if found else problem)

    def bad_value(self, place: tuple[str, ...], value: Any, expected: str) -> SettingsError:
        """A value that cannot be."""
        *table, key = place
        shown = repr(value) if isinstance(value, str) else to_toml(value)
        shown = shown if len(shown) <= VALUE_MAX else shown[: VALUE_MAX - 3] + "..."
        known = list_keys().get(base_key_of(".".join(place)))
        shown = "***" if known and known.secret else shown
        within = f"[{'.'.join(table)}] " if table else ""
        return SettingsError(f"{self._where(place)}: {within}{key} = {shown}: must be {expected}")

    def unknown_key(self, table: tuple[str, ...], key: str, known: Sequence[str]) -> SettingsError:
        """A key or table there is not; `known` are its sisters."""
        near = get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        what = f"[{'.'.join(table)}] unknown key {key!r}" if table else f"unknown table [{key}]"
        return SettingsError(f"{self._where((*table, key))}: {what}; {hint}")

    def _where(self, place: tuple[str, ...]) -> str:
        line = line_of(self.text, place)
        return f"{self.path.name}:{line}" if line else self.path.name


def suggest_key(path: str) -> str:
    """What may have been meant by a dotted key that there is not: a key, or the keys of its table."""
    known, (table, _, rest) = list_keys(), path.partition(".")
    near_tables = [table] if table in load_tables() else get_close_matches(table, load_tables(), 1)
    near = [key for key in known if key.endswith(f".{path}")]
    for one in (path, *(f"{name}.{rest}" for name in near_tables)):
        near += get_close_matches(one, known, 1, NEAR_ENOUGH)
    if near and path not in load_tables():
        return f"did you mean {near[0]}?"
    inside = [key for key in known if key.split(".")[0] in near_tables]
    return f"there are: {', '.join(inside)}" if inside else f"tables: {', '.join(load_tables())}"
