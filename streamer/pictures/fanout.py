"""One camera's pictures to many viewers: each variant is encoded once, each viewer has a place for the newest picture.

Lives on the event loop's thread and does no I/O: a viewer is anything with `offer`. The feed's thread only reads
`wanted`, which is replaced as a whole and never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant

REPEAT_AFTER_NS = 1_000_000_000
"""Chromium shows a part when the next one begins; repeating after a second keeps slow night frames from being seen one
exposure late (ustreamer does the same)."""


class PictureViewer(Protocol):
    """Somebody who looks."""

    def offer(self, picture: JpegPicture) -> None:
        """Take this picture now, or remember it as the newest until there is room; never wait, never raise."""


class TooManyViewers(Exception):
    """No place left; the message says for whom."""


@dataclass(slots=True)
class VariantViewers:
    """Everybody who watches one variant."""

    variant: Variant
    viewers: set[PictureViewer] = field(default_factory=set)
    latest: JpegPicture | None = None
    offered_ns: int = 0
    """When `latest` was last offered, sensor clock."""


@dataclass(slots=True)
class FanoutCounts:
    """What happened since start; shown in /metrics."""

    encodes: int = 0
    encode_ns: int = 0
    """Time spent encoding, all variants."""
    offered: int = 0
    """Pictures offered, summed over viewers."""
    repeats: int = 0


class ViewerSlots:
    """How many may watch, over all cameras."""

    def __init__(self, streams: int, variants: int) -> None:
        self._streams, self._variants = streams, variants
        self.streams = self.variants = 0

    def take(self, *, new_variant: bool) -> None:
        """Raises: TooMany."""
        if self.streams >= self._streams:
            raise TooManyViewers(f"all {self._streams} places are taken (mjpeg_server.max_streams)")
        if new_variant and self.variants >= self._variants:
            raise TooManyViewers(f"{self._variants} different variants are watched already (mjpeg_server.max_variants)")
        self.streams += 1
        self.variants += new_variant

    def give_back(self, *, last_of_variant: bool) -> None:
        """Someone left."""
        self.streams -= 1
        self.variants -= last_of_variant


class Fanout:
    """The viewers of one camera."""

    def __init__(self, camera: str, places: ViewerSlots, now_ns: Callable[[], int]) -> None:
        self.camera = camera
        self.counts = FanoutCounts()
        self.wanted: tuple[Variant, ...] = ()
        self.share = 1.0
        """Part of each variant's rate that is served; below 1 while the machine is busy."""
        self._places = places
        self._now_ns = now_ns
        self._channels: dict[Variant, VariantViewers] = {}

    @property
    def viewers(self) -> int:
        """Everybody who looks at this camera."""
        return sum(len(channel.viewers) for channel in self._channels.values())

    def audience(self) -> dict[Variant, int]:
        """How many look at which variant."""
        return {variant: len(channel.viewers) for variant, channel in self._channels.items()}

    def join(self, variant: Variant, viewer: PictureViewer) -> None:
        """Let a viewer in; it gets the newest picture at once if there is one. Raises: TooMany."""
        channel = self._channels.get(variant)
        self._places.take(new_variant=channel is None)
        if channel is None:
            channel = self._channels[variant] = VariantViewers(variant)
            self.wanted = tuple(self._channels)
        channel.viewers.add(viewer)
        if channel.latest is not None:
            viewer.offer(channel.latest)

    def leave(self, variant: Variant, viewer: PictureViewer) -> None:
        """A viewer is gone; with the last one of a variant its encoding ends."""
        channel = self._channels[variant]
        channel.viewers.remove(viewer)
        if not channel.viewers:
            del self._channels[variant]
            self.wanted = tuple(self._channels)
        self._places.give_back(last_of_variant=not channel.viewers)

    def deliver(self, pictures: Mapping[Variant, JpegPicture]) -> None:
        """Hand out what the feed has encoded."""
        for variant, picture in pictures.items():
            self.counts.encodes += 1
            self.counts.encode_ns += picture.encode_ns
            if (channel := self._channels.get(variant)) is not None:
                channel.latest = picture
                self._offer(channel, picture)

    def repeat(self) -> None:
        """Offer the newest picture again where nothing has come for a while."""
        for channel in list(self._channels.values()):
            if channel.latest is not None and self._now_ns() - channel.offered_ns >= REPEAT_AFTER_NS:
                self.counts.repeats += 1
                self._offer(channel, channel.latest)

    def _offer(self, channel: VariantViewers, picture: JpegPicture) -> None:
        channel.offered_ns = self._now_ns()
        self.counts.offered += len(channel.viewers)
        for viewer in tuple(channel.viewers):
            viewer.offer(picture)
