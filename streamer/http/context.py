"""The objects that every route may use: cameras, current settings, table of viewers, link to the hub."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from aiohttp import HttpVersion11, web
from msgspec import Struct

from shmcam.config.errors import explain_unknown_camera
from shmcam.config.settings import Settings
from shmcam.control.messages import Command, Reply
from shmcam.library import Catalogue
from streamer.auth.forwarded import RequestClient, TrustedProxies
from streamer.auth.policy import Guard, ServerIdentity
from streamer.auth.roles import Access
from streamer.h264.live_video import LiveVideo
from streamer.h264.webrtc_sessions import WebRtcSessions
from streamer.http.connection import ConnectionTable, HttpConnection
from streamer.monitoring.disk_probe import DiskProbe
from streamer.monitoring.events import RecentEvents
from streamer.monitoring.system_load import SystemLoad
from streamer.monitoring.throttle import Throttle
from streamer.monitoring.viewers import ViewerTable
from streamer.pictures.fanout import Fanout, ViewerSlots
from streamer.pictures.feed import Feed
from streamer.settings import HttpSettings, MjpegServerSettings
from streamer.websocket.session_state import Sessions


class CommandSender(Protocol):
    """The link to the other processes; HubLink, which needs this context itself."""

    async def ask(self, command: Command, timeout_s: float) -> Reply:
        """Sends one command and waits for its reply; for an unreachable hub that is a reply with ok = False."""

    def restart_process(self, after_s: float) -> None:
        """Ends the streamer a little later; supervisord starts it again."""


class StreamedCamera(Struct, frozen=True):
    """The parts of the streamer that belong to one camera."""

    name: str
    fanout: Fanout
    feed: Feed
    live_video: LiveVideo


@dataclass(slots=True)
class Context:
    """The shared objects of one server; `settings` is replaced when a live key changes."""

    settings: Settings
    identity: ServerIdentity
    guard: Guard
    cameras: Mapping[str, StreamedCamera]
    viewers: ViewerTable
    viewer_slots: ViewerSlots
    connections: ConnectionTable
    hub: CommandSender
    proxies: TrustedProxies
    sessions: Sessions = field(default_factory=Sessions)
    webrtc_sessions: WebRtcSessions = field(default_factory=WebRtcSessions)
    events: RecentEvents = field(default_factory=RecentEvents)
    session_throttle: Throttle = field(default_factory=Throttle)
    """The throttle of WebSocket sessions, by load and by recorder lag."""
    encoding_throttle: Throttle = field(default_factory=Throttle)
    """The throttle of all encoding, by recorder lag alone: a busy machine whose recorder keeps up is no reason."""
    system_load: SystemLoad = field(default_factory=SystemLoad)
    catalogue: Catalogue = field(init=False)
    disk: DiskProbe = field(init=False)
    started_utc: float = field(default_factory=time.time)
    video_joined: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a viewer of H.264 joins."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server ends, so that open streams end too."""
    thumbnail_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One picture at a time: 12 megapixels take 36 MB and a core, and recording comes first."""
    timeline_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One timeline at a time: that of a year, 100,000 rows, takes 37 MB and half a second of a core."""

    @property
    def mjpeg(self) -> MjpegServerSettings:
        """The current settings of [mjpeg_server]."""
        return self.settings.table(MjpegServerSettings)

    def __post_init__(self) -> None:
        self.catalogue = Catalogue.of(self.settings)
        self.disk = DiskProbe(self.get_settings)

    def apply_throttle(self) -> None:
        """Sets the part of the rate that all feeds serve from now on."""
        for camera in self.cameras.values():
            camera.fanout.share = self.encoding_throttle.share
        self.events.add("throttled", {"share": self.encoding_throttle.share, "reason": self.encoding_throttle.reason})

    def get_settings(self) -> Settings:
        """Returns the current settings, for threads."""
        return self.settings

    def get_stale_after_s(self) -> float:
        """Returns the current age from which a picture is stale, for threads."""
        return self.mjpeg.stale_after_s

    @property
    def http(self) -> HttpSettings:
        """The current settings of [http]."""
        return self.settings.table(HttpSettings)

    def may_download(self, access: Access) -> bool:
        """Returns whether saved files may be fetched. The default: by those of whom we know who they are."""
        downloads = self.http.downloads
        return access.is_known if downloads is None else downloads


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
ACCESS: web.RequestKey[Access] = web.RequestKey("access")
"""Set by the middleware when the guard has let a request in."""
_CLIENT: web.RequestKey[RequestClient] = web.RequestKey("client")


def access_of(request: web.Request) -> Access:
    """Returns what a request that was let in may do."""
    return request[ACCESS]


def client_of(request: web.Request) -> RequestClient:
    """Returns the client of a request: the other end of the connection, or whom a trusted proxy names."""
    if _CLIENT not in request:
        host = request.headers.get("Host", None if request.version < HttpVersion11 else "")
        request[_CLIENT] = request.app[CONTEXT].proxies.find_client(
            cast(HttpConnection, request.protocol).peer,
            request.headers,
            request.headers.getall("X-Forwarded-For", ()),
            host=host,
            is_secure=request.secure,
        )
    return request[_CLIENT]


def camera_of(context: Context, request: web.Request) -> StreamedCamera:
    """Returns the camera that the path, `?cam=` or mjpg-streamer's `?action=stream_1` names; by default the first.

    Raises: HTTPNotFound.
    """
    name = request.match_info.get("camera") or request.query.get("cam", "")
    names = list(context.cameras)
    if not name:
        _, _, number = request.query.get("action", "").partition("_")
        if number and not (number.isdecimal() and len(number) < 4 and int(number) < len(names)):
            raise web.HTTPNotFound(text=f"no input {number[:32]!r}; there is: 0..{len(names) - 1} ({', '.join(names)})")
        return context.cameras[names[int(number or 0)]]
    if name not in context.cameras:
        raise web.HTTPNotFound(text=explain_unknown_camera(name, names))
    return context.cameras[name]
