"""The fan-out of one camera's pictures to its viewers; each variant is encoded once for all of them.

It belongs to the event loop's thread and does no I/O: a viewer is anything with `offer`. The feed's thread only reads
`variants`, which is replaced as a whole and never changed in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant

REPEAT_AFTER_NS = 1_000_000_000
"""The time after which the newest picture is repeated: Chromium shows a part when the next one begins, so that slow
night frames would be shown one exposure late (ustreamer does the same)."""


class PictureViewer(Protocol):
    """A viewer of one variant."""

    def offer(self, picture: JpegPicture) -> None:
        """Takes this picture now, or keeps it as the newest until there is room; never waits, never raises."""


class TooManyViewers(Exception):
    """A limit on viewers or variants is reached; the message says which."""


@dataclass(slots=True)
class VariantViewers:
    """The viewers of one variant."""

    variant: Variant
    viewers: set[PictureViewer] = field(default_factory=set)
    latest: JpegPicture | None = None
    offered_ns: int = 0
    """The time at which `latest` was last offered, sensor clock."""


@dataclass(slots=True)
class FanoutCounts:
    """The counts since start, shown in /metrics."""

    encodes: int = 0
    encode_ns: int = 0
    """The time spent encoding, all variants together."""
    offered: int = 0
    """Pictures offered, the sum over all viewers."""
    repeats: int = 0


class ViewerSlots:
    """The limits on viewers and variants of all cameras together."""

    def __init__(self, streams: int, variants: int) -> None:
        self._streams_max, self._variants_max = streams, variants
        self.streams = self.variants = 0

    def acquire(self, *, new_variant: bool) -> None:
        """Takes a slot for one viewer. Raises: TooManyViewers."""
        if self.streams >= self._streams_max:
            raise TooManyViewers(f"all {self._streams_max} places are taken (mjpeg_server.max_streams)")
        if new_variant and self.variants >= self._variants_max:
            raise TooManyViewers(
                f"{self._variants_max} different variants are watched already (mjpeg_server.max_variants)"
            )
        self.streams += 1
        self.variants += new_variant

    def release(self, *, last_of_variant: bool) -> None:
        """Gives the slot of one viewer back."""
        self.streams -= 1
        self.variants -= last_of_variant


class Fanout:
    """The viewers of one camera, by variant."""

    def __init__(self, camera: str, slots: ViewerSlots, now_ns: Callable[[], int]) -> None:
        self.camera = camera
        self.counts = FanoutCounts()
        self.variants: tuple[Variant, ...] = ()
        """The variants that have viewers."""
        self.joined = threading.Event()
        """Set by each new viewer, for the feed that sleeps."""
        self.share = 1.0
        """The part of each variant's rate that is served; below 1 while the machine is busy."""
        self._slots = slots
        self._now_ns = now_ns
        self._by_variant: dict[Variant, VariantViewers] = {}

    @property
    def viewers(self) -> int:
        """The number of viewers of this camera."""
        return sum(len(entry.viewers) for entry in self._by_variant.values())

    def count_by_variant(self) -> dict[Variant, int]:
        """Returns the number of viewers of each variant."""
        return {variant: len(entry.viewers) for variant, entry in self._by_variant.items()}

    def join(self, variant: Variant, viewer: PictureViewer) -> None:
        """Adds a viewer, which gets the newest picture at once if there is one. Raises: TooManyViewers."""
        entry = self._by_variant.get(variant)
        self._slots.acquire(new_variant=entry is None)
        if entry is None:
            entry = self._by_variant[variant] = VariantViewers(variant)
            self.variants = tuple(self._by_variant)
        entry.viewers.add(viewer)
        self.joined.set()
        if entry.latest is not None:
            viewer.offer(entry.latest)

    def leave(self, variant: Variant, viewer: PictureViewer) -> None:
        """Removes a viewer; with the last viewer of a variant its encoding ends."""
        entry = self._by_variant[variant]
        entry.viewers.remove(viewer)
        if not entry.viewers:
            del self._by_variant[variant]
            self.variants = tuple(self._by_variant)
        self._slots.release(last_of_variant=not entry.viewers)

    def deliver(self, pictures: Mapping[Variant, JpegPicture]) -> None:
        """Offers the pictures that the feed has encoded to their viewers."""
        for variant, picture in pictures.items():
            self.counts.encodes += 1
            self.counts.encode_ns += picture.encode_ns
            if (entry := self._by_variant.get(variant)) is not None:
                entry.latest = picture
                self._offer(entry, picture)

    def repeat(self) -> None:
        """Offers the newest picture again where the last offer is REPEAT_AFTER_NS ago."""
        for entry in list(self._by_variant.values()):
            if entry.latest is not None and self._now_ns() - entry.offered_ns >= REPEAT_AFTER_NS:
                self.counts.repeats += 1
                self._offer(entry, entry.latest)

    def _offer(self, entry: VariantViewers, picture: JpegPicture) -> None:
        entry.offered_ns = self._now_ns()
        self.counts.offered += len(entry.viewers)
        for viewer in tuple(entry.viewers):
            viewer.offer(picture)
