"""The variants of a live picture (`?fps=&width=&quality=&gray=&stack=&exposure=`), and the limit on a variant's rate.

Viewers of the same variant share one encode. So a variant is a value, and equal queries give equal variants.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from streamer.settings import MjpegServerSettings

STACK_MAX = 64
"""The most frames in a live stack: two seconds at 30 fps; in a longer one everything that moves is a smear."""

_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": True}


class InvalidVariant(ValueError):
    """A query for a variant that does not exist; the message says what is possible."""


class Variant(Struct, frozen=True):
    """The rate, size and treatment of a camera's pictures."""

    fps: float
    """The most pictures a second."""
    width: int
    """Pixels; 0 keeps the captured width."""
    quality: int
    """JPEG quality, 10..100."""
    gray: bool
    """True for a picture of luma only."""
    stack: int
    """The number of newest frames whose mean is shown; 1 does not stack."""
    long: bool = False
    """True for the exporter's virtual long exposure instead of single frames."""

    def __str__(self) -> str:
        width = f"{self.width}px" if self.width else "full"
        return f"{width} q{self.quality} {self.fps:g}fps{' gray' if self.gray else ''}" + (
            (f" stack{self.stack}" if self.stack > 1 else "") + (" long" if self.long else "")
        )


def parse_variant(query: Mapping[str, str], settings: MjpegServerSettings) -> Variant:
    """Returns the variant that a query describes. Raises: InvalidVariant."""
    variant = Variant(
        fps=min(_parse_number(query, "fps", settings.fps, 0.05, 240.0), settings.fps),
        width=_parse_width(query, settings.width),
        quality=int(_parse_number(query, "quality", settings.quality, 10, 100)),
        gray=_parse_flag(query, "gray"),
        stack=int(_parse_number(query, "stack", 1, 1, STACK_MAX)),
        long=_parse_exposure(query),
    )
    if variant.long and variant.stack > 1:
        raise InvalidVariant("exposure=long is a stack already: leave out stack")
    return variant


class RateLimiter:
    """A limit of `fps` frames a second, by the frames' own clock; jitter alone drops no frame."""

    def __init__(self, fps: float) -> None:
        self._period_ns = 1e9 / fps
        self._next_ns = 0.0

    def get_wait_ns(self, now_ns: int) -> float:
        """Returns the time until a frame that is captured then is accepted; 0 if one may be, by whatever clock."""
        wait_ns = self._next_ns - self._period_ns / 4 - now_ns
        return wait_ns if 0 < wait_ns < self._period_ns else 0.0

    def accept(self, captured_ns: int) -> bool:
        """Returns whether this frame is within the rate, and counts it if it is."""
        # A quarter period of slack: a camera at exactly `fps` keeps every frame, although its clock jitters.
        if captured_ns + self._period_ns / 4 < self._next_ns <= captured_ns + 10 * self._period_ns:
            return False
        self._next_ns = max(self._next_ns, captured_ns - self._period_ns) + self._period_ns
        if self._next_ns > captured_ns + 10 * self._period_ns:  # the clock went back: another source, another boot
            self._next_ns = captured_ns + self._period_ns
        return True


def _parse_width(query: Mapping[str, str], default: int) -> int:
    width = int(_parse_number(query, "width", default, 0, 8192))
    if 0 < width < 16:
        raise InvalidVariant(f"width={width}: must be 0 (as captured) or 16..8192 pixels")
    return width & ~1


def _parse_exposure(query: Mapping[str, str]) -> bool:
    exposure = query.get("exposure", "live")
    if exposure not in {"live", "long"}:
        raise InvalidVariant(f"exposure={exposure[:32]!r}: must be live or long")
    return exposure == "long"


def _parse_number(query: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
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


def _parse_flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "0").lower()
    if text not in _FLAGS:
        raise InvalidVariant(f"{name}={text[:32]!r}: must be 0 or 1")
    return _FLAGS[text]
