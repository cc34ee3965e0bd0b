"""The tables of config.toml that belong to capture: [camera], [ring] with [ring.downscale], and [privacy].

The table [camera.controls]: the camera's controls, by libcamera's names.
"""

import math
from typing import Annotated, Literal

from shmcam.config.polygon_checks import Corner, explain_corners
from shmcam.config.schema import Section, setting
from shmcam.config.settings import FORMER_LABEL


class CameraControlSettings(Section, frozen=True):
    """[camera.controls]: libcamera's controls by libcamera's names; a key left out leaves the camera's own default."""

    AeEnable: Annotated[bool | None, setting("auto exposure and gain in video mode", apply="live")] = None
    AeMeteringMode: Annotated[int, setting("0 centre, 1 spot, 2 matrix", apply="live", ge=0, le=3)] | None = None
    AeExposureMode: Annotated[int, setting("0 normal, 1 short, 2 long", apply="live", ge=0, le=3)] | None = None
    ExposureValue: (
        Annotated[float, setting("brighter or darker than metered", unit="EV", apply="live", ge=-8, le=8)] | None
    ) = None
    ExposureTime: (
        Annotated[
            int,
            setting("fixed exposure in video mode; 0 = automatic", unit="µs", apply="live", ge=0, le=300_000_000),
        ]
        | None
    ) = None
    AnalogueGain: (
        Annotated[float, setting("fixed gain in video mode; 0 = automatic", apply="live", ge=0, le=64)] | None
    ) = None
    AwbEnable: Annotated[bool | None, setting("auto white balance", apply="live")] = None
    AwbMode: (
        Annotated[
            int,
            setting(
                "0 auto, 1 incandescent, 2 tungsten, 3 fluorescent, 4 indoor, 5 daylight, 6 cloudy",
                apply="live",
                ge=0,
                le=7,
            ),
        ]
        | None
    ) = None
    ColourGains: Annotated[
        tuple[float, float] | None, setting("fixed gains of red and blue, e.g. [1.8, 1.5]", apply="live")
    ] = None
    Brightness: Annotated[float, setting("added to the picture", apply="live", ge=-1, le=1)] | None = None
    Contrast: Annotated[float, setting("1 = as it comes", apply="live", ge=0, le=32)] | None = None
    Saturation: Annotated[float, setting("1 = as it comes, 0 = grey", apply="live", ge=0, le=32)] | None = None
    Sharpness: Annotated[float, setting("1 = as it comes", apply="live", ge=0, le=16)] | None = None
    NoiseReductionMode: (
        Annotated[int, setting("0 off, 1 fast, 2 high quality, 3 minimal, 4 ZSL", apply="live", ge=0, le=4)] | None
    ) = None
    AfMode: Annotated[int, setting("0 manual, 1 auto once, 2 continuous", apply="live", ge=0, le=2)] | None = None
    LensPosition: (
        Annotated[float, setting("focus; 0 = infinity", unit="dioptres", apply="live", ge=0, le=32)] | None
    ) = None
    ScalerCrop: Annotated[
        tuple[int, int, int, int] | None, setting("part of the sensor shown: x, y, width, height", apply="live")
    ] = None


LEAST_SLOTS = 8
"""Fewer would let a reader be lapped by a hiccup of a quarter of a second at 30 fps."""

PRESETS: tuple[tuple[int, int], ...] = (
    (1456, 1088),
    (1280, 960),
    (1280, 720),
    (1024, 768),
    (800, 600),
    (640, 480),
    (480, 360),
    (320, 240),
)
"""Sizes behind camera.preset 0-7; the first is a Global Shutter sensor's whole array."""

NO_PRESET = -1


class SyntheticSettings(Section, frozen=True):
    """[camera.synthetic]: the simulated scene and sensor of source = "synthetic"."""

    seed: Annotated[int, setting("same seed, same frames", ge=0, le=2**31)] = 1
    scene: Annotated[
        Literal["day", "dusk", "night", "curve", "step"],
        setting("brightness: fixed, over a day by the sun, or day and night in turn every half day_length_s"),
    ] = "day"
    day_length_s: Annotated[
        float, setting("length of a simulated day; 86400 = real time", unit="s", ge=1, le=864_000)
    ] = 86_400.0
    start_hour: Annotated[float, setting("simulated hour of the first frame", unit="h", ge=0, le=24)] = 12.0
    noise: Annotated[bool, setting("read and shot noise")] = True
    code: Annotated[bool, setting("draw the machine-readable frame number")] = True
    moving: Annotated[bool, setting("a moving object")] = True


class CameraSettings(Section, frozen=True):
    """[camera]; plain keys of [cameras.<name>] override it for one camera."""

    source: Annotated[
        Literal["auto", "picamera2", "v4l2", "file", "url", "replay", "synthetic"],
        setting("where frames come from; auto: Picamera2 if a camera answers, else V4L2, else synthetic", apply="file"),
    ] = "auto"
    index: Annotated[
        int,
        setting(
            "which camera of its kind, as `shmcam detect` lists them; -1 = its place among [cameras]",
            ge=-1,
            le=15,
            apply="file",
        ),
    ] = -1
    device: Annotated[str, setting("V4L2 device, /dev/video0 or part of its name; empty = the first")] = ""
    path: Annotated[str, setting("video file, or folder written by `shmcam dump-ring` for source = replay")] = ""
    url: Annotated[
        str,
        setting("rtsp://… (over TCP) or http://… of a network camera; / ? # in a password as %2F %3F %23", secret=True),
    ] = ""
    loop: Annotated[bool, setting("start a file again at its end")] = True
    realtime: Annotated[bool, setting("files at their own speed; false = as fast as possible")] = True
    preset: Annotated[
        int,
        setting(
            "size 0-7 = " + ", ".join(f"{w}x{h}" for w, h in PRESETS) + "; -1 = width and height",
            apply="live",
            ge=-1,
            le=7,
        ),
    ] = NO_PRESET
    width: Annotated[int, setting("frame width", unit="pixels", apply="live", ge=16, le=8192)] = 1280
    height: Annotated[int, setting("frame height", unit="pixels", apply="live", ge=16, le=8192)] = 720
    framerate: Annotated[
        float,
        setting(
            "frames per second in video mode; 0 = as fast as the camera goes", unit="1/s", apply="live", ge=0, le=500
        ),
    ] = 30.0
    codec: Annotated[
        Literal["auto", "yuv420", "nv12", "rgb888", "bgr888", "xrgb8888", "yuyv", "mjpeg"],
        setting(
            "format asked of the camera, in Picamera2's names; auto prefers yuv420; rgb, as formerly, is auto",
            apply="live",
            spellings={"rgb": "auto", "h264": "auto"},
        ),
    ] = "auto"
    video_mode: Annotated[
        bool,
        setting(
            "start in video mode (auto exposure); false = still mode with exposure_us and gain; or stream, still",
            apply="live",
            spellings={"stream": True, "video": True, "still": False},
        ),
    ] = True
    exposure_us: Annotated[int, setting("exposure in still mode", unit="µs", apply="live", ge=1, le=300_000_000)] = (
        200_000
    )
    gain: Annotated[float, setting("analogue gain in still mode", apply="live", ge=1, le=64)] = 1.0
    capture_timeout_s: Annotated[
        float,
        setting(
            "a frame later than this (and 3 frame periods) counts as a stall", unit="s", apply="live", gt=0, le=600
        ),
    ] = 1.5
    lost_after_s: Annotated[
        float,
        setting(
            "no frame for so long (and 5 frame periods): the camera is closed and opened again", unit="s", gt=0, le=600
        ),
    ] = 10.0
    key_frame_wait_s: Annotated[
        float,
        setting(
            "how long a network camera that was joined between two key frames is waited for", unit="s", ge=1, le=3600
        ),
    ] = 60.0
    deinterlace: Annotated[
        bool,
        setting("make interlaced video of files and network cameras progressive; false = its frames bear a flag"),
    ] = False
    buffers: Annotated[int, setting("Picamera2 frame buffers", ge=2, le=16)] = 6
    sync_mode: Annotated[
        Literal["off", "server", "client"], setting("Picamera2's own synchronisation of two cameras")
    ] = "off"
    memory_limit_mb: Annotated[
        int,
        setting(
            "exit 42 for a restart above this; 0 = off", unit="MB beside the rings", apply="live", ge=0, le=100_000
        ),
    ] = 350
    swap_slow_percent: Annotated[
        float, setting("swap in use that halves the frame rate", unit="%", apply="live", gt=0, le=100)
    ] = 70.0
    swap_pause_percent: Annotated[
        float, setting("swap in use that pauses capture", unit="%", apply="live", gt=0, le=100)
    ] = 85.0
    controls: CameraControlSettings = CameraControlSettings()
    synthetic: SyntheticSettings = SyntheticSettings()

    def __post_init__(self) -> None:
        if self.swap_slow_percent > self.swap_pause_percent:
            raise ValueError("swap_slow_percent must not exceed swap_pause_percent")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height asked for, the preset's if there is one."""
        return PRESETS[self.preset] if self.preset != NO_PRESET else (self.width, self.height)


class DownscaleSettings(Section, frozen=True):
    """[ring.downscale]: saves memory: a second ring, `lores`, holds the history, with the same frames smaller."""

    enable: Annotated[bool, setting("keep the history small, in a ring of its own")] = False
    width: Annotated[int, setting("its frame width", unit="pixels", ge=16, le=8192)] = 640
    height: Annotated[int, setting("its frame height", unit="pixels", ge=16, le=8192)] = 360
    size: Annotated[
        int, setting("its slots; 0 = as [ring] size and seconds say", unit="frames", ge=0, le=1_000_000_000)
    ] = 0
    full_seconds: Annotated[
        float,
        setting("full-size frames kept beside it, for save and the running recording", unit="s", gt=0, le=3600),
    ] = 1.0


class RingSettings(Section, frozen=True):
    """[ring]: how many frames live in shared memory."""

    size: Annotated[
        int,
        setting("slots; 0 = `seconds` of frames; fewer where memory is short", unit="frames", ge=0, le=1_000_000_000),
    ] = 0
    seconds: Annotated[float, setting("history wanted when size = 0", unit="s", gt=0, le=3600)] = 6.0
    prefix: Annotated[
        str,
        setting(
            "segment names are /<prefix>.<camera>.<stream>",
            pattern=rf"^{FORMER_LABEL}$",
            form="1 to 32 letters, digits, _ and -",
        ),
    ] = "shmcam"
    downscale: DownscaleSettings = DownscaleSettings()

    def slots_of(self, stream: str, rate: float) -> int:
        """Returns the slots wanted for a stream at `rate` frames per second.

        [ring] is about the history: the main ring, or the lores ring where there is one, beside which the main ring
        holds only downscale.full_seconds.
        """
        if stream == "main" and self.downscale.enable:
            return _slots_of_span(self.downscale.full_seconds, rate)
        size = (self.downscale.size if stream == "lores" else 0) or self.size
        return size or _slots_of_span(self.seconds, rate)


def _slots_of_span(seconds: float, rate: float) -> int:
    return max(LEAST_SLOTS, math.ceil(seconds * rate))


class PrivacySettings(Section, frozen=True):
    """[privacy]: areas of the picture that are blackened before a frame enters the ring."""

    enable: Annotated[bool, setting("mask the polygons", apply="live")] = False
    polygons: Annotated[
        tuple[tuple[Corner, ...], ...],
        setting("areas as corners [x, y], 0..1 of width and height: [[[0, 0], [0.3, 0], [0.3, 0.2]]]", apply="live"),
    ] = ()

    def __post_init__(self) -> None:
        for polygon in self.polygons:
            if mistake := explain_corners(polygon, least=3):
                raise ValueError(f"polygons: {list(map(list, polygon))} {mistake}")


TABLES: dict[str, type[Section]] = {"camera": CameraSettings, "ring": RingSettings, "privacy": PrivacySettings}
