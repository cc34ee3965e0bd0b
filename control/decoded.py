"""One whole message as it came: a message of ours, or a refusal in words. No state."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from control.messages import Message, Reply, error
from control.parse import UnknownCommandError, from_line, from_object, from_wire


@dataclass(frozen=True, slots=True)
class Received:
    """A message, as it came."""

    message: Message
    id: Any = None
    """What the sender wants to find in the answer; None: nothing."""
    again: bool = False
    """The hub was told before, but may have been restarted since: remember it, do not pass it on."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Bytes that were no message."""

    reply: Reply
    id: Any = None
    fatal: bool = False


Decoded = Received | Refused


def from_map(value: Any) -> Decoded:
    """Read what a process sent."""
    if not isinstance(value, dict):
        return Refused(error("malformed msgpack: a message is a map", "bad_message"), fatal=True)
    return _checked(from_wire, value, _ident(value), again=value.get("again") is True)


def from_json(line: bytes) -> Decoded:
    """Read one object of a master program."""
    try:
        value = msgspec.json.decode(line)
    except (ValueError, RecursionError) as problem:  # DecodeError and bad UTF-8 are ValueErrors
        return Refused(error(f"malformed JSON: {short(problem)}", "bad_message"))
    if not isinstance(value, dict):
        return Refused(error('malformed JSON: expected an object such as {"command": "status"}', "bad_message"))
    return _checked(from_object, value, _ident(value))


def from_text(line: bytes, cameras: Collection[str], *, suggest: bool) -> Decoded:
    """Read one line of a person."""
    try:
        words = line.decode()
    except UnicodeDecodeError:
        return Refused(error("not UTF-8", "bad_message"))
    return _checked(lambda given: (from_line(given, cameras, suggest=suggest), None), words, None)


def _checked(read: Any, given: Any, ident: Any, *, again: bool = False) -> Decoded:
    try:
        message, ident = read(given)
    except UnknownCommandError as problem:
        return Refused(Reply(ok=False, status="unknown_command", text=str(problem)), ident)
    except (ValueError, TypeError, RecursionError) as problem:
        return Refused(error(str(problem), "bad_arguments"), ident)
    return Received(message, _ident({"id": ident}), again)


def _ident(value: dict[str, Any]) -> Any:
    """Take an id only if it is small: it is kept while the command is under way."""
    ident = value.get("id")
    small = isinstance(ident, int) and abs(ident) < 2**63
    return ident if small or (isinstance(ident, str) and len(ident) <= 64) else None


def short(problem: BaseException) -> str:
    """Return what is wrong in at most 200 characters."""
    return (str(problem) or type(problem).__name__)[:200]
