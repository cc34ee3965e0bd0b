"""Makes a program a child of supervisord: settings, log, stop, startup.

with startup("analyzer") as process:
    night = process.settings.table(NightSettings, process.camera)
    while not process.stop.wait(1.0): ...
"""

from __future__ import annotations

from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.runtime.startup import Process, startup
from shmcam.runtime.stop import Stop

__all__ = ["EXIT_CONFIG", "Process", "Settings", "SettingsError", "Stop", "startup"]
