"""The [export] table of config.toml: what is saved, how, and what is collected all day."""

from typing import Annotated, Literal

import msgspec

from shmcam.config.schema import Section, setting

Format = Literal["jpg", "png", "npy", "tiff"]
Formats = Annotated[tuple[Format, ...], msgspec.Meta(min_length=1)]
Method = Literal["mean", "median", "sigma", "trimmed", "max", "min"]


class ExportSettings(Section, frozen=True):
    """The [export] table."""

    base_dir: Annotated[str, setting("folder of pictures, stacks and films, relative to config.toml")] = "captures"
    formats: Annotated[Formats, setting("written where a command names none", apply="live")] = ("jpg",)
    npy: Annotated[
        Literal["bgr", "planes"],
        setting(
            "npy files: (height, width, 3), blue first; or the camera's own planes, which are smaller", apply="live"
        ),
    ] = "bgr"
    jpg_quality: Annotated[int, setting("JPEG quality of pictures; 95 shows no loss", ge=1, le=100, apply="live")] = 92
    png_compression: Annotated[
        int, setting("zlib level: 1 is 3 x faster than 6 for 5 % more bytes", ge=0, le=9, apply="live")
    ] = 1

    save_before_s: Annotated[
        float,
        setting(
            "pastStack: the moment, so long before the command; other choices than around: the span begins there",
            unit="s",
            ge=0,
            le=3600,
            apply="live",
        ),
    ] = 2.0
    save_after_s: Annotated[
        float,
        setting(
            "pastStack, other choices than around, and single frames: the span ends so long after the command",
            unit="s",
            ge=0,
            le=3600,
            apply="live",
        ),
    ] = 0.0
    stack_count: Annotated[
        int,
        setting(
            "pastStack: so many frames, for a stack also older ones if need be; 0 is all of the span",
            ge=0,
            le=100_000,
            apply="live",
        ),
    ] = 16
    stack_choice: Annotated[
        Literal["around", "sharpest", "newest", "spread"],
        setting(
            "pastStack: which stack_count frames: those around save_before_s before the command, or the sharpest, the "
            "newest or evenly spread ones of the span",
            apply="live",
        ),
    ] = "around"
    stack_dark_frames: Annotated[
        bool, setting("pastStack gives one stack (false: one picture per frame of the span)", apply="live")
    ] = True
    stack_bright_frames: Annotated[
        bool, setting("by day, too (false: then one picture per frame, as moving things blur)", apply="live")
    ] = True
    stack_method: Annotated[Method, setting("how frames become one picture", apply="live")] = "sigma"
    stack_align: Annotated[bool, setting("shift the frames onto each other first", apply="live")] = False
    stack_formats: Annotated[
        Formats, setting("stacks keep 16 bits in png, tiff and npy; the jpg is tone-mapped", apply="live")
    ] = ("jpg", "png")
    dark_frames: Annotated[
        bool, setting("subtract the dark frame of the same camera, exposure and gain, if one was taken", apply="live")
    ] = True

    auto_save_interval_s: Annotated[
        float, setting("save a picture so often; 0 is never", unit="s", ge=0, le=604_800, apply="live")
    ] = 0.0
    auto_save_formats: Annotated[Formats, setting("formats of those pictures", apply="live")] = ("jpg",)
    auto_save_use_ring: Annotated[
        bool, setting("save and auto-save take the newest frame (false: wait for the next one)", apply="live")
    ] = True

    long_exposure_s: Annotated[
        float, setting("virtual long exposure: sum of so many seconds of frames; 0 is off", unit="s", ge=0, le=3600)
    ] = 0.0

    timelapse_interval_s: Annotated[
        float, setting("add a frame to the running film so often; 0 is off", unit="s", ge=0, le=86_400, apply="live")
    ] = 0.0
    timelapse_fps: Annotated[float, setting("frame rate of films", unit="1/s", gt=0, le=120, apply="live")] = 25.0
    timelapse_crf: Annotated[int, setting("x264 quality: 18 fine, 28 small", ge=0, le=51)] = 21
    timelapse_roll_hours: Annotated[
        float, setting("begin a new film after so long", unit="hours of recording", gt=0, le=744, apply="live")
    ] = 24.0

    startrails: Annotated[bool, setting("collect the brightest value of every pixel through the night")] = False
    startrails_interval_s: Annotated[
        float, setting("put the trails so far on disk so often", unit="s", ge=1, le=86_400, apply="live")
    ] = 60.0

    startrails_film_interval_s: Annotated[
        float,
        setting(
            "add the trails so far to a film in which they grow; 0 is off", unit="s", ge=0, le=86_400, apply="live"
        ),
    ] = 30.0

    nice: Annotated[int, setting("how much saving gives way to live video", unit="nice levels", ge=0, le=19)] = 10
    queue: Annotated[int, setting("commands that may wait to be saved; more are refused", ge=1, le=1000)] = 16
    memory_mb: Annotated[
        int,
        setting(
            "copies of frames one command may hold; fewer frames are taken if need be", unit="MB", ge=32, le=65_536
        ),
    ] = 256


TABLES: dict[str, type[Section]] = {"export": ExportSettings}
