"""Messages from the broker as commands of the control socket, and their answers as payloads. Pure.

A command comes as a line of the text dialect (`record start`) or as an object of the JSON dialect
(`{"command": "record", "action": "start", "id": 7}`). Two keys more are understood in such an object: `at_utc_ns`, the
instant at which a snapshot is taken or a recording begins or ends, and `devices`, the devices that are meant.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from shmcam.control.codec import encode
from shmcam.control.command_table import BY_NAME, GROUPS
from shmcam.control.messages import JSON, Command, Night, PastStack, Record, Reply, Save, Snapshot, wire_name
from shmcam.control.parser import parse_line, parse_object
from shmcam.mqtt.discovery import NIGHT_OPTIONS

PAYLOAD_BYTES_MAX = 64 * 1024
"""Longest command, as on the control socket."""

AT_PAST_S, AT_FUTURE_S = 30, 600
"""An instant may lie so far back (rings hold seconds) or ahead (what waits is forgotten when the process ends).

Whole seconds: an integer of JSON may be too large for a float.
"""

ID_CHARS_MAX = 1024
"""Longest id of a caller, as JSON: it comes back in the answer."""

IN_CONNECTION = frozenset(row.name for row in GROUPS["connection"])
"""Commands that concern the connection on which they come: they have no meaning here."""

CONTROL_COMMANDS = frozenset(
    {
        *("save", "snapshot", "past_stack", "timelapse", "keogram", "pictures"),
        *("record", "watch", "clips"),
        *("night", "night_level"),
        *("status", "health", "cameras", "detect", "viewers", "version", "help", "ping"),
    }
)
"""Commands with mqtt.commands = "control"; every other one, also a new one, needs "all"."""

Access = Literal["none", "control", "all"]


class RefusedCommandError(ValueError):
    """A command that is not carried out; the text says why."""


class BrokerCommand(Struct, frozen=True):
    """A command, taken apart."""

    command: Command
    id: JSON = None
    """The caller's id for the answer."""
    at_utc_ns: int = 0
    """The instant at which it counts (wall clock); 0: at once."""


def is_allowed(command: Command, access: Access) -> bool:
    """Tells whether mqtt.commands allows a command."""
    name = wire_name(command)
    if name in IN_CONNECTION or access == "none":
        return False
    return access == "all" or name in CONTROL_COMMANDS


def parse_command(payload: bytes, *, access: Access, device: str, now_utc_ns: int) -> BrokerCommand | None:
    """Takes a payload of a command topic apart; None: it is for other devices. Raises: RefusedCommandError."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise RefusedCommandError(f"command of {len(payload)} bytes, limit {PAYLOAD_BYTES_MAX}")
    try:
        text = payload.decode()
        value = json.loads(text) if text.lstrip().startswith("{") else None
        if value is None:
            parsed = BrokerCommand(parse_line(text))
        else:
            devices = value.pop("devices", None)
            if devices is not None and not (isinstance(devices, list) and all(type(name) is str for name in devices)):
                raise RefusedCommandError(f"devices: expected a list of names, got {str(devices)[:40]!r}")
            if devices is not None and device not in devices:
                return None
            json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair
            parsed = _parse_object(value, now_utc_ns)
        encode("msgpack", parsed.command)  # as it goes to the hub: fails beyond 64 bits
    except (ValueError, OverflowError, RecursionError) as problem:
        raise RefusedCommandError(str(problem)) from None
    if not is_allowed(parsed.command, access):
        raise RefusedCommandError(_explain_refusal(parsed.command, access))
    return parsed


def _parse_object(value: dict[str, Any], now_utc_ns: int) -> BrokerCommand:
    at_utc_ns = value.pop("at_utc_ns", 0)
    if type(at_utc_ns) is not int:
        raise RefusedCommandError(f"at_utc_ns: expected ns since 1970, got {str(at_utc_ns)[:40]!r}")
    command, ident = parse_object(value)
    if not isinstance(command, Command):
        raise RefusedCommandError(f"{wire_name(command)} is no command")
    if len(json.dumps(ident)) > ID_CHARS_MAX:
        raise RefusedCommandError(f"id: longer than {ID_CHARS_MAX} characters")
    if at_utc_ns:
        if not isinstance(command, Snapshot | Record):
            raise RefusedCommandError(
                f"at_utc_ns: only snapshot and record act at an instant, not {wire_name(command)}"
            )
        ahead_ns = at_utc_ns - now_utc_ns
        if not -AT_PAST_S * 10**9 <= ahead_ns <= AT_FUTURE_S * 10**9:
            ahead = f"{ahead_ns // 10**9:+d} s" if abs(ahead_ns) < 2**63 else "many years"
            raise RefusedCommandError(
                f"at_utc_ns: {ahead} from now by our clock; expected -{AT_PAST_S}..+{AT_FUTURE_S} s"
            )
    return BrokerCommand(command, ident, at_utc_ns)


def at_sensor_time(command: Command, at_ns: int) -> Command:
    """Returns a snapshot or record command for an instant of the sensor clock."""
    if isinstance(command, Snapshot | Record):
        return replace(command, at_ns=at_ns)
    return command


def command_of_entity(camera: str, entity: str, payload: bytes, access: Access) -> Command:
    """Returns the command behind an entity of Home Assistant. Raises: RefusedCommandError."""
    if access == "none":
        raise RefusedCommandError('mqtt.commands is "none"')
    word = payload[:64].decode(errors="replace").strip()
    commands: dict[tuple[str, str], Command] = {
        ("recording", "ON"): Record(action="start", camera=camera),
        ("recording", "OFF"): Record(action="stop", camera=camera),
        ("save", "PRESS"): Save(camera=camera),
        ("stack", "PRESS"): PastStack(camera=camera),
        **{("night_mode", mode): Night(action=mode, camera=camera) for mode in NIGHT_OPTIONS},  # type: ignore[arg-type]
    }
    if (entity, word) not in commands:
        words = [payload for name, payload in commands if name == entity]
        expectation = f"one of {', '.join(words)}" if words else "recording, save, stack or night_mode"
        raise RefusedCommandError(f"{entity[:32]} = {word!r}: expected {expectation}")
    return commands[entity, word]


def reply_payload_of(reply: Reply, device: str, ident: JSON = None, **more: JSON) -> bytes:
    """Returns the payload of an answer: the device, and what the REST interface answers."""
    value: dict[str, JSON] = {
        "device": device,
        "ok": reply.ok,
        "status": reply.status,
        "text": reply.text,
        "data": reply.data,
        **more,
    }
    if ident is not None:
        value["id"] = ident
    return json.dumps(value, default=str).encode()


def _explain_refusal(command: Command, access: Access) -> str:
    name = BY_NAME[wire_name(command)].words[0]
    if wire_name(command) in IN_CONNECTION:
        return f"{name} has no meaning over MQTT"
    needed = "control" if wire_name(command) in CONTROL_COMMANDS else "all"
    return f'{name} is not allowed over MQTT: mqtt.commands is "{access}", needed is "{needed}"'
