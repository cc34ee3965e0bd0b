"""The tables of config.toml that belong to the analyzer: [night], [analyzer] and [motion]."""

import re
from typing import Annotated, Literal

import msgspec

from shmcam.config.polygon_checks import Corner, explain_corners
from shmcam.config.schema import Section, setting
from shmcam.config.settings import LABEL, LABEL_FORM

PLUGIN = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
"""`module:function`, as in entry points."""

MAX_PLUGINS = 8
MAX_AREAS = 16


class NightSettings(Section, frozen=True):
    """[night]: when night begins and ends, and how the camera exposes then."""

    enable: Annotated[bool, setting("switch the camera by itself; scores are published in any case", apply="live")] = (
        True
    )
    dark_threshold: Annotated[
        float,
        setting(
            "night below this brightness, as the frame would look in video mode at its longest exposure",
            unit="mean luma 0-255",
            apply="live",
            ge=1,
            le=255,
        ),
    ] = 40.0
    bright_threshold: Annotated[
        float, setting("day above this brightness, same scale", unit="mean luma 0-255", apply="live", ge=0, le=250)
    ] = 80.0
    min_dark_frames: Annotated[
        int, setting("consecutive dark frames before night", unit="frames", apply="live", ge=1, le=10_000)
    ] = 10
    min_bright_frames: Annotated[
        int, setting("consecutive bright frames before day", unit="frames", apply="live", ge=1, le=10_000)
    ] = 3
    dwell_s: Annotated[
        float, setting("stay past a threshold so long (headlights)", unit="s", apply="live", ge=0, le=3600)
    ] = 10.0
    hold_s: Annotated[float, setting("no second switch so soon after one", unit="s", apply="live", ge=0, le=86_400)] = (
        60.0
    )
    lockout_switches: Annotated[
        int, setting("so many switches within lockout_s lock it; 0 = never", apply="live", ge=0, le=1000)
    ] = 3
    lockout_s: Annotated[
        float, setting("span of that count, and length of the lock", unit="s", apply="live", ge=0, le=86_400)
    ] = 1200.0
    mode: Annotated[
        Literal["still", "slow_video"],
        setting("at night: long single exposures, or video of at least slow_video_fps", apply="live"),
    ] = "still"
    exposure_us: Annotated[int, setting("longest exposure at night", unit="µs", apply="live", ge=1, le=300_000_000)] = (
        2_000_000
    )
    gain: Annotated[float, setting("highest analogue gain at night", apply="live", ge=1, le=64)] = 6.0
    slow_video_fps: Annotated[
        float, setting("least frame rate in slow_video; limits its exposure", unit="1/s", apply="live", gt=0, le=60)
    ] = 5.0
    ladder: Annotated[
        bool,
        setting(
            "adapt the exposure at night; false = always exposure_us and gain, except where the frame is white",
            apply="live",
        ),
    ] = True
    reference_exposure_us: Annotated[
        int,
        setting(
            "scale of the thresholds: video's longest exposure; 0 = 1 / camera.framerate",
            unit="µs",
            apply="live",
            ge=0,
            le=300_000_000,
        ),
    ] = 0
    reference_gain: Annotated[
        float, setting("highest gain of video mode's auto exposure; scale of the thresholds", apply="live", ge=1, le=64)
    ] = 8.0
    on_night: Annotated[
        tuple[str, ...],
        setting('command run when night begins, by the program hooks: ["pinctrl", "set", "17", "op", "dh"]'),
    ] = ()
    on_day: Annotated[tuple[str, ...], setting("command run when night ends")] = ()
    hook_timeout_s: Annotated[
        float, setting("a command still running is killed", unit="s", apply="live", gt=0, le=600)
    ] = 10.0

    def __post_init__(self) -> None:
        if self.dark_threshold >= self.bright_threshold:
            raise ValueError(
                f"dark_threshold = {self.dark_threshold:g} must be below bright_threshold = {self.bright_threshold:g}"
            )


class AnalyzerSettings(Section, frozen=True):
    """[analyzer]: scores, plug-ins, keogram."""

    stream: Annotated[Literal["main", "lores"], setting("ring to look at")] = "main"
    response: Annotated[
        Literal["auto", "srgb", "bt709", "linear"],
        setting("how pixel values follow light; auto: bt709 for limited-range video, srgb else", apply="live"),
    ] = "auto"
    black_level: Annotated[float, setting("pixel value of no light", unit="luma 0-255", apply="live", ge=0, le=64)] = (
        0.0
    )
    plugins: Annotated[
        tuple[str, ...], setting("functions score(frame) -> dict, as module:function; from this file only")
    ] = ()
    plugin_path: Annotated[str, setting("folder they are imported from, beside installed packages")] = "plugins"
    plugin_timeout_s: Annotated[
        float, setting("a plug-in that hangs longer is killed and started again", unit="s", gt=0, le=3600)
    ] = 5.0
    plugin_fps: Annotated[
        float, setting("each plug-in sees at most so many frames, the newest each time", unit="1/s", gt=0, le=240)
    ] = 10.0
    plugin_memory_mb: Annotated[int, setting("most memory of one plug-in", unit="MB", ge=32, le=100_000)] = 512
    scores_size: Annotated[int, setting("slots of the scores ring", unit="frames", ge=4, le=100_000)] = 512
    keogram: Annotated[bool, setting("draw keogram and brightness strip of the day")] = True
    keogram_column_s: Annotated[float, setting("time per column", unit="s", ge=20, le=3600)] = 60.0
    keogram_height: Annotated[int, setting("rows of the keogram", unit="pixels", ge=8, le=1080)] = 240
    keogram_position: Annotated[
        float, setting("which column of the frame it is cut from; 0 = left, 1 = right", ge=0, le=1)
    ] = 0.5
    keogram_refresh_s: Annotated[
        float, setting("how often the pictures of the day so far are drawn again", unit="s", ge=0.5, le=86_400)
    ] = 600.0
    day_starts_at: Annotated[
        str,
        setting(
            "local time at which a new keogram begins; 12:00 keeps a night whole",
            pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
            apply="restart",
        ),
    ] = "00:00"
    position: Annotated[
        tuple[float, ...],
        setting(
            "latitude and longitude, for sunrise and sunset on the keogram: [52.5, 13.4]; empty: no marks",
            unit="degrees, north and east positive",
        ),
    ] = ()

    def __post_init__(self) -> None:
        if self.position and (len(self.position) != 2 or abs(self.position[0]) > 90 or abs(self.position[1]) > 180):
            raise ValueError(f"position: {list(self.position)} must be [latitude -90..90, longitude -180..180]")
        if len(self.plugins) > MAX_PLUGINS:
            raise ValueError(f"plugins: {len(self.plugins)} named; at most {MAX_PLUGINS}")
        for name in self.plugins:
            if not re.fullmatch(PLUGIN, name):
                raise ValueError(f"plugins: {name!r} must be module:function")


class MotionSettings(Section, frozen=True):
    """[motion]: what counts as movement."""

    enable: Annotated[bool, setting("look for motion", apply="live")] = True
    sensitivity: Annotated[float, setting("change that counts, times the noise", apply="live", ge=2, le=50)] = 6.0
    min_area: Annotated[float, setting("least moving part of the frame", unit="fraction", apply="live", gt=0, le=1)] = (
        0.002
    )
    min_frames: Annotated[
        int, setting("consecutive moving frames before an event", unit="frames", apply="live", ge=1, le=100)
    ] = 3
    gap_s: Annotated[float, setting("a shorter pause does not end an event", unit="s", apply="live", ge=0, le=3600)] = (
        2.0
    )
    pre_s: Annotated[float, setting("begins so long before its first motion", unit="s", apply="live", ge=0, le=600)] = (
        1.0
    )
    post_s: Annotated[float, setting("and to end so long after its last", unit="s", apply="live", ge=0, le=600)] = 2.0
    max_event_s: Annotated[
        float, setting("an event is ended after this, a new one may begin", unit="s", apply="live", gt=0, le=86_400)
    ] = 300.0
    zones: Annotated[
        dict[str, tuple[Corner, ...]],
        setting(
            "areas where motion counts, two corners or a polygon, 0..1: { door = [[0.1, 0.2], [0.5, 0.9]] }; none: all",
            apply="live",
        ),
    ] = msgspec.field(default_factory=dict)
    masks: Annotated[
        tuple[tuple[Corner, ...], ...],
        setting("where motion never counts: [[[0, 0], [0.3, 0.2]]] two corners or a polygon each, 0..1", apply="live"),
    ] = ()

    def __post_init__(self) -> None:
        if len(self.zones) > MAX_AREAS or len(self.masks) > MAX_AREAS:
            raise ValueError(f"at most {MAX_AREAS} zones and {MAX_AREAS} masks")
        for name in self.zones:
            if not re.fullmatch(LABEL, name):
                raise ValueError(f"zones: {name!r} must be {LABEL_FORM}")
        zones = ((f"zones.{name}", corners) for name, corners in self.zones.items())
        for place, corners in [*zones, *(("masks", corners) for corners in self.masks)]:
            if mistake := explain_corners(corners, least=2):
                raise ValueError(f"{place} = {list(map(list, corners))} {mistake}")


TABLES: dict[str, type[Section]] = {"night": NightSettings, "analyzer": AnalyzerSettings, "motion": MotionSettings}
