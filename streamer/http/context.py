"""What every route may use: the cameras, the settings as they are now, the table of viewers, the way to the hub."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.runtime.network import is_loopback
from streamer.auth.policy import Guard, ServerIdentity
from streamer.h264.live_video import LiveVideo
from streamer.monitoring.events import RecentEvents
from streamer.monitoring.load import SystemLoad
from streamer.monitoring.throttle import Throttle
from streamer.monitoring.viewers import ViewerTable
from streamer.pictures.fanout import Fanout, ViewerSlots
from streamer.settings import HttpSettings, MjpegServerSettings
from streamer.websocket.session import Sessions

if TYPE_CHECKING:
    from shmcam.control.messages import Command, Reply
    from streamer.http.connection import ConnectionTable
    from streamer.pictures.feed import FeedStatus


class CameraFeed(Protocol):
    """The feed of a camera, as routes see it."""

    @property
    def sight(self) -> FeedStatus:
        """What was last seen of the camera."""

    @property
    def looked_s(self) -> float:
        """When the feed last looked at its ring, monotonic."""

    @property
    def no_long(self) -> str:
        """Why there is no virtual long exposure; empty: there is one."""


class CommandSender(Protocol):
    """The way to the other processes."""

    async def ask(self, command: Command, timeout_s: float) -> Reply:
        """Send one command and wait for its answer; an unreachable hub is an answer too (ok = False)."""


@dataclass(frozen=True, slots=True)
class StreamedCamera:
    """One camera's part of the streamer."""

    name: str
    fanout: Fanout
    feed: CameraFeed
    live_video: LiveVideo


@dataclass(slots=True)
class Context:
    """Made once by the loop; `settings` is replaced when a live key changes."""

    settings: Settings
    house: ServerIdentity
    guard: Guard
    cameras: Mapping[str, StreamedCamera]
    viewers: ViewerTable
    places: ViewerSlots
    connections: ConnectionTable
    hub: CommandSender
    sessions: Sessions = field(default_factory=Sessions)
    events: RecentEvents = field(default_factory=RecentEvents)
    session_throttle: Throttle = field(default_factory=Throttle)
    """Of WebSocket sessions: by load and by recorder lag."""
    encoding_throttle: Throttle = field(default_factory=Throttle)
    """Of everything we encode: by recorder lag alone, because a busy machine with a punctual recorder harms nobody."""
    system_load: SystemLoad = field(default_factory=SystemLoad)
    catalogue: Catalogue = field(init=False)
    started_utc: float = field(default_factory=time.time)
    video_joined: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody begins to play H.264."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server ends, for whoever holds a stream open."""

    @property
    def mjpeg(self) -> MjpegServerSettings:
        """[mjpeg_server] as it is now."""
        return self.settings.table(MjpegServerSettings)

    def __post_init__(self) -> None:
        self.catalogue = Catalogue.of(self.settings)

    def apply_throttle(self) -> None:
        """Tell the feeds how much of the wanted rate is served from now on."""
        for camera in self.cameras.values():
            camera.fanout.share = self.encoding_throttle.share
        self.events.add("throttled", {"share": self.encoding_throttle.share, "reason": self.encoding_throttle.reason})

    def now(self) -> Settings:
        """The settings as they are now, for threads."""
        return self.settings

    def stale_after_s(self) -> float:
        """From which age a picture is stale, as set now."""
        return self.mjpeg.stale_after_s

    @property
    def http(self) -> HttpSettings:
        """[http] as it is now."""
        return self.settings.table(HttpSettings)

    @property
    def is_download_allowed(self) -> bool:
        """Whether saved files may be fetched: as http.downloads says, else unless strangers are let in."""
        wanted = self.http.downloads
        return self.guard.is_login_required or is_loopback(self.house.bind) if wanted is None else wanted


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)


def camera_of(context: Context, request: web.Request) -> StreamedCamera:
    """Find the camera a path or `?cam=` names; the first one where none is named. Raises: HTTPNotFound."""
    named = request.match_info.get("camera") or request.query.get("cam", "")
    names = list(context.cameras)
    if not named:
        return context.cameras[names[0]]
    if named not in context.cameras:
        raise web.HTTPNotFound(text=f"no camera {named[:32]!r}; there is: {', '.join(names)}")
    return context.cameras[named]
