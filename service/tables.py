"""The tables of config.toml that belong to no single process: [paths] and [logging]."""

from __future__ import annotations

from typing import Annotated, Literal

from service.schema import Section, setting


class PathSettings(Section, frozen=True):
    """[paths]: where things live, relative to the folder of config.toml."""

    run: Annotated[str, setting("sockets, pid and lock files; a tmpfs such as /run/shmcam spares the SD card")] = "run"
    logs: Annotated[str, setting("one log per process, at most 3 x 5 MB each and 50 MB together")] = "logs"
    recordings: Annotated[str, setting("sessions and rolling clips")] = "recordings"
    archives: Annotated[str, setting("what `archive NAME` collected")] = "archives"
    library: Annotated[str, setting("catalogue of everything saved; rebuilt from the files if lost")] = (
        "library.sqlite3"
    )


class LoggingSettings(Section, frozen=True):
    """[logging]."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], setting("least severe line that is kept", apply="live")
    ] = "INFO"
    libcamera: Annotated[
        Literal["DEBUG", "INFO", "WARN", "ERROR", "FATAL"], setting("LIBCAMERA_LOG_LEVELS of the capture process")
    ] = "WARN"
    max_bytes: Annotated[int, setting("size of one log file", unit="bytes", ge=10_000, le=100_000_000)] = 5_000_000
    files: Annotated[int, setting("log files kept per process", ge=1, le=20)] = 3
    folder_bytes: Annotated[
        int,
        setting("size of all logs together: the oldest rotated ones go first", unit="bytes", ge=100_000),
    ] = 50_000_000


TABLES: dict[str, type[Section]] = {"paths": PathSettings, "logging": LoggingSettings}
