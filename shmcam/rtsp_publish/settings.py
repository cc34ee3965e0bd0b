"""The table [rtsp_publish] of config.toml: where live H.264 is published to."""

from typing import Annotated
from urllib.parse import urlsplit

from shmcam.config.optional_program import OptionalProgram
from shmcam.config.schema import Section, setting


class RtspPublishSettings(OptionalProgram, frozen=True):
    """[rtsp_publish]: live H.264 for an RTSP server, over TCP."""

    url: Annotated[
        str,
        setting(
            "where to, with name and password if it wants them: rtsp://name:password@192.168.1.9:8554/{camera}; the "
            "camera's name takes the place of {camera}; / ? # in a password as %2F %3F %23",
            pattern=r"^(rtsps?://[^\s/?#]+/[^\s?#@]*(\?[^\s#]*)?)?\Z",
            form="rtsp://HOST:8554/{camera}",
            max_length=500,
            secret=True,
        ),
    ] = ""
    cameras: Annotated[tuple[str, ...], setting("which cameras; empty: all")] = ()

    def __post_init__(self) -> None:
        """Refuses to run without an address, and one whose host or port cannot be. Raises: ValueError."""
        if self.enable and not self.url:
            raise ValueError("enable = true needs url, such as rtsp://192.168.1.9:8554/{camera}")
        if self.url and not _has_place(self.url):
            raise ValueError("url has no host, or no port from 1 to 65535; write / ? # in a password as %2F %3F %23")


def _has_place(url: str) -> bool:
    """Returns whether host and port of an address can be."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.hostname.encode("idna")) and parts.port != 0
    except ValueError:  # UnicodeError, too: a part of the host's name is empty or too long
        return False


TABLES: dict[str, type[Section]] = {"rtsp_publish": RtspPublishSettings}
