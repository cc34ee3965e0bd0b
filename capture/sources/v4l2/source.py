"""A V4L2 webcam: FFmpeg's stream of it, with the device's own controls beside it; and the choice of its mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from capture.sources.base import CameraError, CameraRequest, OpenedSource, Payload, ShotMeta
from capture.sources.pyav_stream import LiveSource
from capture.sources.stream_address import Address
from capture.sources.v4l2.controls import V4l2Controls
from capture.sources.v4l2.device import Device, V4l2Mode
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop

READ_BACK_NS = 500_000_000
"""The exposure is asked for so often, not with every frame: over USB each question takes a millisecond."""


class WebcamSource(LiveSource):
    """Source "v4l2"; see capture.sources.base.FrameSource."""

    def __init__(self, address_for: Callable[[CameraRequest], Address], controls: V4l2Controls) -> None:
        super().__init__("v4l2", Address(controls.path, controls.path))
        self._address_for, self._controls = address_for, controls
        self._rate = 0.0
        self._exposure_us, self._read_ns = 0, 0

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Starts the stream, then sets the controls: some drivers reset them when streaming begins."""
        self._address, self._rate = self._address_for(request), request.framerate
        opened = super().open(replace(request, every=1), stop)  # it was asked for the lower rate itself
        try:
            self._controls.open()
        except OSError as error:
            self.close()
            raise CameraError(f"{self.description}: {error}") from error
        return replace(opened, refused=self._controls.apply(request))

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Copies or converts the picture; the exposure is what the device said last."""
        shot = super().write(payload, lores, frame_id)
        if now_ns() - self._read_ns > READ_BACK_NS:
            self._exposure_us, self._read_ns = self._controls.exposure_us(), now_ns()
        return shot._replace(exposure_us=self._exposure_us)

    def apply(self, request: CameraRequest) -> bool:
        """Sets the controls; another frame rate needs the stream begun anew."""
        if request.framerate != self._rate:
            return False
        self._controls.apply(request)
        self._read_ns = 0
        return True

    def close(self) -> None:
        """Ends the stream and lets go of the node."""
        super().close()
        self._controls.close()


FFMPEG_NAMES = {
    "YU12": "yuv420p", "YV12": "yuv420p", "NV12": "nv12", "UYVY": "uyvy422", "YUYV": "yuyv422", "NV16": "nv16",
    "422P": "yuv422p", "NV24": "nv24", "411P": "yuv411p", "YUV9": "yuv410p", "YVU9": "yuv410p",
    "MJPG": "mjpeg", "JPEG": "mjpeg",
    "BGR3": "bgr24", "RGB3": "rgb24", "XR24": "bgr0", "BGR4": "bgr0", "AR24": "bgra", "BX24": "0rgb", "RGB4": "0rgb",
    "BA24": "argb", "RGBP": "rgb565le", "RGBO": "rgb555le", "RGBR": "rgb565be", "RGBQ": "rgb555be",
    "RGGB": "bayer_rggb8", "GRBG": "bayer_grbg8", "GBRG": "bayer_gbrg8", "BA81": "bayer_bggr8",
    "GREY": "gray", "Y16": "gray16le", "Z16": "gray16le",
}  # fmt: skip
"""V4L2's four letters to FFmpeg's input_format, least work first: 4:2:0 is copied, 4:2:2 averaged, JPEG decoded.

FFmpeg has no way to read YVYU, NV21 and the others. *Source*: ff_fmt_conversion_table in libavdevice/v4l2-common.c.
"""

PREFERENCE = tuple(FFMPEG_NAMES)
LAST_RESORT = ("RGGB", "GRBG", "GBRG", "BA81", "GREY", "Y16", "Z16")
"""Only where there is nothing else: no colours, or such as no white balance has touched."""

CODECS = {
    "yuv420": "YU12",
    "nv12": "NV12",
    "yuyv": "YUYV",
    "mjpeg": "MJPG",
    "rgb888": "BGR3",
    "bgr888": "RGB3",
    "xrgb8888": "XR24",
}
"""camera.codec (libcamera's names) to V4L2's."""

ENOUGH = 0.8
"""A mode is fast enough at this share of the rate asked for: 25 will do for 30, rather than a smaller picture."""


def choose_mode(
    modes: Sequence[V4l2Mode], width: int, height: int, framerate: float, codec: str = "auto"
) -> V4l2Mode | None:
    """Returns the mode nearest to the request: fast enough, then by size, then rate, then the least work.

    Without a rate (0) the fastest mode of the nearest size.
    Returns: None when the device offers no format we can read, or not the one that `codec` insists on.
    """
    wanted = CODECS.get(codec)
    usable = [mode for mode in modes if mode.fourcc in FFMPEG_NAMES and (codec == "auto" or mode.fourcc == wanted)]

    def distance(mode: V4l2Mode) -> tuple[bool, float, int, float, int]:
        missing = max(0.0, framerate - mode.rate) if mode.rate and framerate else 0.0
        too_slow = missing if missing > (1 - ENOUGH) * framerate else 0.0
        size = abs(mode.width - width) + abs(mode.height - height)
        slower = missing if framerate else -mode.rate
        return mode.fourcc in LAST_RESORT, round(too_slow, 2), size, round(slower, 1), PREFERENCE.index(mode.fourcc)

    return min(usable, key=distance, default=None)


def options_of(mode: V4l2Mode, framerate: float) -> dict[str, str]:
    """Returns FFmpeg's options that ask a V4L2 device for this mode."""
    rate = min(framerate, mode.rate) if framerate and mode.rate else framerate or mode.rate
    asked = {"video_size": f"{mode.width}x{mode.height}", "input_format": FFMPEG_NAMES[mode.fourcc]}
    return {**asked, "framerate": f"{rate:g}"} if rate else asked


def address_of(device: Device, request: CameraRequest) -> Address:
    """Returns FFmpeg's address of the device for this request. Raises: CameraError when it has no readable format."""
    mode = choose_mode(device.modes, request.width, request.height, request.framerate, request.codec)
    if mode is None:
        has = ", ".join(map(str, device.modes)) or "none"
        raise CameraError(
            f"{device.path} ({device.card}): no format for codec = {request.codec} that FFmpeg reads; it offers {has}"
        )
    return Address(device.path, f"{device.path} ({device.card}) {mode}", "v4l2", options_of(mode, request.framerate))
