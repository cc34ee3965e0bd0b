"""Declares tables of config.toml: one frozen struct for each table, one annotated field for each key.

Each package keeps its tables in its own `settings.py` and exports them as `TABLES`. pyproject.toml names these
modules under the entry point group `shmcam.settings`, so that every process knows every table without an import of
another process's code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Struct, inspect

from shmcam.config.toml_file import parse_value

Apply = Literal["live", "restart", "file"]
"""How a key changes: by `set` at once, by `set` and a restart of its process, or only by the owner of config.toml."""

Row = type[msgspec.Struct]
"""The keys of each named row of a table."""

TABLES_GROUP = "shmcam.settings"
"""The group of entry points in pyproject.toml that name the settings module of each package."""

SWITCH_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
"""Words for true and false in text; config.toml itself has only true and false."""

CAMERA_TABLE = "camera"
"""The table whose keys stand in [cameras.<name>] without its name."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every table; `__post_init__` may raise ValueError for keys that contradict each other."""

    is_of_program: ClassVar[bool] = False
    """True if supervisord has a program of the table's name while the table says `enable = true`."""


def setting(
    help: str,
    *,
    unit: str = "",
    apply: Apply | None = None,
    secret: bool = False,
    ge: float | None = None,
    le: float | None = None,
    gt: float | None = None,
    pattern: str | None = None,
    form: str = "",
    max_length: int | None = None,
    spellings: Mapping[str, Any] = MappingProxyType({}),
) -> msgspec.Meta:
    """Describes one key: `width: Annotated[int, setting("frame width", unit="pixels", ge=16, le=8192)] = 1280`.

    `apply` says how `set` changes the key: at once ("live"), after a restart of its process ("restart"), or not at all
    ("file"), for keys that choose which file, device, address, program or port is used, and who is let in. Left out,
    it is "restart" for numbers, switches and choices, and "file" for text, lists and tables. A `secret` is masked in
    every output. `form`: the pattern in words. `spellings`: further words for a value, in small letters, such as those
    of the former programs, and the value that each stands for.
    """
    bounds: dict[str, Any] = {"ge": ge, "le": le, "gt": gt, "pattern": pattern, "max_length": max_length}
    extra = {"unit": unit, "apply": apply, "secret": secret, "form": form, "spellings": spellings}
    return msgspec.Meta(description=help, extra=extra, **bounds)


class Key(Struct, frozen=True):
    """One key of config.toml, as `set`, the docs, the page and the shell completion use it."""

    path: str
    """Dotted, as in `set camera.width 640`."""
    type: str
    """The type in words: integer, number, true or false, text, list, table."""
    default: Any
    unit: str
    help: str
    choices: tuple[Any, ...]
    minimum: float | None
    maximum: float | None
    apply: Apply
    secret: bool
    form: str
    """What a text must be like, in words; empty: any."""
    spellings: Mapping[str, Any]
    row: Row | None = None
    """The keys of each named row of a table ([hooks.actions.phone]); None: its values are plain."""

    def respell(self, value: Any) -> Any:
        """Returns the declared value that a word stands for: INFO for info. Other values stay as they are."""
        if not isinstance(value, str):
            return value
        word = value.lower()
        declared = {choice.lower(): choice for choice in self.choices if isinstance(choice, str)}
        return self.spellings.get(word, declared.get(word, value))

    def parse_text(self, text: str) -> Any:
        """Returns the value of a text behind `set KEY` or in a former config.txt; unfit text stays as it is."""
        value = self.respell(text)
        if value != text or (self.type == "text" and (not self.choices or text in self.choices)):
            return value
        if self.type == "true or false" and text.lower() in SWITCH_WORDS:
            return SWITCH_WORDS[text.lower()]
        plain = parse_value(text)
        if self.type == "list" and isinstance(plain, str):
            return [parse_value(word) for word in re.split(r"[\s,]+", plain.strip(" []")) if word]
        return float(plain) if self.type == "number" and type(plain) is int else plain

    @property
    def expected(self) -> str:
        """The values that are allowed, in words, for error messages."""
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        form = f" of {self.form}" if self.form else ""
        span = _format_span(self.minimum, self.maximum)
        return f"{self.type}{form}{span}{f' ({self.unit})' if self.unit else ''}"


def _format_span(low: float | None, high: float | None) -> str:
    if low is None:
        return "" if high is None else f" <= {high}"
    return f" >= {low}" if high is None else f" {low}..{high}"


@cache
def find_settings_modules() -> tuple[EntryPoint, ...]:
    """Returns the settings module of each installed package; searched once, as it reads every package's metadata."""
    return tuple(entry_points(group=TABLES_GROUP))


@cache
def load_tables() -> Mapping[str, type[Section]]:
    """Returns the tables of all installed packages by name. Raises: TypeError if two packages declare one name."""
    sections: dict[str, type[Section]] = {}
    for point in find_settings_modules():
        for name, section in point.load().TABLES.items():
            if sections.setdefault(name, section) is not section:
                raise TypeError(f"config table [{name}] is declared twice, the second time by {point.value}")
    return MappingProxyType(sections)


@cache
def list_keys() -> Mapping[str, Key]:
    """Returns every key of every table by its dotted path, in file order of the tables."""
    return MappingProxyType(
        {key.path: key for name, section in load_tables().items() for key in keys_of(name, section)}
    )


def find_key(path: str) -> Key | None:
    """Returns the key of a dotted path, one of a named row too (hooks.actions.phone.webhook); None: there is none."""
    keys, plain = list_keys(), base_key_of(path)
    if plain in keys:
        return keys[plain]
    for key in keys.values():
        if key.row is not None and plain.startswith(f"{key.path}."):
            name = plain.removeprefix(f"{key.path}.").partition(".")[2]
            return next((own for own in keys_of("", key.row) if own.path == f".{name}"), None)
    return None


@cache
def table_name_of(section: type[Section]) -> str:
    """Returns the name of the table that a section declares."""
    return next(name for name, declared in load_tables().items() if declared is section)


def base_key_of(path: str) -> str:
    """Returns the key that `cameras.<name>.…` overrides: night.enable for cameras.cam1.night.enable."""
    parts = path.split(".")
    if parts[0] != "cameras" or len(parts) < 3:
        return path
    rest = parts[2:]
    return ".".join(rest if rest[0] in load_tables() else [CAMERA_TABLE, *rest])


def keys_of(name: str, section: type[msgspec.Struct]) -> Iterator[Key]:
    """Yields the keys of one table; those of tables within it have dotted names."""
    for field in inspect.type_info(section).fields:  # type: ignore[attr-defined]
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        described, meta = _unwrap(field.type)
        path = f"{name}.{field.encode_name}"
        if isinstance(described, inspect.StructType):
            yield from keys_of(path, described.cls)
        else:
            yield _to_key(path, described, meta, default)


_NAMES = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
    inspect.StrType: "text",
    inspect.ListType: "list",
    inspect.VarTupleType: "list",
    inspect.TupleType: "list",
    inspect.DictType: "table",
}


def _unwrap(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    meta: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        meta.update(kind.extra or {})
        meta.setdefault("help", (kind.extra_json_schema or {}).get("description", ""))
        kind = kind.type
    return kind, meta


def _to_key(path: str, kind: inspect.Type, meta: dict[str, Any], default: Any) -> Key:
    if isinstance(kind, inspect.UnionType):  # an optional key: the part that is not None describes it
        kind, inner = _unwrap(next(part for part in kind.types if not isinstance(part, inspect.NoneType)))
        meta = {**inner, **meta}
    is_bounded = isinstance(kind, inspect.IntType | inspect.FloatType | inspect.BoolType | inspect.LiteralType)
    return Key(
        path=path,
        type=_NAMES.get(type(kind), "text" if isinstance(kind, inspect.LiteralType) else "value"),
        default=default,
        unit=meta.get("unit", ""),
        help=meta.get("help", ""),
        choices=tuple(kind.values) if isinstance(kind, inspect.LiteralType) else (),
        minimum=_minimum_of(kind),
        maximum=getattr(kind, "le", None),
        apply=meta.get("apply") or ("restart" if is_bounded else "file"),
        secret=meta.get("secret", False),
        form=meta.get("form") or _form_of(kind),
        spellings=meta.get("spellings", {}),
        row=_row_of(kind),
    )


def _minimum_of(kind: inspect.Type) -> float | None:
    low: float | None = getattr(kind, "ge", None)
    return low if low is not None else getattr(kind, "gt", None)


def _form_of(kind: inspect.Type) -> str:
    """Returns what a list, table or text holds, in words: "jpg, png", "3 integers 0..255", "at most 80 characters"."""
    match kind:
        case inspect.StrType(max_length=int(longest)):
            return f"at most {longest} characters"
        case inspect.TupleType(item_types=(item, *_)):
            count = f"{len(kind.item_types)} "
        case (
            inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item) | inspect.DictType(value_type=item)
        ):
            count = ""
        case _:
            return ""
    item, _ = _unwrap(item)
    if isinstance(item, inspect.LiteralType):
        least = getattr(kind, "min_length", None)
        return ", ".join(map(str, item.values)) + (f", at least {least}" if least else "")
    word = _NAMES.get(type(item), "table")
    inside = _form_of(item)
    span = _format_span(_minimum_of(item), getattr(item, "le", None))
    return f"{count}{word}{'s' * (word != 'text')}{f' of {inside}' if inside else ''}{span}"


def _row_of(kind: inspect.Type) -> type[msgspec.Struct] | None:
    value = _unwrap(kind.value_type)[0] if isinstance(kind, inspect.DictType) else None
    return value.cls if isinstance(value, inspect.StructType) else None
