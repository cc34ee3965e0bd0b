"""The address of one camera at the RTSP server, and its form without secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote, urlsplit

from shmcam.config.errors import explain_unknown_camera
from shmcam.rtsp_publish.settings import RtspPublishSettings

PLACE = "{camera}"


class CannotPublish(ValueError):
    """Settings that a person must change."""


def addresses_of(own: RtspPublishSettings, known: Sequence[str]) -> Mapping[str, str]:
    """Returns camera → address. `known`: the cameras of the configuration. Raises: CannotPublish."""
    cameras = own.cameras or tuple(known)
    if strange := [name for name in cameras if name not in known]:
        raise CannotPublish(f"rtsp_publish.cameras: {explain_unknown_camera(strange[0], known)}")
    if len(cameras) > 1 and PLACE not in own.url:
        raise CannotPublish(f"rtsp_publish.url must have {PLACE} in it, as there are {len(cameras)} cameras")
    return {name: own.url.replace(PLACE, quote(name)) for name in cameras}


def to_shown(url: str) -> str:
    """Returns an address as it may be shown: without name, password and query."""
    return re.sub(r"//[^/]*@", "//", url).partition("?")[0]


def to_plain(url: str) -> str:
    """Returns an address as the server reads it: without name and password."""
    return re.sub(r"//[^/?#]*@", "//", url)


def list_secrets(url: str) -> list[str]:
    """Returns the texts of an address that no log may have."""
    password = urlsplit(url).password or ""
    return [text for text in (url, password, unquote(password)) if text]
