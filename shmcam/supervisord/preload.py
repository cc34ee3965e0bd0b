"""Imports what the programs of supervisord.conf import, so that they share its memory and start at once."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import site
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from shmcam.config.settings import LoggingSettings, Settings, SettingsError
from shmcam.control.messages import MESSAGES
from shmcam.runtime.startup import find_config
from shmcam.supervisord.memory import ALLOCATOR, prepare_for_forks

OURS = frozenset(("shm_ring", "shmcam", "capture", "analyzer", "exporter", "recorder", "streamer"))
"""The packages whose modules may run in a forked process."""

LIMITS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    **{variable: str(value) for _, variable, value in ALLOCATOR},
}
"""Read by libraries when they are loaded: numpy's and OpenCV's thread pools cost 12 MB and do not survive a fork."""


def find_module(arguments: Sequence[str]) -> str:
    """Returns the module of ours that a command line runs; "" if it runs anything else.

    Only `PYTHON -m MODULE …` with this interpreter of this virtual environment: other options would be lost.
    """
    if len(arguments) < 3 or arguments[1] != "-m" or arguments[2].partition(".")[0] not in OURS:
        return ""
    theirs, own = Path(arguments[0]), Path(sys.executable)
    same = theirs.parent.resolve() == own.parent.resolve() and theirs.resolve() == own.resolve()
    return arguments[2] if same else ""


def preload(commands: Iterable[Sequence[str]]) -> LoadedFiles:
    """Imports what these command lines will import. Returns: the files of all loaded modules.

    A module that cannot be imported is left to its program, which says so in its log.
    """
    gc.disable()  # a collection would only make holes in pages that are to be shared
    with _limit_libraries():
        for module in dict.fromkeys(filter(None, map(find_module, commands))):
            with suppress(Exception):
                importlib.import_module(f"{module}.__main__")
    with suppress(SettingsError):
        settings = Settings.load(find_config())  # the programs find it checked, unless the file changes
        logging.getLogger().setLevel(settings.table(LoggingSettings).level)
    for message in MESSAGES.values():  # msgspec looks at each class once, at its first value
        with suppress(msgspec.ValidationError):
            msgspec.convert({}, message)
    loaded = LoadedFiles()
    prepare_for_forks()
    gc.enable()
    return loaded


class LoadedFiles:
    """The files of the modules that are loaded now, the folders of packages, and when they were changed last."""

    def __init__(self) -> None:
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
        files |= set(site.getsitepackages())  # pip changes these; which packages there are is loaded, too
        # in one block: reading a hundred strings of their modules would copy a hundred pages in each forked child
        self._paths = "\0".join(map(str, files))
        self._stamps = array("q", map(_stamp_of, self._paths.split("\0")))

    def find_changed(self) -> str:
        """Returns a file that was changed since then; "" if none was."""
        stamped = zip(self._paths.split("\0"), self._stamps, strict=True)
        return next((path for path, stamp in stamped if _stamp_of(path) != stamp), "")


def _stamp_of(path: str) -> int:
    """Returns the time of a file's last change in ns; 0 if it is gone."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - hundreds of them before each start
    except OSError:
        return 0


@contextmanager
def _limit_libraries() -> Iterator[None]:
    """Sets LIMITS for the time of the imports; the programs of others that supervisord starts do not get them."""
    added = {name: value for name, value in LIMITS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
