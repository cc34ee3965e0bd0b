"""What a clip is: how it is written, what it is made of, what is known of it in the end."""

from __future__ import annotations

from dataclasses import dataclass

from recorder.order import Order
from recorder.settings import RecorderSettings
from shm_ring import FrameMeta


@dataclass(frozen=True, slots=True)
class Form:
    """How a clip is written."""

    container: str
    fragment_s: float
    csv: bool
    plain: bool
    """Whether an mp4 becomes a plain one when it is closed."""

    @classmethod
    def of(cls, settings: RecorderSettings) -> Form:
        """The user's choice."""
        return cls(settings.container, settings.fragment_s, settings.csv, settings.on_close != "fragmented")


@dataclass(frozen=True, slots=True)
class Track:
    """What one video stream is made of; frames of another track need another file."""

    width: int
    height: int
    fps: float
    """Nominal."""
    parameter_sets: bytes
    mode: int = 0
    """Counts changes of size, format and camera mode."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known of a clip."""

    frames: int
    first_frame: int
    last_frame: int
    first_ns: int
    last_ns: int
    hardware_drops: int
    lost: int
    bytes: int

    @property
    def drops(self) -> int:
        """Frames missing between first and last, whoever lost them."""
        return self.hardware_drops + self.lost

    @property
    def duration_s(self) -> float:
        """From first to last frame, by the sensor's clock."""
        return (self.last_ns - self.first_ns) / 1e9


def about(camera: str, order: Order, row: FrameMeta) -> dict[str, object]:
    """What a video says about itself, so that it can be adopted from its bytes alone."""
    return {
        "camera": camera,
        "kind": order.kind,
        "trigger": order.trigger,
        "label": order.label,
        "protect": order.protect,
        "first_frame": row.frame_id,
        "captured_ns": row.captured_ns,
        "captured_utc_ns": row.captured_utc_ns,
    }
