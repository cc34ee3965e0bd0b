"""Keeps run/programs/*.conf in line with config.toml while it is edited: further cameras, optional programs."""

from __future__ import annotations

import logging
from pathlib import Path

from shmcam.config.settings import Settings, SettingsError
from shmcam.runtime.supervisord_programs import TEMPLATE, is_home, write_programs

log = logging.getLogger(__name__)


class ProgramFiles:
    """Rewrites the files that a change of config.toml concerns, and logs which command comes next."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.path
        self._stamp: tuple[int, int] | None = None

    def refresh(self) -> None:
        """Acts on an edit, known by the file's time stamp; a wrong file is reported and left as it is.

        The first call looks, too: a new release may know programs that the last one did not.
        """
        stamp = _stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            settings = Settings.load(self._path)
            conf = TEMPLATE if is_home(settings) else settings.paths.run / "supervisord.conf"
            if write_programs(settings, conf):
                log.info("programs changed with config.toml; now type: shmcam update")
        except (SettingsError, OSError) as problem:
            log.warning("config.toml was edited and is not usable now: %s", problem)


def _stamp_of(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_mtime_ns, status.st_ino
