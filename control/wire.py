"""What every message is made of: the base classes, the names on the wire, and the limits of one message.

Rules: a message is a frozen keyword-only dataclass; each field says in its annotation what it means, its unit and its
range, and `build` enforces that. The wire name of a message is its class name in snake_case, so there is one name to
remember. Only `control.commands` and `control.events` declare messages.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from service.settings import LABEL

JSON: TypeAlias = Any
"""Anything json.dumps takes: str, int, float, bool, None, lists of these, dicts from str to these."""

MESSAGE_BYTES_MAX = 64 * 1024
"""Longest message of a stranger: any command fits, a flood does not."""

PROCESS_BYTES_MAX = 4 * MESSAGE_BYTES_MAX
"""Longest message from a process that said hello, or from the hub: a dump of all settings, 200 rows with paths."""

CHUNK_BYTES_MAX = 48 * 1024
"""Most payload one Chunk or PreviewFrame carries, so that base64 in the JSON dialect still fits the limit above."""

MessageT = TypeVar("MessageT", bound="Message")


def said(text: str, *, unit: str = "", **limits: Any) -> msgspec.Meta:
    """Describe one field: what it means, its unit, and its limits (ge, le, pattern, max_length of msgspec.Meta)."""
    return msgspec.Meta(description=text, extra={"unit": unit}, **limits)


Camera = Annotated[str, said("camera, such as cam0; empty: see the command", pattern=rf"^({LABEL})?$")]
Label = Annotated[str, said("label for file names", pattern=rf"^({LABEL})?$")]
Instant = Annotated[str, said("ISO 8601 time, or an age such as 90s, 15m, 2h, 3d; empty: no limit", max_length=40)]
Words = tuple[Annotated[str, msgspec.Meta(max_length=64)], ...]


@dataclass(frozen=True, kw_only=True)
class Message:
    """Anything that crosses the control socket."""


@dataclass(frozen=True, kw_only=True)
class Command(Message):
    """A request to one process; always answered with one Reply."""


@dataclass(frozen=True, kw_only=True)
class Event(Message):
    """Something that happened; sent to whoever subscribed to its name, never answered."""


@dataclass(frozen=True, kw_only=True)
class Reply(Message):
    """The one answer to a command."""

    ok: bool = True
    """False: nothing was changed, or not all of it."""
    status: str = "ok"
    """One word for programs, such as recording_started or no_frames (the JSON dialect's "status")."""
    text: str = ""
    """What the text dialect prints; an error starts with "ERROR: "."""
    data: dict[str, JSON] = field(default_factory=dict)
    """The same answer for programs (the JSON dialect's "data")."""


@dataclass(frozen=True, kw_only=True)
class Chunk(Message):
    """A piece of a binary answer, sent before its Reply; text connections get the bytes as they are."""

    data: bytes
    """At most CHUNK_BYTES_MAX bytes."""
    end: bool = False
    """True in the last one."""


def error(text: str, status: str = "error", **data: JSON) -> Reply:
    """Build a failed Reply whose text starts with "ERROR: "."""
    return Reply(ok=False, status=status, text=f"ERROR: {text}", data={"message": text, **data})


def wire_name(message: Message | type[Message]) -> str:
    """Return the snake_case name of a message class: NightBegan → night_began."""
    name = (message if isinstance(message, type) else type(message)).__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def build(message: type[MessageT], values: dict[str, Any], *, text: bool = False) -> MessageT:
    """Make a message from untrusted values.

    *Raises* ValueError saying which field, what was expected and what came (text=True: numbers may be strings).
    """
    known = [f.name for f in dataclasses.fields(message)]
    if unknown := [name for name in values if name not in known]:
        raise ValueError(
            f"{wire_name(message)} has no field {str(unknown[0])[:40]!r}; it has: {', '.join(known) or 'none'}"
        )
    try:
        return msgspec.convert(values, message, strict=not text)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise ValueError(f"{wire_name(message)}: {_plain(message, str(problem))}") from problem


def values_of(message: Message) -> dict[str, Any]:
    """Return a message's fields by name, as they go on the wire."""
    return {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}


def choices(given: dataclasses.Field[Any]) -> str:
    """Return "start|stop|status" for a field of fixed words, else nothing."""
    _, literal, rest = str(given.type).partition("Literal[")
    return "|".join(word.strip(" '\"") for word in rest.partition("]")[0].split(",")) if literal else ""


def _plain(message: type[Message], problem: str) -> str:
    """Turn msgspec's "Expected `int` >= 1 - at `$.count`" into "count: expected int >= 1"."""
    what, _, where = problem.partition(" - at ")
    name = where.strip("`").removeprefix("$.")
    sentence = (what[:1].lower() + what[1:]).replace("`", "").removeprefix("object ")
    for given in dataclasses.fields(message):
        if given.name == name and choices(given):
            sentence = f"expected {choices(given)}, got{sentence.rpartition('value')[2]}"
    return f"{name}: {sentence}" if name else sentence
