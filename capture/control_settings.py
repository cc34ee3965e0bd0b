"""The table [camera.controls]: the camera's controls, by libcamera's names."""

from __future__ import annotations

from typing import Annotated

from service.schema import Section, setting


class ControlSettings(Section, frozen=True):
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
