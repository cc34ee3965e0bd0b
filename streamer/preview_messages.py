"""The preview_frame messages: small pictures through the hub for a JSON master; one stream per camera on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from shmcam.control.messages import CHUNK_BYTES_MAX, Event, Preview, PreviewFrame
from streamer.http.context import Context, StreamedCamera
from streamer.pictures.fanout import TooManyViewers
from streamer.pictures.jpeg_picture import JpegPicture
from streamer.pictures.variant import Variant

QUALITY, QUALITY_MIN, QUALITY_STEP = 70, 20, 10


@dataclass
class PreviewViewer:
    """A viewer that announces each picture, and lowers the quality while pictures are too large for a message."""

    camera: StreamedCamera
    variant: Variant
    announce: Callable[[Event], None]
    joined: bool = False
    """False, too, when all places were taken during a change of quality."""

    def open(self) -> bool:
        """Joins the fan-out. Returns: whether there was a place."""
        try:
            self.camera.fanout.join(self.variant, self)
        except TooManyViewers:
            return False
        self.joined = True
        return True

    def close(self) -> None:
        """Leaves the fan-out."""
        if self.joined:
            self.joined = False
            self.camera.fanout.leave(self.variant, self)

    def offer(self, picture: JpegPicture) -> None:
        """Announces a picture if it fits into a message."""
        if not picture.signal:
            return
        if len(picture.jpeg) > CHUNK_BYTES_MAX:
            self._lower_quality()
            return
        self.announce(
            PreviewFrame(
                camera=self.camera.name,
                jpeg=picture.jpeg,
                width=picture.width,
                height=picture.height,
                frame_id=picture.frame_id,
                captured_ns=picture.captured_ns,
            )
        )

    def _lower_quality(self) -> None:
        if self.variant.quality <= QUALITY_MIN:
            return
        self.close()
        self.variant = replace(self.variant, quality=self.variant.quality - QUALITY_STEP)
        self.open()

    __hash__ = object.__hash__


class Previews:
    """The previews of all cameras, as the hub last requested them."""

    def __init__(self, context: Context, announce: Callable[[Event], None]) -> None:
        self._context, self._announce = context, announce
        self._open: dict[str, PreviewViewer] = {}

    def apply(self, command: Preview) -> None:
        """Starts, changes or stops the preview of one camera."""
        if (viewer := self._open.pop(command.camera, None)) is not None:
            viewer.close()
        camera = self._context.cameras.get(command.camera)
        if camera is None or not command.enabled:
            return
        variant = Variant(command.fps, command.width & ~1, QUALITY, gray=False, stack=1)
        viewer = PreviewViewer(camera, variant, self._announce)
        if viewer.open():
            self._open[command.camera] = viewer
