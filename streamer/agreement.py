"""What a WebSocket session asks for: a preset, and whatever it wants otherwise."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from service.settings import LABEL
from streamer.variant import Variant

Preset = Literal["thumbnail", "low", "medium", "high", "full"]
PRESETS: dict[str, tuple[int, int, float]] = {
    "thumbnail": (160, 50, 2.0),
    "low": (320, 60, 10.0),
    "medium": (640, 70, 15.0),
    "high": (1280, 80, 30.0),
    "full": (0, 90, 60.0),
}
"""Width in pixels (0: as captured), JPEG quality, most pictures a second."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
