"""The supervisord programs of a configuration: supervisord.conf as shipped, and one file per further camera.

Pure text in, text out; `control/running.py` writes the results.
"""

from __future__ import annotations

import configparser
import io
import sys
from collections.abc import Mapping
from pathlib import Path

from service.settings import Settings

PER_CAMERA = ("capture", "analyzer", "recorder")
"""Programs of which each camera has its own; all others serve every camera (design.md §2)."""

HOME = Path(__file__).resolve().parent.parent
TEMPLATE = HOME / "supervisord.conf"
PROGRAMS = "programs"
"""Folder under [paths] run that supervisord.conf includes."""


def is_home(settings: Settings) -> bool:
    """Whether the shipped supervisord.conf serves this configuration as it stands."""
    paths = settings.paths
    return (
        settings.path == HOME / "config.toml"
        and paths.run == HOME / "run"
        and paths.logs == HOME / "logs"
        and (HOME / ".venv/bin/python").exists()
    )


def supervisord_conf(settings: Settings, template: str) -> str:
    """The shipped file with this configuration's places and this interpreter written into it."""
    places: dict[str, str] = {
        "%(here)s/.venv/bin/python": sys.executable,
        "%(here)s/config.toml": str(settings.path),
        "%(here)s/run": str(settings.paths.run),
        "%(here)s/logs": str(settings.paths.logs),
        "directory=%(here)s": f"directory={settings.folder}",
    }
    for shipped, own in places.items():
        template = template.replace(shipped, own.replace("%", "%%") if shipped != "directory" else own)
    return template


def camera_programs(settings: Settings, conf: str, here: str) -> Mapping[str, str]:
    """File name → text for each camera but the first: a group of its own capture, analyzer and recorder.

    `conf` is the supervisord.conf in use, so that what its owner changed in [program:capture] holds for every
    camera; `here` is the folder it stands in (an included file would expand %(here)s to its own).
    """
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",), strict=False)
    parser.read_string(conf)
    files = {}
    for camera in settings.cameras[1:]:
        out = configparser.RawConfigParser()
        members = {role: f"{role}-{camera}" for role in PER_CAMERA if parser.has_section(f"program:{role}")}
        out[f"group:{camera}"] = {"programs": ",".join(members.values()), "priority": "25"}
        for role, name in members.items():
            options = dict(parser.items(f"program:{role}"))
            options["command"] += f" --camera {camera}"
            out[f"program:{name}"] = {key: value.replace("%(here)s", here) for key, value in options.items()}
        text = io.StringIO()
        out.write(text, space_around_delimiters=False)
        files[f"{camera}.conf"] = text.getvalue()
    return files
