"""Decides what becomes of each key of a former configuration. Pure: no file is read or written here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from capture.settings import PRESETS
from shmcam.cli.config_import.former_files import Pairs
from shmcam.config.errors import suggest_key
from shmcam.config.schema import Key, list_keys, load_tables
from shmcam.config.settings import LABEL
from shmcam.config.toml_file import Document, put, to_toml

JSON_KEYS = (
    *("camera.width", "camera.height", "camera.framerate", "camera.codec", "camera.video_mode"),
    *("camera.capture_timeout_s", "ring.size", "ring.downscale.enable", "ring.downscale.width"),
    *("ring.downscale.height", "night.enable", "night.dark_threshold", "night.bright_threshold"),
    *("night.min_dark_frames", "night.mode", "night.exposure_us", "night.gain", "export.base_dir"),
    *("export.formats", "export.save_before_s", "export.save_after_s", "export.stack_dark_frames"),
    *("export.stack_count", "export.auto_save_interval_s", "export.auto_save_use_ring"),
    *("mjpeg_server.enable", "mjpeg_server.port", "mjpeg_server.fps", "network.trigger_port", "logging.level"),
)
"""The keys of both versions of config.json. Each has the same name and meaning here."""

TEXT_KEYS = {
    "resolution_preset": "camera.preset",
    "target_fps": "camera.framerate",
    "auto_start_recording": "recorder.auto_start",
    "output_dir": "paths.recordings",
    "show_frame_number": "recorder.overlay.show_frame_number",
    "font_scale_base": "recorder.overlay.font_scale_base",
    "thickness_base": "recorder.overlay.thickness_base",
    "margin_left": "recorder.overlay.margin_left",
    "line_start_y": "recorder.overlay.line_start_y",
    "enable_csv_timing_log": "recorder.csv",
    "log_level": "logging.level",
    "libcamera_log_level": "logging.libcamera",
}
"""The keys of config.txt that have another name here and the same values."""

FORMER_KEYS = {**{key: key for key in JSON_KEYS}, **TEXT_KEYS}

NOTES = {
    "camera.codec": "frames in the camera's own format need half the memory of rgb; video is H.264 in any case",
    "ring.size": "fewer if memory is short, with a warning, as before",
    "night.bright_threshold": "formerly the mean of night's long exposures, here on the scale of dark_threshold; "
    "if day comes too late, try twice that (docs/night.md)",
    "network.trigger_port": "on this machine only; network.trusted = true opens it to the whole network, as before",
    "mjpeg_server.port": "on this machine only; http.bind and http.token or http.password open it to others, "
    'http.bind = "0.0.0.0" and http.insecure_no_auth = true to everybody, as before',
    "show_frame_number": "switches the overlay on, too",
    "output_dir": "sessions lie below it",
}

WAYS = {
    "show_preview": "`shmcam run --preview` opens the windows, --no-preview does not; the page shows it too",
    "console_output": "`shmcam run --console` prints the log; `shmcam logs -f` prints it at any time",
}
"""Keys that became an option of the command line."""


class Outcome(Struct, frozen=True):
    """What became of one key."""

    key: str
    value: Any
    became: dict[str, Any] = {}
    """Path in config.toml → value; empty: none."""
    note: str = ""
    problem: str = ""
    """The reason why the value cannot be taken over; empty: none."""


def convert(pairs: Pairs, *, as_text: bool) -> list[Outcome]:
    """Returns the outcome of each pair, in their order. `as_text`: the values are text, as in config.txt."""
    last = {key: number for number, (key, _) in enumerate(pairs)}
    outcomes = []
    for number, (key, value) in enumerate(pairs):
        if last[key] != number:
            outcomes.append(Outcome(key, value, note="given again below; the last one counts, as before"))
        else:
            outcomes.append(_convert_one(key, value, as_text=as_text))
    return _with_text_color(outcomes)


def document_of(outcomes: list[Outcome]) -> Document:
    """Returns the tables of the new config.toml."""
    document: Document = {}
    for outcome in outcomes:
        for path, value in outcome.became.items():
            put(document, path.split("."), value)
    return document


def _convert_one(key: str, value: Any, *, as_text: bool) -> Outcome:
    if value is None:
        return Outcome(key, value, note="null: the default is used")
    if key in SPECIAL:
        return SPECIAL[key](key, value)
    if key in WAYS:
        return Outcome(key, value, note=WAYS[key])
    path = FORMER_KEYS.get(key, key)
    declared = list_keys().get(path)
    if declared is None:
        return Outcome(key, value, note=f"unknown; {_suggest(key, as_text=as_text)}")
    return _take_over(key, value, declared, as_text=as_text)


def _suggest(key: str, *, as_text: bool) -> str:
    """Returns a hint for a key that no former program had: the nearest of its own kind of file, or of ours."""
    known = [*TEXT_KEYS, *WAYS, *SPECIAL] if as_text else []
    near = difflib.get_close_matches(key.lower(), known, 1)
    return f"did you mean {near[0]}?" if near else "docs/config.md has all keys" if as_text else suggest_key(key)


def _take_over(key: str, value: Any, declared: Key, *, as_text: bool) -> Outcome:
    is_text = isinstance(value, str) and (as_text or declared.type == "list")  # "jpg" was as good as ["jpg"]
    text = _to_number(value) if as_text and declared.type in ("integer", "number") else value
    converted = declared.parse_text(text) if is_text else declared.respell(value)
    if declared.type == "integer" and isinstance(converted, float) and converted.is_integer():
        converted = int(converted)
    elif declared.type == "true or false" and converted in (0, 1):
        converted = bool(converted)
    if not _fits(declared.path, converted):
        return Outcome(key, value, problem=f"must be {declared.expected}")
    became = {declared.path: converted}
    if key == "show_frame_number" and converted:
        became["recorder.overlay.enable"] = True
    return Outcome(key, value, became, NOTES.get(key, ""))


def _to_number(text: str) -> str:
    """Returns a number of Python (02, .5, 1_000) as TOML writes it; any other text as it is."""
    for kind in (int, float):
        with suppress(ValueError):
            return repr(kind(text))
    return text


def _fits(path: str, value: Any) -> bool:
    """Tells whether one key may have this value."""
    table, *names = path.split(".")
    for name in reversed(names):
        value = {name: value}
    try:
        msgspec.convert(value, load_tables()[table])
    except msgspec.ValidationError as error:
        # What several keys contradict each other in is for the check of the whole file: it names no place.
        return f"`$.{'.'.join(names)}" not in str(error)
    return True


def _convert_preset(path: str) -> Callable[[str, Any], Outcome]:
    """Returns the conversion of a preset of the preview into the width of the live picture."""

    def convert_width(key: str, value: Any) -> Outcome:
        presets = {str(number): size for number, size in enumerate(PRESETS)}
        size = presets.get(_to_number(str(value)))
        if size is None:
            return Outcome(key, value, problem=f"must be a preset 0..{len(PRESETS) - 1}")
        return Outcome(key, value, {path: size[0]}, f"the live picture is {size[0]} pixels wide; the height follows")

    return convert_width


def _convert_mp4(key: str, value: Any) -> Outcome:
    is_off = list_keys()["recorder.csv"].parse_text(str(value))
    if not isinstance(is_off, bool):
        return Outcome(key, value, problem="must be true or false")
    note = "the bare stream" if is_off else "survives a power cut here, so there is nothing to fear from mp4"
    return Outcome(key, value, {"recorder.container": "h264" if is_off else "mp4"}, note)


def _convert_level(key: str, value: Any) -> Outcome:
    """A level of config.json was the attribute of Python's logging with this name, INFO where there is none."""
    declared = list_keys()["logging.level"]
    if not isinstance(value, str):
        return Outcome(key, value, problem=f"must be {declared.expected}")
    if value.upper() == "NOTSET":
        return Outcome(key, value, {key: "DEBUG"}, "everything is logged, as before")
    level = declared.respell(value)
    is_known = level in declared.choices
    return Outcome(
        key, value, {key: level if is_known else "INFO"}, "" if is_known else "no level; it was INFO before, too"
    )


def _convert_prefix(key: str, value: Any) -> Outcome:
    """A former prefix could have any character that a folder's name may have."""
    declared = list_keys()["recorder.session_prefix"]
    match = re.match(LABEL, re.sub(r"[^A-Za-z0-9_-]+", "_", str(value)).lstrip("_-"))
    if match is None or "/" in str(value):
        return Outcome(key, value, problem=f"must be {declared.expected}")
    prefix = match[0]
    note = "" if prefix == value else f"folders have names of letters, digits, _ and - here, so {prefix}_<time>"
    return Outcome(key, value, {declared.path: prefix}, note)


def _convert_color(key: str, value: Any) -> Outcome:
    number = list_keys()["camera.width"].parse_text(_to_number(str(value)))
    if type(number) is not int or not 0 <= number <= 255:
        return Outcome(key, value, problem="must be a whole number 0..255")
    return Outcome(key, number)


COLORS = ("text_color_r", "text_color_g", "text_color_b")

SPECIAL: dict[str, Callable[[str, Any], Outcome]] = {
    "preview_preset": _convert_preset("mjpeg_server.width"),
    "disable_mp4_conversion": _convert_mp4,
    "session_prefix": _convert_prefix,
    "logging.level": _convert_level,
    **dict.fromkeys(COLORS, _convert_color),
}
"""Keys whose value may be another one here."""


def _with_text_color(outcomes: list[Outcome]) -> list[Outcome]:
    """Joins the three keys of the text's colour into recorder.overlay.text_color; a missing one is 255, the default."""
    given = {outcome.key: outcome for outcome in outcomes if outcome.key in COLORS and not outcome.note}
    if not given or any(outcome.problem for outcome in given.values()):
        return outcomes
    color = [given[key].value if key in given else 255 for key in COLORS]
    became = {"recorder.overlay.text_color": color}
    note = f"the three together are red, green, blue = {to_toml(color)}"
    return [
        Outcome(outcome.key, outcome.value, became, note) if outcome in given.values() else outcome
        for outcome in outcomes
    ]
