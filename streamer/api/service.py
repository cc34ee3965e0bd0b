"""The endpoints of the service itself: settings, logs, events."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any

import msgspec

from shmcam.config.masking import mask_secret
from shmcam.control import messages as c
from streamer.api.actions import make_command_endpoint, make_read_endpoint
from streamer.api.endpoint import Answer, Call, Endpoint, answer_of
from streamer.api.programs import find_waiting, read_start_times, restart_programs
from streamer.http.context import Context
from streamer.monitoring.events import Told


class Setting(msgspec.Struct, frozen=True):
    """One key of config.toml."""

    key: str
    value: Any
    """The value now; secrets are masked."""
    default: Any
    type: str
    unit: str
    help: str
    choices: list[Any]
    minimum: float | None
    maximum: float | None
    apply: str
    """live: at once; restart: when the owner is restarted; file: only in config.toml, because it opens a port, runs a
    program or names a folder."""
    secret: bool
    own: dict[str, Any]
    """Camera → its own value, which counts there instead of `value`; set it as cameras.<camera>.… with `path`."""
    path: str
    """The key below cameras.<camera>, such as width or night.enable."""


class Settings(msgspec.Struct, frozen=True):
    """All keys, table by table, and what has not taken effect yet."""

    settings: list[Setting]
    unsaved: list[str]
    """Changed keys that are not in config.toml: a restart of the whole service forgets them."""
    waiting: dict[str, list[str]]
    """Changed key → the programs that take it over when they are restarted."""


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The changes of a request."""

    changes: Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=64)]
    """Key → value, such as night.dark_threshold → 35; all of them or none."""
    save: bool = False
    """Also writes them to config.toml."""


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The changes to apply, beside all that were made before."""

    changes: Annotated[dict[str, Any], msgspec.Meta(max_length=64)] = {}


class LogWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log lines to return."""

    process: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{0,48}$", description="empty: all, merged")] = ""
    lines: Annotated[int, msgspec.Meta(ge=1, le=400)] = 100


class Events(msgspec.Struct, frozen=True):
    """The latest events, oldest first."""

    events: list[Told]


async def _list_settings(call: Call) -> Settings:
    """Returns the hub's values where it answers: it alone knows changes that are not saved yet."""
    reply = await call.context.hub.ask(c.Get(), 5.0)
    data = reply.data if reply.ok else {}
    values, own = data.get("settings", {}), data.get("own", {})
    settings = call.context.settings
    rows = []
    for key in settings.schema():
        value = values.get(key.path, settings.value(key.path))
        path = key.path.removeprefix("camera.")
        rows.append(
            Setting(
                key=key.path,
                value=mask_secret(key, value),
                default=key.default,
                type=key.type,
                unit=key.unit,
                help=key.help,
                choices=list(key.choices),
                minimum=_finite_or_none(key.minimum),
                maximum=_finite_or_none(key.maximum),
                apply=key.apply,
                secret=key.secret,
                own={
                    camera: mask_secret(key, own[full])
                    for camera in call.context.cameras
                    if (full := f"cameras.{camera}.{path}") in own
                },
                path=path,
            )
        )
    return Settings(rows, data.get("unsaved", []), _find_waiting(call.context, data))


def _find_waiting(context: Context, data: dict[str, Any]) -> dict[str, list[str]]:
    processes = context.system_load.processes
    return find_waiting(data.get("waiting", {}), processes, read_start_times(processes))


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


async def _change_settings(call: Call) -> Answer:
    return answer_of(await call.context.hub.ask(c.Set(changes=call.body.changes, save=call.body.save), 10.0))


async def _apply_settings(call: Call) -> Answer:
    """Changes, writes config.toml, and restarts the programs that wait for a change."""
    hub = call.context.hub
    if call.body.changes:
        answer_of(await hub.ask(c.Set(changes=call.body.changes), 10.0))
    answer_of(await hub.ask(c.OverwriteConfig(), 10.0))
    data = answer_of(await hub.ask(c.Get(), 5.0)).data
    waiting = await asyncio.to_thread(_find_waiting, call.context, data)
    programs = sorted({program for names in waiting.values() for program in names})
    await restart_programs(call.context, programs)
    text = f"Saved; restarted {', '.join(programs)}" if programs else "Saved; all of it holds now"
    return Answer(True, "applied", text, {"restarted": programs})


async def _list_events(call: Call) -> Events:
    return Events(list(call.context.events.latest))


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/settings", "settings", "All settings with value, unit, range and meaning", _list_settings, Settings
    ),
    Endpoint("POST", "/settings", "settings", "Change settings, all or none", _change_settings, Answer, body=Changes),
    Endpoint(
        "POST", "/settings/apply", "settings", "Change settings, save all changes and restart what waits for them",
        _apply_settings, Answer, body=Wanted,
    ),
    make_command_endpoint("POST", "/settings/save", "settings", c.OverwriteConfig),
    make_read_endpoint("/config", "settings", "The whole configuration in use", lambda _: c.DumpConfig()),
    Endpoint("GET", "/events", "status", "What happened lately", _list_events, Events),
    make_read_endpoint(
        "/logs",
        "logs",
        "The last log lines of one process, or of all merged by time",
        lambda call: c.Logs(process=call.query.process, lines=call.query.lines),
        query=LogWish,
    ),
)  # fmt: skip
