"""What a viewer may ask for (`?fps=&width=&quality=&gray=&stack=&exposure=`), and which frames a rate lets through.

Viewers who ask for the same variant share one encode; so a variant is a value, and equal wishes are equal variants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamer.settings import MjpegServerSettings

STACK_MAX = 64
"""Frames of a live stack; at 30 fps two seconds, beyond which everything that moves is a smear."""

_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": True}


class InvalidVariant(ValueError):
    """The viewer asked for something that does not exist; the message says what would."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to see a camera."""

    fps: float
    """Most pictures a second."""
    width: int
    """Pixels; 0: as captured."""
    quality: int
    """JPEG quality, 10..100."""
    gray: bool
    """Luma only."""
    stack: int
    """Mean of so many newest frames; 1: no stacking."""
    long: bool = False
    """The exporter's virtual long exposure instead of single frames."""

    def __str__(self) -> str:
        width = f"{self.width}px" if self.width else "full"
        return f"{width} q{self.quality} {self.fps:g}fps{' gray' if self.gray else ''}" + (
            (f" stack{self.stack}" if self.stack > 1 else "") + (" long" if self.long else "")
        )


def wish(query: Mapping[str, str], settings: MjpegServerSettings) -> Variant:
    """Read a viewer's wish from its query. Raises: BadWish."""
    variant = Variant(
        fps=min(_number(query, "fps", settings.fps, 0.05, 240.0), settings.fps),
        width=_width(query, settings.width),
        quality=int(_number(query, "quality", settings.quality, 10, 100)),
        gray=_flag(query, "gray"),
        stack=int(_number(query, "stack", 1, 1, STACK_MAX)),
        long=_long(query),
    )
    if variant.long and variant.stack > 1:
        raise InvalidVariant("exposure=long is a stack already: leave out stack")
    return variant


class Pace:
    """Lets through at most `fps` frames a second, by the frames' own clock, without dropping because of jitter."""

    def __init__(self, fps: float) -> None:
        self._period_ns = 1e9 / fps
        self._next_ns = 0.0

    def due(self, captured_ns: int) -> bool:
        """Tell whether this frame is wanted, and count it as taken if so."""
        # A quarter period of slack: a camera at exactly `fps` keeps every frame although its clock jitters.
        if captured_ns + self._period_ns / 4 < self._next_ns <= captured_ns + 10 * self._period_ns:
            return False
        self._next_ns = max(self._next_ns, captured_ns - self._period_ns) + self._period_ns
        if self._next_ns > captured_ns + 10 * self._period_ns:  # the clock went back: another source, another boot
            self._next_ns = captured_ns + self._period_ns
        return True


def _width(query: Mapping[str, str], default: int) -> int:
    width = int(_number(query, "width", default, 0, 8192))
    if 0 < width < 16:
        raise InvalidVariant(f"width={width}: must be 0 (as captured) or 16..8192 pixels")
    return width & ~1


def _long(query: Mapping[str, str]) -> bool:
    exposure = query.get("exposure", "live")
    if exposure not in {"live", "long"}:
        raise InvalidVariant(f"exposure={exposure[:32]!r}: must be live or long")
    return exposure == "long"


def _number(query: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = query.get(name)
    if text is None:
        return default
    try:
        value = float(text[:32])
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InvalidVariant(f"{name}={text[:32]!r}: must be a number {low:g}..{high:g}")
    return value


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "0").lower()
    if text not in _FLAGS:
        raise InvalidVariant(f"{name}={text[:32]!r}: must be 0 or 1")
    return _FLAGS[text]
