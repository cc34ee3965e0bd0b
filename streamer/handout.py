"""Which saved files are handed out, and as what: plain files inside our folders, by row number, of known types."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from library import Entry, LibraryError, NoSuchEntry
from streamer.context import Context
from streamer.endpoint import Refused

TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tiff": "image/tiff",
    ".mp4": "video/mp4",
    ".h264": "video/h264",
    ".npy": "application/octet-stream",
    ".csv": "text/csv",
    ".json": "application/json",
}
"""What is handed out, and as what; anything else in our folders is not."""

_UNQUOTABLE = re.compile(r'[^ -~]|["\\]')
"""What cannot stand in a quoted file name of a header (RFC 6266); rebuilt rows may have names that are not ours."""


@contextmanager
def reading() -> Iterator[None]:
    """The library's errors as answers. Raises: Refused."""
    try:
        yield
    except NoSuchEntry as problem:
        raise Refused(404, str(problem)) from None
    except (sqlite3.Error, LibraryError, OSError) as problem:  # its disk is away or full, another process holds it
        raise Refused(503, f"the library cannot be read now: {problem}"[:300]) from None


async def handed_out(context: Context, entry: Entry) -> tuple[Path, str]:
    """Where a file is, and its type, if it may be fetched. Raises: Refused."""
    if not context.hands_out:
        raise Refused(403, "http.downloads is off")
    media = TYPES.get(entry.path.suffix.lower())
    if media is None or not await asyncio.to_thread(_ours, context, entry.path):
        raise Refused(404, f"{entry.path.name} cannot be fetched")
    return entry.path, media


def disposition(name: str, media: str) -> str:
    """The Content-Disposition of a file: shown where browsers can show it, saved otherwise."""
    how = "inline" if media.startswith(("image/", "video/mp4")) else "attachment"
    return f'{how}; filename="{_UNQUOTABLE.sub("_", name)}"'


def _ours(context: Context, path: Path) -> bool:
    """Whether a path is a plain file inside our folders, whatever links somebody may have planted."""
    paths = context.settings.paths
    folders = [folder.resolve() for folder in (paths.captures, paths.recordings, paths.archives)]
    real = path.resolve()
    return not path.is_symlink() and real.is_file() and any(real.is_relative_to(folder) for folder in folders)
