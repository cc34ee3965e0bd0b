"""The table [hooks] of config.toml: what is done upon which events."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from shmcam.config.optional_program import Need, OptionalProgram
from shmcam.config.schema import Section, setting
from shmcam.config.settings import LABEL, LABEL_FORM, Settings
from shmcam.control.messages import topics_of

ACTIONS_MAX = 32

SPAN = r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d"
"""Hours of the day, such as 22:00-06:00."""


class ActionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """[hooks.actions.NAME]: one thing that is done upon events."""

    events: Annotated[
        tuple[str, ...], setting('events or groups of them: ["motion_began", "camera_lost", "system"]')
    ] = ()
    cameras: Annotated[tuple[str, ...], setting("only events of these cameras; empty: all events")] = ()
    hours: Annotated[tuple[str, ...], setting('only at these local times: ["22:00-06:00"]; empty: always')] = ()
    command: Annotated[
        tuple[str, ...], setting('either a command, without a shell: ["/usr/bin/aplay", "bell.wav"]')
    ] = ()
    webhook: Annotated[str, setting("or a URL that gets a POST with JSON", secret=True)] = ""
    push: Annotated[tuple[str, ...], setting("or addresses of push services, as apprise writes them", secret=True)] = ()
    secret: Annotated[str, setting("key that signs the webhook (HMAC-SHA256, standardwebhooks.com)", secret=True)] = ""
    headers: Annotated[dict[str, str], setting('further HTTP headers: { Authorization = "Bearer …" }', secret=True)] = (
        msgspec.field(default_factory=dict)
    )
    attach: Annotated[
        Literal["none", "picture", "clip"],
        setting("sent with it: the event's picture, or the newest one; or the event's clip"),
    ] = "none"
    attach_max_mb: Annotated[float, setting("a larger file is left out, and the JSON says so", ge=0, le=1000)] = 25.0
    title: Annotated[str, setting("title of a push message; $camera, $event, $host and the event's fields")] = (
        "shmcam $camera"
    )
    text: Annotated[str, setting("its text; empty: the event in words")] = ""
    min_interval_s: Annotated[
        float, setting("at most one event of a camera in this time; the others are left out", unit="s", ge=0)
    ] = 0.0
    max_per_hour: Annotated[int, setting("at most so many events an hour; 0 = no limit", ge=0)] = 0
    delivery: Annotated[
        Literal["auto", "at_most_once", "at_least_once"],
        setting("at_least_once tries again until it succeeds; auto: a command at most once, all else at least once"),
    ] = "auto"
    keep_s: Annotated[
        float, setting("an event that could not be delivered is given up after", unit="s", ge=1, le=2_592_000)
    ] = 86_400.0
    queue_max: Annotated[int, setting("events that wait at most; then the oldest is dropped", ge=1, le=10_000)] = 1000
    timeout_s: Annotated[
        float,
        setting("a command still running is killed; a server silent for so long is given up", unit="s", gt=0, le=3600),
    ] = 30.0

    def find_mistake(self) -> str:
        """Returns what is wrong with this row as a whole; empty: nothing."""
        if not self.events:
            return 'needs events = ["…"]'
        try:
            topics_of(self.events)
        except ValueError as problem:
            return f"events: {problem}"
        if sum(map(bool, (self.command, self.webhook, self.push))) != 1:
            return "needs one of command, webhook and push"
        if wrong := [span for span in self.hours if not re.fullmatch(SPAN, span)]:
            return f"hours = {wrong[0]!r} must be HH:MM-HH:MM"
        if self.command and not self.command[0]:
            return "command: must be a program and its arguments"
        return _find_mistake_in_url(self.webhook) if self.webhook else ""


def _find_mistake_in_url(url: str) -> str:
    """Returns what is wrong with the address of a webhook, without a word of it."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_right = False
    return "" if is_right and url.isprintable() and " " not in url else "webhook must be an http:// or https:// address"


class HooksSettings(OptionalProgram, frozen=True):
    """[hooks]: what is done upon events (docs/events.md)."""

    actions: Annotated[
        dict[str, ActionSettings],
        setting("the actions by name, each a table [hooks.actions.NAME] with these keys", apply="file"),
    ] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.actions) > ACTIONS_MAX:
            raise ValueError(f"{len(self.actions)} actions; at most {ACTIONS_MAX}")
        for name, action in self.actions.items():
            if not re.fullmatch(LABEL, name):
                raise ValueError(f"actions: the name {name!r} must be {LABEL_FORM}")
            if mistake := action.find_mistake():
                raise ValueError(f"actions.{name}: {mistake}")

    def list_needs(self) -> tuple[Need, ...]:
        """Returns the need of apprise, if a row pushes."""
        return (Need.of_extra("apprise", "hooks"),) if any(row.push for row in self.actions.values()) else ()

    @classmethod
    def is_wanted(cls, settings: Settings) -> bool:
        """Returns whether it is enabled, or a camera has a command for day or night ([night] on_night, on_day)."""
        return settings.table(cls).enable or any(night_commands_of(settings))


def night_commands_of(settings: Settings) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yields camera, event and command of [night] on_night and on_day, which are older than [hooks]."""
    for camera in settings.cameras:
        for event, key in (("night_began", "on_night"), ("night_ended", "on_day")):
            if command := settings.value(f"cameras.{camera}.night.{key}"):
                yield camera, event, tuple(command)


TABLES: dict[str, type[Section]] = {"hooks": HooksSettings}
