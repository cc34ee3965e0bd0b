"""Decodes a JPEG to its own planes, and refuses what is damaged: a grey lower half would be taken for the scene.

By FFmpeg's decoder, which hands out the planes as they are in the JPEG, at the cost of libjpeg-turbo's (`make bench
ARGS=capture`); no package for Python that brings libjpeg-turbo along gives anything but RGB or grey.
"""

from __future__ import annotations

import av
import simplejpeg

from capture.sources.mjpeg.picture_scanner import EOI

MAX_PIXELS = 8192 * 8192
"""The most that camera.width and height may be; a picture of some bytes can claim 65535x65535."""


class UnusablePicture(ValueError):
    """The picture cannot be decoded, or not as a whole."""


class JpegDecoder:
    """Decodes the pictures of one camera."""

    def __init__(self) -> None:
        self._codec = _open_codec()

    def decode(self, jpeg: bytes, *, is_complete: bool = True) -> av.VideoFrame:
        """Returns the picture. `is_complete`: it ends with EOI. Raises: UnusablePicture."""
        try:
            frames = self._codec.decode(av.Packet(jpeg if is_complete else jpeg + EOI)) if jpeg else []
        except (av.FFmpegError, ValueError, MemoryError) as error:
            self._codec = _open_codec()  # no state of a damaged picture is left
            raise UnusablePicture(f"{len(jpeg)} bytes that are no whole JPEG") from error
        if not frames:
            raise UnusablePicture(f"{len(jpeg)} bytes without a picture")
        if not is_complete:
            _check_data(jpeg + EOI)
        return frames[-1]


def _open_codec() -> av.VideoCodecContext:
    codec = av.CodecContext.create("mjpeg", "r")
    codec.thread_count = 1  # more would hold every picture back for others
    codec.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
    return codec


def _check_data(jpeg: bytes) -> None:
    """Lets libjpeg count the data of a picture whose end was missing: FFmpeg passes over some missing bytes.

    Raises: UnusablePicture.
    """
    try:
        simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, min_factor=8)
    except ValueError as error:
        raise UnusablePicture(f"{len(jpeg)} bytes, cut off: {error}") from error
