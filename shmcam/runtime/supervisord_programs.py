"""Makes the supervisord programs of a configuration: supervisord.conf, a file per further camera and optional program.

Only `write_programs` touches the disk; the other functions make text from text.
"""

from __future__ import annotations

import configparser
import glob
import io
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from shmcam.config.optional_program import list_enabled, optional_programs
from shmcam.config.settings import PER_CAMERA, Settings
from shmcam.runtime.atomic_files import is_regular, open_atomic, read_state

MODEL = "exporter"
"""The program of supervisord.conf whose options an optional program gets, but for the module in its command."""

CHECKOUT = Path(__file__).resolve().parents[2]
INSTALLED = Path(sys.prefix) / "share/shmcam"
HOME = CHECKOUT if (CHECKOUT / "supervisord.conf").exists() else INSTALLED
"""The folder of the shipped config.toml and supervisord.conf: the clone, or where pip put them."""
TEMPLATE = HOME / "supervisord.conf"
SHIPPED = HOME / "config.toml"
PLAIN_PATH = re.compile(r"[\w./+@-]+")
"""Paths that mean the same everywhere in supervisord.conf as they stand."""
EXPANDED_TWICE = ("environment=", "stdout_logfile=", "stderr_logfile=")
NOTHING = "%(here).0s"
"""Expands to nothing, after the file was parsed: parts a space from what follows, or keeps it at the end of a line."""
PROGRAMS = "programs"
"""The folder in [paths] run that supervisord.conf includes."""


def is_home(settings: Settings) -> bool:
    """Returns True if the shipped supervisord.conf fits this configuration without a change."""
    paths = settings.paths
    return (
        settings.path == SHIPPED
        and paths.run == HOME / "run"
        and paths.logs == HOME / "logs"
        and (HOME / ".venv/bin/python").exists()
        and PLAIN_PATH.fullmatch(str(HOME)) is not None
    )


def render_supervisord_conf(settings: Settings, template: str, logs: Path | None = None) -> str:
    """Returns the shipped file with this configuration's paths and this interpreter in it.

    `logs`: the folder of supervisord's own logs, if it is not that of [paths].
    """
    places: dict[str, str] = {
        "%(here)s/.venv/bin/python": shlex.quote(sys.executable),
        'SHMCAM_CONFIG="%(here)s/config.toml",': _assign_config(str(settings.path)),
        f"files=%(here)s/run/{PROGRAMS}": f"files={_to_glob(settings.paths.run / PROGRAMS)}",
        "%(here)s/run": str(settings.paths.run),
        "%(here)s/logs": str(logs or settings.paths.logs),
        "directory=%(here)s": f"directory={settings.folder}",
    }
    return "\n".join(_fill_in(line, places) for line in template.split("\n"))


def _assign_config(path: str) -> str:
    """Returns the assignment of SHMCAM_CONFIG; none for a path with both quotes: the programs inherit the variable."""
    quote = next((quote for quote in "\"'" if quote not in path), "")
    return f"SHMCAM_CONFIG={quote}{path}{quote}," if quote else ""


def _fill_in(line: str, places: Mapping[str, str]) -> str:
    """Returns one line with our paths, escaped as often as supervisord expands it (its options.py: some twice).

    A space before ; or # would begin a comment, one at the end of a line would be lost, and a folder may be called
    %(here)s, which supervisord replaces before it expands.
    """
    percent = "%%%%" if line.startswith(EXPANDED_TWICE) else "%%"

    def escape(path: str) -> str:
        path = re.sub(r"%(\(here\)s)?", lambda found: percent + (NOTHING + found[1] if found[1] else ""), path)
        return re.sub(r"(?<=\s)(?=[;#]|$)", lambda _: NOTHING, path)

    return re.sub("|".join(map(re.escape, places)), lambda found: escape(places[found[0]]), line)


def _to_glob(folder: Path) -> str:
    """Returns a folder for [include] files=, which is split at spaces and then globbed: a space becomes `?`."""
    return "".join("?" if c.isspace() else c for c in glob.escape(str(folder)))


def render_programs(settings: Settings, conf: str, here: str) -> Mapping[str, str]:
    """Returns file name → text for each camera but the first, and for each optional program that is enabled.

    A camera has a group of its own capture, analyzer and recorder; an optional program runs as MODEL does.
    `conf`: the text of the supervisord.conf in use, so that a change in its [program:capture] holds for every camera;
    `here`: its folder (an included file would expand %(here)s to its own).
    """
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(conf)
    files = {}
    for name in list_enabled(settings) if parser.has_section(f"program:{MODEL}") else []:
        package = optional_programs()[name].__module__.rpartition(".")[0]
        options = dict(parser.items(f"program:{MODEL}"))
        options.pop("autostart", None)  # `enable` says it
        command, replaced = re.subn(rf"-m {MODEL}(?=\s|$)", f"-m {package}", options["command"])
        options["command"] = command if replaced else _make_command(package)
        files[f"{name}.conf"] = _render({f"program:{name}": options}, here)
    for camera in settings.cameras[1:]:
        members = {role: f"{role}-{camera}" for role in PER_CAMERA if parser.has_section(f"program:{role}")}
        sections = {f"group:{camera}": {"programs": ",".join(members.values()), "priority": "25"}}
        for role, name in members.items():
            options = dict(parser.items(f"program:{role}"))
            options["command"] += f" --camera {camera}"
            sections[f"program:{name}"] = options
        files[f"{camera}.conf"] = _render(sections, here)
    return files


def _make_command(package: str) -> str:
    """Returns the command of a program as the shipped file has it, for where MODEL's own is a script around it."""
    return _fill_in("PYTHON -m ", {"PYTHON": shlex.quote(sys.executable)}) + package


def _render(sections: Mapping[str, Mapping[str, str]], here: str) -> str:
    """Returns the text of an included file."""
    out = configparser.RawConfigParser()
    for name, options in sections.items():
        out[name] = {key: value.replace("%(here)s", here) for key, value in options.items()}
    text = io.StringIO()
    out.write(text, space_around_delimiters=False)
    return text.getvalue()


def write_programs(settings: Settings, conf: Path) -> bool:
    """Brings run/programs/ in line with [cameras.…] and with what is enabled. Returns: True if anything changed."""
    folder = settings.paths.run / PROGRAMS
    wanted = render_programs(settings, conf.read_text(), str(conf.parent))
    present = {path.name: read_state(path).decode() for path in folder.glob("*.conf") if is_regular(path)}
    for name in present.keys() - wanted.keys():
        (folder / name).unlink()
    for name, text in wanted.items():
        if present.get(name) != text:
            with open_atomic(folder / name, replace=True) as file:
                file.write(text.encode())
    return dict(wanted) != present
