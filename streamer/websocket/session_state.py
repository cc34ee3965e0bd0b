"""The rules of a WebSocket session: its options, its limits, the picture to send next, and resuming it.

Decides without I/O; `websocket.sender` sends.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from shmcam.config.settings import LABEL
from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant

Preset = Literal["thumbnail", "low", "medium", "high", "full"]
PRESETS: dict[str, tuple[int, int, float]] = {
    "thumbnail": (160, 50, 2.0),
    "low": (320, 60, 10.0),
    "medium": (640, 70, 15.0),
    "high": (1280, 80, 30.0),
    "full": (0, 90, 60.0),
}
"""Width in pixels (0: as captured), JPEG quality, most pictures per second."""

RESUME_S = 60.0
"""The time in which a session with a broken connection may be resumed."""

BURST_S = 1.0
"""The time over which a bandwidth limit holds: one large picture may go out at once, the next ones wait for it."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a session, from the messages `create` and `configure`."""

    camera: Annotated[str, msgspec.Meta(pattern=rf"^({LABEL})?$")] = ""
    """Empty: the first one."""
    preset: Preset = "medium"
    fps: Annotated[float, msgspec.Meta(ge=0, le=240)] = 0.0
    """Most pictures per second; 0: as the preset says."""
    width: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    """Pixels; 0: as the preset says."""
    quality: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """JPEG quality, 10..100; 0: as the preset says."""
    gray: bool = False
    stack: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    exposure: Literal["live", "long"] = "live"
    """long: the virtual long exposure instead of single frames."""
    max_kbps: Annotated[float, msgspec.Meta(ge=0, le=1e7)] = 0.0
    """Kilobits per second; 0: no limit."""
    mode: Literal["push", "pull"] = "push"
    """push: pictures come by themselves; pull: one for each request_frame."""
    format: Literal["binary", "base64"] = "binary"
    label: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9 _.-]{0,64}$")] = ""
    """A name from the client, for the list of sessions."""

    def __post_init__(self) -> None:
        if self.exposure == "long" and self.stack > 1:
            raise ValueError("exposure long is a stack already: leave out stack")

    def to_variant(self, max_fps: float) -> Variant:
        """Returns the variant of these options, at `max_fps` pictures per second or fewer."""
        width, quality, fps = PRESETS[self.preset]
        return Variant(
            fps=min(max(self.fps or fps, 0.05), max_fps),
            width=(max(16, self.width) if self.width else width) & ~1,
            quality=max(10, self.quality) if self.quality else quality,
            gray=self.gray,
            stack=self.stack,
            long=self.exposure == "long",
        )


@dataclass(slots=True)
class Statistics:
    """The counts of a session over all its connections."""

    sent: int = 0
    bytes: int = 0
    skipped: int = 0
    """Replaced by newer pictures before they could be sent."""
    held_back: int = 0
    """Not sent because of the session's own limits, or because the machine is busy."""
    no_frame: int = 0
    """Requests answered with no_frame."""
    connections: int = 1


@dataclass(slots=True)
class WebSocketSession:
    """One session; it lives as long as its connection, and RESUME_S beyond."""

    options: SessionOptions
    camera: str
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    """Public, in the list of sessions."""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    """Secret of the client, which resumes the session with it."""
    statistics: Statistics = field(default_factory=Statistics)
    disconnected_s: float | None = None
    """The time its connection broke, monotonic; None: connected."""
    _newest: JpegPicture | None = None
    _sent_id: int = -1
    _rate_due_s: float = 0.0
    """The time from which the rate allows the next picture, monotonic."""
    _bandwidth_due_s: float = 0.0
    """The time at which all bytes so far have passed at max_kbps, monotonic."""

    def offer(self, picture: JpegPicture) -> None:
        """Keeps the newest picture and counts the one it replaces."""
        self.statistics.skipped += self._newest is not None and self._newest.frame_id != self._sent_id
        self._newest = picture

    def take(self, now_s: float, share: float) -> JpegPicture | str:
        """Returns the picture to send now, or why there is none: nothing_new, no_signal, rate, bandwidth, busy.

        `share` is the part of its rate that the machine can afford.
        """
        picture = self._newest
        if picture is None or (picture.signal and picture.frame_id == self._sent_id):
            return "nothing_new"
        if not picture.signal:
            return "no_signal"
        if now_s < self._rate_due_s:
            self.statistics.held_back += 1
            return "busy" if share < 1 else "rate"
        if now_s < self._bandwidth_due_s - BURST_S:
            self.statistics.held_back += 1
            return "bandwidth"
        self._count_sent(picture, now_s, share)
        return picture

    @property
    def no_signal_reason(self) -> str:
        """The reason of the newest picture for "No signal"; empty: the camera is away."""
        return self._newest.reason if self._newest is not None else ""

    def delay_s(self, now_s: float) -> float:
        """Returns the seconds until the limits let `take` return a picture again; 0 if they do now."""
        return max(0.0, self._rate_due_s - now_s, self._bandwidth_due_s - BURST_S - now_s)

    def _count_sent(self, picture: JpegPicture, now_s: float, share: float) -> None:
        self._sent_id = picture.frame_id
        self._newest = None
        self.statistics.sent += 1
        self.statistics.bytes += len(picture.jpeg)
        # The feed keeps the variant's own rate; here counts only the part that a busy machine takes away.
        fps = self.options.fps or PRESETS[self.options.preset][2]
        self._rate_due_s = now_s + (1 / (fps * share) if share < 1 else 0.0)
        if self.options.max_kbps:
            cost_s = len(picture.jpeg) * 8 / (self.options.max_kbps * 1000)
            self._bandwidth_due_s = max(self._bandwidth_due_s, now_s) + cost_s


class SessionLimit(Exception):
    """The limit of sessions is reached."""


class Sessions:
    """All sessions, connected and resumable."""

    def __init__(self) -> None:
        self._by_key: dict[str, WebSocketSession] = {}

    def create(self, options: SessionOptions, camera: str, max_sessions: int, now_s: float) -> WebSocketSession:
        """Opens a session; if all are taken, in place of the longest disconnected one. Raises: SessionLimit."""
        self.expire(now_s)
        if len(self._by_key) >= max_sessions:
            resumable = [session for session in self._by_key.values() if session.disconnected_s is not None]
            if not resumable:
                raise SessionLimit(f"all {max_sessions} sessions are taken (mjpeg_server.max_sessions)")
            self.close(min(resumable, key=lambda session: session.disconnected_s or 0.0))
        session = WebSocketSession(options, camera)
        self._by_key[session.key] = session
        return session

    def resume(self, key: str, now_s: float) -> WebSocketSession | None:
        """Resumes a session with a broken connection; None: unknown, expired, or still connected."""
        self.expire(now_s)
        session = self._by_key.get(key)
        if session is None or session.disconnected_s is None:
            return None
        session.disconnected_s = None
        session.statistics.connections += 1
        return session

    def disconnect(self, session: WebSocketSession, now_s: float) -> None:
        """Marks the connection of a session as gone; it may be resumed for RESUME_S."""
        session.disconnected_s = now_s

    def close(self, session: WebSocketSession) -> None:
        """Ends a session for good."""
        self._by_key.pop(session.key, None)

    def expire(self, now_s: float) -> None:
        """Closes the sessions that were not resumed within RESUME_S."""
        for session in list(self._by_key.values()):
            if session.disconnected_s is not None and now_s - session.disconnected_s > RESUME_S:
                self.close(session)

    @property
    def all(self) -> tuple[WebSocketSession, ...]:
        """All sessions, connected and resumable."""
        return tuple(self._by_key.values())
