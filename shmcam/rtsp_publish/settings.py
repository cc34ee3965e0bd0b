"""The table [rtsp_publish] of config.toml: where live H.264 is published to."""

from __future__ import annotations

from typing import Annotated

from shmcam.config.optional_program import OptionalProgram
from shmcam.config.schema import Section, setting


class RtspPublishSettings(OptionalProgram, frozen=True):
    """[rtsp_publish]: live H.264 for an RTSP server, over TCP."""

    url: Annotated[
        str,
        setting(
            "where to, with name and password if it wants them: rtsp://name:password@192.168.1.9:8554/{camera}; the "
            "camera's name takes the place of {camera}",
            pattern=r"^(rtsps?://[^\s/]+/[^\s#]*)?\Z",
            form="rtsp://HOST:8554/{camera}",
            max_length=500,
            secret=True,
        ),
    ] = ""
    cameras: Annotated[tuple[str, ...], setting("which cameras; empty: all")] = ()

    def __post_init__(self) -> None:
        """Refuses to run without an address. Raises: ValueError."""
        if self.enable and not self.url:
            raise ValueError("enable = true needs url, such as rtsp://192.168.1.9:8554/{camera}")


TABLES: dict[str, type[Section]] = {"rtsp_publish": RtspPublishSettings}
