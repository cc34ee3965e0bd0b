"""Writes the errors of a configuration in words: the place, the value, the expectation, and the nearest known key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from shmcam.config.masking import MASK
from shmcam.config.schema import Section, find_key, list_keys, load_tables, table_name_of
from shmcam.config.toml_file import Document, SettingsError, line_of, to_toml

NEAR_ENOUGH = 0.8
"""The likeness (difflib's ratio) from which a key is suggested; keys of one table are all a little alike."""

NAME_MAX = 40
"""The characters of an unknown camera's name that are shown at most; a real one has 32."""

VALUE_MAX = 80
"""The characters of a wrong value that are shown at most."""


class Diagnostics(Struct, frozen=True):
    """Makes the errors about one file, which name its lines."""

    path: Path
    text: str
    """The text of the file; empty after a change of the configuration, when its lines no longer fit."""
    sources: Mapping[str, str]
    """Where values come from that are not the file's, by path."""

    def from_msgspec(
        self, section: type[Section], merged: Document, places: Mapping[str, tuple[str, ...]], problem: str
    ) -> SettingsError:
        """Makes an error of msgspec's message about a table; `places`: where each key of `merged` stands."""
        name = table_name_of(section)
        inside = problem.rpartition(" - at `$")[2].rstrip("`").lstrip(".") if "`$" in problem else ""
        parts = inside.split("[")[0].split(".") if inside else []
        table = list_keys().get(".".join([name, *parts]))
        if table is not None and table.row is not None and "[...]" in inside:
            return self._from_row(places.get(parts[0], (name, parts[0])), table.row, merged[parts[0]])
        if problem.startswith("Object contains unknown field"):
            unknown = problem.split("`")[1]
            parts = [part for part in parts if part]
            siblings = [path.split(".")[-1] for path in list_keys() if path.split(".")[:-1] == [name, *parts]]
            place = places.get(parts[0] if parts else unknown, (name, *parts, unknown))
            return self.unknown_key((*place, *parts[1:]) if parts else place[:-1], unknown, siblings)
        if not parts or not parts[0]:  # keys that contradict each other: the file is right if one is not from there
            at = [".".join(place) for key, place in places.items() if re.search(rf"\b{re.escape(key)}\b", problem)]
            sources = [
                source for path, source in self.sources.items() for one in at if f"{path}.".startswith(f"{one}.")
            ]
            return SettingsError(f"{', '.join(dict.fromkeys(sources)) or self.path.name}: [{name}] {problem}")
        value: Any = merged
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else value
        key = list_keys().get(".".join([name, *parts]))
        place = (*places.get(parts[0], (name, parts[0])), *parts[1:])
        return self.bad_value(place, value, key.expected if key else "a table")

    def _from_row(self, place: tuple[str, ...], row: type[msgspec.Struct], rows: Document) -> SettingsError:
        """Makes the error of the first named row of a table that is wrong."""
        for name, values in rows.items():
            try:
                msgspec.convert(values, row)
            except msgspec.ValidationError as problem:
                text, _, inside = str(problem).partition(" - at `$")
                if not isinstance(values, dict):
                    return self.bad_value((*place, name), values, "a table")
                if text.startswith("Object contains unknown field"):
                    known = [field.encode_name for field in msgspec.structs.fields(row)]
                    return self.unknown_key((*place, name), text.split("`")[1], known)
                field = inside.strip(".`").split("[")[0].split(".")[0]
                if not field:
                    return SettingsError(f"{self._locate((*place, name))}: [{'.'.join((*place, name))}] {text}")
                key = find_key(".".join((*place, name, field)))
                return self.bad_value((*place, name, field), values.get(field), key.expected if key else text)
        return SettingsError(f"{self._locate(place)}: [{'.'.join(place)}] is wrong")

    def bad_value(self, place: tuple[str, ...], value: Any, expected: str) -> SettingsError:
        """Makes the error of a value that is not allowed."""
        *table, name = place
        shown = repr(value) if isinstance(value, str) else to_toml(value)
        shown = shown if len(shown) <= VALUE_MAX else shown[: VALUE_MAX - 3] + "..."
        key = find_key(".".join(place)) or find_key(".".join(table))  # a row that is no table has no key
        shown = MASK if key and (key.secret or key.row is not None) else shown
        within = f"[{'.'.join(table)}] " if table else ""
        return SettingsError(f"{self._locate(place)}: {within}{name} = {shown}: must be {expected}")

    def unknown_key(self, table: tuple[str, ...], key: str, known: Sequence[str]) -> SettingsError:
        """Makes the error of a key or table that does not exist; `known`: those that exist at its place."""
        near = get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        what = f"[{'.'.join(table)}] unknown key {key!r}" if table else f"unknown table [{key}]"
        return SettingsError(f"{self._locate((*table, key))}: {what}; {hint}")

    def _locate(self, place: tuple[str, ...]) -> str:
        if source := self.sources.get(".".join(place)):
            return source
        line = line_of(self.text, place)
        return f"{self.path.name}:{line}" if line else self.path.name


class UnknownCamera(ValueError):
    """A camera is named that there is not: wrong usage, exit code 2 of every command line."""

    def __init__(self, name: str, cameras: Iterable[str]) -> None:
        super().__init__(explain_unknown_camera(name, cameras))


def explain_unknown_camera(name: str, cameras: Iterable[str]) -> str:
    """Returns the text for a name that none of these cameras has."""
    return f"no camera {name[:NAME_MAX]!r}; cameras: {', '.join(cameras)}"


def suggest_key(path: str) -> str:
    """Returns a hint for a dotted key that does not exist: the nearest key, or the keys of its table."""
    known, (table, _, rest) = list_keys(), path.partition(".")
    near_tables = [table] if table in load_tables() else get_close_matches(table, load_tables(), 1)
    near = [key for key in known if key.endswith(f".{path}")]
    for candidate in (path, *(f"{name}.{rest}" for name in near_tables)):
        near += get_close_matches(candidate, known, 1, NEAR_ENOUGH)
    if near and path not in load_tables():
        return f"did you mean {near[0]}?"
    inside = [key for key in known if key.split(".")[0] in near_tables]
    return f"there are: {', '.join(inside)}" if inside else f"tables: {', '.join(load_tables())}"
