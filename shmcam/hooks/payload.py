"""What a command, a webhook or a push service is told of an event: JSON, environment, text. No I/O."""

from __future__ import annotations

from string import Template
from typing import Any

from msgspec.structs import asdict

from shmcam.control.messages import Event, wire_name
from shmcam.runtime.non_utf8_escapes import encode_json

ENVIRONMENT_VALUE_MAX = 4096
"""Characters of one variable; the JSON on stdin is whole."""

NIGHT = {"night_began": "began", "night_ended": "ended"}


def to_payload(event: Event, *, ident: str, hook: str, host: str, time_utc: str, test: bool = False) -> dict[str, Any]:
    """Returns the JSON object of one event for one hook; `time_utc`: when it came, ISO 8601."""
    return {
        "id": ident,
        "event": wire_name(event),
        "camera": getattr(event, "camera", ""),
        "time_utc": time_utc,
        "hook": hook,
        "host": host,
        "test": test,
        "data": asdict(event),
    }


def to_json(payload: dict[str, Any]) -> bytes:
    """Returns a payload as one line of JSON."""
    return encode_json(payload)


def to_environment(payload: dict[str, Any]) -> dict[str, str]:
    """Returns the variables of a command: SHMCAM_HOOK_EVENT, …_CAMERA, …_HOST, …_ID and one per plain field.

    SHMCAM_HOOK_NIGHT (began or ended) is older than the others, and stays.
    """
    plain = {name: value for name, value in payload["data"].items() if isinstance(value, str | int | float)}
    plain |= {name: payload[name] for name in ("id", "event", "camera", "time_utc", "hook", "host")}
    if payload["event"] in NIGHT:
        plain["night"] = NIGHT[payload["event"]]
    return {f"SHMCAM_HOOK_{name.upper()}": _to_word(value) for name, value in plain.items()}


def _to_word(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("\0", "�")[:ENVIRONMENT_VALUE_MAX]


def fill_in(template: str, payload: dict[str, Any]) -> str:
    """Returns a text with $camera, $event, $host and the event's fields in it; unknown names stay as they are."""
    names = {**payload["data"], **{name: payload[name] for name in ("event", "camera", "host", "time_utc")}}
    return Template(template).safe_substitute(names)


def describe(payload: dict[str, Any]) -> str:
    """Returns an event in words, as the text of a push message."""
    fields = {name: value for name, value in payload["data"].items() if name != "camera" and value not in ("", None)}
    facts = ", ".join(f"{name} {value}" for name, value in fields.items() if isinstance(value, str | int | float))
    words = str(payload["event"]).replace("_", " ")
    return f"{words}: {facts}" if facts else words
