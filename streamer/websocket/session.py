"""One WebSocket session: what may be sent now, and how it went. Decides without I/O; `websocket.sender` sends.

What a WebSocket session asks for: a preset, and whatever it wants otherwise.
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
"""Width in pixels (0: as captured), JPEG quality, most pictures a second."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a session asks for with `create` and `configure`."""

    camera: Annotated[str, msgspec.Meta(pattern=rf"^({LABEL})?$")] = ""
    """Empty: the first one."""
    preset: Preset = "medium"
    fps: Annotated[float, msgspec.Meta(ge=0, le=240)] = 0.0
    """Most pictures a second; 0: as the preset says."""
    width: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    """Pixels; 0: as the preset says."""
    quality: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """JPEG quality, 10..100; 0: as the preset says."""
    gray: bool = False
    stack: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    exposure: Literal["live", "long"] = "live"
    """long: the virtual long exposure instead of single frames."""
    max_kbps: Annotated[float, msgspec.Meta(ge=0, le=1e7)] = 0.0
    """Kilobits a second; 0: no limit."""
    mode: Literal["push", "pull"] = "push"
    """push: pictures come by themselves; pull: one for each request_frame."""
    format: Literal["binary", "base64"] = "binary"
    label: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9 _.-]{0,64}$")] = ""
    """What the client calls itself; shown in the list of sessions."""

    def __post_init__(self) -> None:
        if self.exposure == "long" and self.stack > 1:
            raise ValueError("exposure long is a stack already: leave out stack")

    def variant(self, most_fps: float) -> Variant:
        """The variant that serves this agreement."""
        width, quality, fps = PRESETS[self.preset]
        return Variant(
            fps=min(max(self.fps or fps, 0.05), most_fps),
            width=(max(16, self.width) if self.width else width) & ~1,
            quality=max(10, self.quality) if self.quality else quality,
            gray=self.gray,
            stack=self.stack,
            long=self.exposure == "long",
        )


RESUME_S = 60.0
"""A session whose connection broke may be taken up again for so long."""

_BURST_S = 1.0
"""A bandwidth limit is kept over a second: one large picture may go out at once, then the session pays it back."""


@dataclass(slots=True)
class Statistics:
    """How a session went, over all its connections."""

    sent: int = 0
    bytes: int = 0
    skipped: int = 0
    """Replaced by newer pictures before they could be sent."""
    held_back: int = 0
    """Not sent because of the session's own limits, or because the machine is busy."""
    no_frame: int = 0
    """Requests that were answered with no_frame."""
    connections: int = 1


@dataclass(slots=True)
class WebSocketSession:
    """One session; lives as long as its connection, and RESUME_S beyond."""

    agreement: SessionOptions
    camera: str
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    """Shown to everybody."""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    """Known to the client alone; with it the session can be resumed."""
    statistics: Statistics = field(default_factory=Statistics)
    left_s: float | None = None
    """When its connection broke, monotonic; None: connected."""
    _newest: JpegPicture | None = None
    _sent_id: int = -1
    _next_s: float = 0.0
    _budget_s: float = 0.0
    """When the bandwidth already used is paid back."""

    def offer(self, picture: JpegPicture) -> None:
        """Remember the newest picture."""
        self.statistics.skipped += self._newest is not None and self._newest.frame_id != self._sent_id
        self._newest = picture

    def take(self, now_s: float, share: float) -> JpegPicture | str:
        """The picture to send now, or why there is none: nothing_new, no_signal, rate, bandwidth, busy.

        `share` is the part of its rate the machine can afford.
        """
        picture = self._newest
        if picture is None or (picture.signal and picture.frame_id == self._sent_id):
            return "nothing_new"
        if not picture.signal:
            return "no_signal"
        if now_s < self._next_s:
            self.statistics.held_back += 1
            return "busy" if share < 1 else "rate"
        if now_s < self._budget_s - _BURST_S:
            self.statistics.held_back += 1
            return "bandwidth"
        self._sent(picture, now_s, share)
        return picture

    @property
    def silence(self) -> str:
        """Why there is no signal, as far as the newest picture says; empty: the camera is away."""
        return self._newest.reason if self._newest is not None else ""

    def due_s(self, now_s: float) -> float:
        """Seconds until `take` may give a picture again, as far as limits are concerned."""
        return max(0.0, self._next_s - now_s, self._budget_s - _BURST_S - now_s)

    def _sent(self, picture: JpegPicture, now_s: float, share: float) -> None:
        self._sent_id = picture.frame_id
        self._newest = None
        self.statistics.sent += 1
        self.statistics.bytes += len(picture.jpeg)
        # The variant's own rate is kept where pictures are encoded; here only what a busy machine takes away.
        fps = self.agreement.fps or PRESETS[self.agreement.preset][2]
        self._next_s = now_s + (1 / (fps * share) if share < 1 else 0.0)
        if self.agreement.max_kbps:
            cost_s = len(picture.jpeg) * 8 / (self.agreement.max_kbps * 1000)
            self._budget_s = max(self._budget_s, now_s) + cost_s


class SessionLimit(Exception):
    """Every session place is taken."""


class Sessions:
    """All sessions, connected and resumable."""

    def __init__(self) -> None:
        self._by_key: dict[str, WebSocketSession] = {}

    def create(self, agreement: SessionOptions, camera: str, most: int, now_s: float) -> WebSocketSession:
        """Open a session. Raises: Full; those nobody is connected to make room first."""
        self.forget(now_s)
        if len(self._by_key) >= most:
            waiting = [one for one in self._by_key.values() if one.left_s is not None]
            if not waiting:
                raise SessionLimit(f"all {most} sessions are taken (mjpeg_server.max_sessions)")
            self.close(min(waiting, key=lambda one: one.left_s or 0.0))
        session = WebSocketSession(agreement, camera)
        self._by_key[session.key] = session
        return session

    def resume(self, key: str, now_s: float) -> WebSocketSession | None:
        """Take up a session whose connection broke; None: unknown, too late, or still connected."""
        self.forget(now_s)
        session = self._by_key.get(key)
        if session is None or session.left_s is None:
            return None
        session.left_s = None
        session.statistics.connections += 1
        return session

    def left(self, session: WebSocketSession, now_s: float) -> None:
        """Its connection is gone; keep it for a while."""
        session.left_s = now_s

    def close(self, session: WebSocketSession) -> None:
        """End it for good."""
        self._by_key.pop(session.key, None)

    def forget(self, now_s: float) -> None:
        """End those nobody came back to."""
        for one in list(self._by_key.values()):
            if one.left_s is not None and now_s - one.left_s > RESUME_S:
                self.close(one)

    @property
    def all(self) -> tuple[WebSocketSession, ...]:
        """Every session there is."""
        return tuple(self._by_key.values())
