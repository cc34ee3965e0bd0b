"""Finds out whether a remote is a folder of this machine, and whether a copy there is one.

A copy that is the file itself, or lies on the same disk since a mount is away, must never count as uploaded: with
`library.delete_only_uploaded` the file would then be deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

Sections = Mapping[str, Mapping[str, str]]
"""rclone's configuration: the options of each remote by name."""

STEPS_MAX = 10
"""Remotes behind remotes that are followed."""


def find_local_folder(remote: str, sections: Sections) -> Path | None:
    """Returns the folder of this machine where a remote writes; None: it is elsewhere, or not known to be here.

    Followed are paths, remotes of type local, and the option `remote` of alias, crypt and the like. A path is made
    absolute as rclone does it. What encrypts names lies somewhere below the folder that is returned.
    """
    for _ in range(STEPS_MAX):
        head, colon, rest = remote.removeprefix(":").partition(":")
        if not colon or "/" in head:
            return _to_absolute(remote)
        kind = head.partition(",")[0] if remote.startswith(":") else _option_of(head, "type", sections)
        if kind == "local":
            return _to_absolute(rest)
        if not (base := _option_of(head, "remote", sections)):
            return None
        behind = "" if base.endswith((":", "/")) else "/"
        remote = f"{base}{behind}{rest.lstrip('/')}" if kind == "alias" else base
    return None


def find_problem(folder: Path, sources: Mapping[str, Path]) -> str:
    """Returns why a folder of this machine may not have the copies; empty: it may.

    `sources`: the folders whose files are copied, without links, by the name of the folder below `folder` that has
    their copies.
    """
    places = [Path(os.path.realpath(place)) for place in (folder, *(folder / word for word in sources))]
    for source in sources.values():
        if any(place.is_relative_to(source) or source.is_relative_to(place) for place in places):
            return f"remote is {folder}: no copy, as {source} is the same folder, in it or around it"
    try:
        folder.stat()
        for source in sources.values():
            if any(_device_of(place) == _device_of(source) for place in places):
                return f"remote is {folder}: no copy, as {source} is on the same disk; is the other disk mounted?"
    except OSError as error:
        return f"remote is {folder}: {(error.strerror or str(error)).lower()}; mount its disk, or make the folder there"
    return ""


def _to_absolute(path: str) -> Path:
    return Path(os.path.normpath(Path.cwd() / path))


def _option_of(name: str, option: str, sections: Sections) -> str:
    """Returns an option of a remote; as for rclone, the environment goes before the file."""
    variable = f"RCLONE_CONFIG_{name}_{option}".upper().replace("-", "_")
    return os.environ.get(variable) or sections.get(name, {}).get(option, "")


def _device_of(path: Path) -> int:
    """Returns the device of a folder, or of the one where it would be made. Raises: OSError."""
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
