"""The result of one try to deliver an event, and the file that goes with it."""

from __future__ import annotations

import mimetypes
import stat
from pathlib import Path
from typing import Literal

from msgspec import Struct

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
CLIPS = frozenset({".mp4", ".mkv", ".h264"})


class Attempt(Struct, frozen=True):
    """The result of one try."""

    state: Literal["done", "failed", "refused"]
    """refused: trying again cannot help, the event itself is at fault."""
    text: str
    """In words, without secrets."""
    retry_after_s: float = 0.0
    """The time that the server asked for before the next try."""


class Attachment(Struct, frozen=True):
    """A file that goes with an event: bytes in memory, or a path."""

    name: str
    content: bytes | Path
    size_bytes: int

    @property
    def media_type(self) -> str:
        """Its MIME type."""
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"


def find_attachment(kind: str, path: str, picture: bytes | None) -> Attachment | None:
    """Returns the file of an event: `path` if it is of this kind, else the picture taken when the event came.

    `kind`: none, picture or clip, as in `attach`. None: there is no such file (any more).
    """
    file = Path(path) if path else None
    if file and file.suffix.lower() in {"picture": PICTURES, "clip": CLIPS}.get(kind, frozenset()):
        try:
            status = file.stat()
        except OSError:  # deleted since
            return None
        return Attachment(file.name, file, status.st_size) if stat.S_ISREG(status.st_mode) else None
    return Attachment("picture.jpg", picture, len(picture)) if kind == "picture" and picture else None
