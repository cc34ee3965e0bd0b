"""The first camera as a group of programs, `supervisorctl restart cam0:*`, beside the names that people type.

Its programs are `capture`, `analyzer` and `recorder`, each in a group of its own, as supervisord has it; those of a
further camera are in one group of its name. So that one command serves every camera, the name of the first one finds
its programs, too. `status` lists a program once, under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from shmcam.config.settings import PER_CAMERA, Settings, SettingsError
from shmcam.runtime.startup import find_config


class ProcessGroups(dict[str, Any]):
    """supervisord's groups by name; `get`, with which it looks up what was typed, also finds the first camera."""

    def __init__(self, groups: dict[str, Any], first_camera: str) -> None:
        super().__init__(groups)
        self._first_camera = first_camera

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a group, or what looks up processes as a group does."""
        if name in self or name != self._first_camera:
            return super().get(name, default)
        processes = {role: self[role].processes[role] for role in PER_CAMERA if role in self}
        return SimpleNamespace(config=SimpleNamespace(name=name), processes=processes)


def find_first_camera(environ: Mapping[str, str]) -> str:
    """Returns the first camera of the config.toml that the programs get; "" if it cannot be read."""
    try:
        return Settings.load(environ.get("SHMCAM_CONFIG") or find_config()).cameras[0]
    except SettingsError:
        return ""
