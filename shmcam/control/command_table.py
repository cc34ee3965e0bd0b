"""The one table of commands: words, owner, usage. Routing, help, completion, JSON words and docs all come from it.

A new command is a class in `shmcam.control.messages` and a row here; a missing one of the two is an error on import.
"""

from __future__ import annotations

import difflib
from typing import Any, get_origin

from msgspec import Struct
from msgspec.structs import FieldInfo

from shmcam.control import messages as c
from shmcam.control.messages import MESSAGES, Command, choices, fields_of, type_of, wire_name


class CommandRow(Struct, frozen=True, kw_only=True):
    """The words, the owner and the explanation of one command."""

    message: type[Command]
    owner: str
    """Role of the process that answers; "hub": the hub itself."""
    words: tuple[str, ...]
    """Words a user types; help shows the first. Case, "_" and "-" do not matter."""
    example: str
    """A line that works as it is."""
    positional: tuple[str, ...] = ()
    """Fields that bare words fill, in order; a tuple field takes all remaining words."""
    per_camera: bool = False
    """One process per camera answers: that of the message's camera, or, with an empty camera, each of them."""
    timeout_s: float = 10.0
    """Time the owner has; after it the hub answers with an error."""

    @property
    def name(self) -> str:
        """The wire name."""
        return wire_name(self.message)

    @property
    def help(self) -> str:
        """The first line of the message's docstring."""
        return (self.message.__doc__ or "").partition("\n")[0]

    @property
    def usage(self) -> str:
        """The command as help shows it, such as `save [camera] [formats …]`."""
        return " ".join([self.words[0], *(self._usage_of(name) for name in self.positional)])

    @property
    def options(self) -> str:
        """The fields that need their name, such as `[label=…]`."""
        rest = [f for f in fields_of(self.message).values() if f.name not in self.positional]
        return " ".join(f"[{f.name}={choices(f) or '…'}]" for f in rest)

    def _usage_of(self, name: str) -> str:
        field = fields_of(self.message)[name]
        word = choices(field) or (name + (" …" if is_list(field) else ""))
        return f"<{word}>" if field.required else f"[{word}]"


def is_list(field: FieldInfo) -> bool:
    """Returns whether a field takes any number of words."""
    return get_origin(type_of(field)) is tuple


def _row(message: type[Command], owner: str, words: str, example: str, positional: str = "", **more: Any) -> CommandRow:
    return CommandRow(
        message=message,
        owner=owner,
        words=tuple(words.split()),
        example=example,
        positional=tuple(positional.split()),
        **more,
    )


GROUPS: dict[str, tuple[CommandRow, ...]] = {
    "pictures": (
        _row(c.Save, "exporter", "save SNAP save_still", "save jpg png", "camera formats", timeout_s=30.0),
        _row(c.Snapshot, "exporter", "snapshot", "snapshot", "cameras formats", timeout_s=30.0),
        _row(c.PastStack, "exporter", "pastStack", "pastStack before_s=2", "camera formats", timeout_s=180.0),
        _row(c.Timelapse, "exporter", "timelapse", "timelapse status", "action camera", timeout_s=600.0),
        _row(c.Keogram, "analyzer", "keogram", "keogram", "camera", per_camera=True, timeout_s=30.0),
    ),
    "recording": (
        _row(c.Record, "recorder", "record", "record start", "action camera", per_camera=True, timeout_s=20.0),
        _row(c.Watch, "recorder", "watch", "watch seconds=10", "camera", per_camera=True),
    ),
    "library": (
        _row(c.Clips, "exporter", "clips", "clips limit=5", "camera"),
        _row(c.Pictures, "exporter", "pictures", "pictures limit=5", "camera"),
        _row(c.Library, "exporter", "library", "library check", "action number", timeout_s=120.0),
        _row(c.Protect, "exporter", "protect", "protect 12", "number"),
        _row(c.Unprotect, "exporter", "unprotect", "unprotect 12", "number"),
        _row(c.Delete, "exporter", "delete", "delete 12", "number"),
        _row(c.Archive, "exporter", "archive", "archive trial_7 since=2h", "name", timeout_s=3600.0),
        _row(c.Archives, "exporter", "archives", "archives list", "action name", timeout_s=600.0),
    ),
    "night": (
        _row(c.NightLevel, "analyzer", "night_level", "night_level", "camera", per_camera=True),
        _row(c.Night, "analyzer", "night", "night auto", "action camera", per_camera=True),
    ),
    "look": (
        _row(c.Status, "hub", "status", "status"),
        _row(c.Health, "hub", "health", "health"),
        _row(c.Cameras, "hub", "cameras", "cameras"),
        _row(c.Detect, "capture", "detect", "detect", "camera", per_camera=True, timeout_s=20.0),
        _row(c.Viewers, "streamer", "viewers", "viewers"),
        _row(c.Logs, "hub", "logs", "logs capture 20", "process lines"),
        _row(c.Version, "hub", "version", "version"),
        _row(c.Help, "hub", "help", "help save", "word"),
        _row(c.Ping, "hub", "ping", "ping"),
    ),
    "settings": (
        _row(c.Set, "hub", "set", "set night.dark_threshold 35"),
        _row(c.Get, "hub", "get", "get night", "key"),
        _row(c.DumpConfig, "hub", "dump_config", "dump_config", "format"),
        _row(c.OverwriteConfig, "hub", "overwrite_config", "overwrite_config"),
    ),
    "connection": (
        _row(c.ShortStream, "streamer", "shortstream", "shortstream 3", "count when camera", timeout_s=600.0),
        _row(c.Preview, "hub", "preview", "preview enabled=false", "camera"),
        _row(c.Subscribe, "hub", "subscribe", "subscribe night motion", "topics"),
        _row(c.Unsubscribe, "hub", "unsubscribe", "unsubscribe", "topics"),
        _row(c.Quit, "hub", "quit exit", "quit"),
    ),
}
"""Every command, under the headings of help and docs."""

COMMANDS: tuple[CommandRow, ...] = tuple(row for rows in GROUPS.values() for row in rows)

BY_NAME: dict[str, CommandRow] = {row.name: row for row in COMMANDS}
"""Rows by wire name."""

if missing := {name for name, message in MESSAGES.items() if issubclass(message, Command)} ^ set(BY_NAME):
    raise AssertionError(f"commands without a row in COMMANDS, or rows without a command: {sorted(missing)}")


def normalize(word: str) -> str:
    """Returns a word without case, "_" and "-": pastStack, past_stack and PASTSTACK are one."""
    return word.lower().replace("_", "").replace("-", "")


JSON_WORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "start_recording": ("record", {"action": "start"}),
    "stop_recording": ("record", {"action": "stop"}),
    "recording_status": ("record", {"action": "status"}),
    "trigger_recording": ("record", {"action": "trigger"}),
    "take_snapshot": ("snapshot", {}),
    "get_status": ("status", {}),
    "get_health": ("health", {}),
    "get_cameras": ("cameras", {}),
    "toggle_preview": ("preview", {}),
}
"""Words of master programs: the command and the preset fields of each."""

_BY_WORD: dict[str, tuple[CommandRow, dict[str, Any]]] = {
    **{normalize(word): (row, {}) for row in COMMANDS for word in (row.name, *row.words)},
    **{normalize(word): (BY_NAME[name], preset) for word, (name, preset) in JSON_WORDS.items()},
}


def find(word: str) -> tuple[CommandRow, dict[str, Any]] | None:
    """Returns the row of a word in any spelling, and the fields the word presets; None: no such command."""
    return _BY_WORD.get(normalize(word))


def suggestion(word: str) -> str:
    """Returns the command nearest to a mistyped word, or "" if none is near."""
    matches = difflib.get_close_matches(normalize(word[:64]), _BY_WORD, n=1, cutoff=0.6)
    return _BY_WORD[matches[0]][0].words[0] if matches else ""
