"""A hook, which is one action of [hooks] or a camera's day and night commands, and which events it takes. No I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from msgspec import Struct

from shmcam.config.settings import Settings
from shmcam.control.messages import Event, topics_of, wire_name
from shmcam.hooks.settings import ActionSettings, HooksSettings, night_commands_of

HOUR_S = 3600.0

NIGHT_KEEP_S = 60.0
"""A switch of day and night that could not be carried out for so long is of no use any more."""


class Hook(Struct, frozen=True):
    """One action with its name."""

    name: str
    """The name of its table, or cam0.night."""
    action: ActionSettings
    night_commands: dict[str, tuple[str, ...]] = {}
    """The command by event, of [night] on_night and on_day; empty: that of the action."""

    @property
    def kind(self) -> str:
        """command, webhook or push."""
        return "webhook" if self.action.webhook else "push" if self.action.push else "command"

    @property
    def events(self) -> frozenset[str]:
        """The wire names of the events it takes."""
        return topics_of(self.action.events)

    @property
    def is_repeated(self) -> bool:
        """True if a failed delivery is tried again: at least once, else at most once."""
        if self.action.delivery == "auto":
            return self.kind != "command"
        return self.action.delivery == "at_least_once"

    def command_of(self, event: str) -> tuple[str, ...]:
        """Returns the command that an event of this name runs."""
        return self.night_commands.get(event, self.action.command)

    def takes(self, event: Event, minute: int) -> bool:
        """Returns whether an event is for this hook; `minute`: local time in minutes since midnight."""
        action = self.action
        return (
            wire_name(event) in self.events
            and (not action.cameras or getattr(event, "camera", "") in action.cameras)
            and is_within(action.hours, minute)
        )


def is_within(spans: tuple[str, ...], minute: int) -> bool:
    """Returns whether a minute of the day is in one of the spans HH:MM-HH:MM, whose end is not; no spans: always.

    A span whose end is not after its begin goes over midnight.
    """
    for span in spans:
        begin, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in span.split("-"))
        if begin <= minute < end or (end <= begin and (minute >= begin or minute < end)):
            return True
    return not spans


def hooks_of(settings: Settings) -> list[Hook]:
    """Returns the hooks of a configuration: the actions of [hooks] if it is enabled, and the day and night commands."""
    own = settings.table(HooksSettings)
    hooks = [Hook(name, action) for name, action in own.actions.items()] if own.enable else []
    commands: dict[str, dict[str, tuple[str, ...]]] = {}
    for camera, event, command in night_commands_of(settings):
        commands.setdefault(camera, {})[event] = command
    for camera, by_event in commands.items():
        # One of both waits at most: where day and night follow each other faster than the command, the newest counts.
        action = ActionSettings(
            events=tuple(by_event),
            cameras=(camera,),
            queue_max=1,
            keep_s=NIGHT_KEEP_S,
            timeout_s=settings.value(f"cameras.{camera}.night.hook_timeout_s"),
        )
        hooks.append(Hook(f"{camera}.night", action, by_event))
    return hooks


@dataclass
class EventLimit:
    """The rate limits of one hook."""

    min_interval_s: float
    max_per_hour: int
    _last_s: dict[str, float] = field(default_factory=dict)
    """Time of the last event by camera."""
    _recent_s: deque[float] = field(default_factory=deque)
    """Times of the events of the last hour, if they are limited."""

    def take(self, camera: str, now_s: float) -> bool:
        """Returns whether an event may pass at this monotonic time, and counts it if so."""
        if self.min_interval_s and now_s - self._last_s.get(camera, -1e9) < self.min_interval_s:
            return False
        if self.max_per_hour:
            while self._recent_s and now_s - self._recent_s[0] >= HOUR_S:
                self._recent_s.popleft()
            if len(self._recent_s) >= self.max_per_hour:
                return False
            self._recent_s.append(now_s)
        self._last_s[camera] = now_s
        return True
