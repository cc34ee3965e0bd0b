"""REST: what has been saved. Rows come from the catalogue; changes go to their owner, the exporter, through the hub.

A file is named by its row's number, never by a path; what lies outside the folders of [paths] is not handed out.

Which saved files are handed out, and as what: plain files inside our folders, by row number, of known types.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web

from shmcam.config.settings import LABEL
from shmcam.control import messages as c
from shmcam.library import Entry, LibraryError, NoSuchEntry
from shmcam.library.instants import instant_ns
from shmcam.runtime.clock import iso
from streamer.api.endpoint import Answer, Call, CommandRefused, Endpoint, Nothing, answer_of
from streamer.api.thumbnails import thumbnail
from streamer.http.context import Context
from streamer.http.errors import error_response

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
        raise CommandRefused(404, str(problem)) from None
    except (sqlite3.Error, LibraryError, OSError) as problem:  # its disk is away or full, another process holds it
        raise CommandRefused(503, f"the library cannot be read now: {problem}"[:300]) from None


async def handed_out(context: Context, entry: Entry) -> tuple[Path, str]:
    """Where a file is, and its type, if it may be fetched. Raises: Refused."""
    if not context.is_download_allowed:
        raise CommandRefused(403, "http.downloads is off")
    media = TYPES.get(entry.path.suffix.lower())
    if media is None or not await asyncio.to_thread(_ours, context, entry.path):
        raise CommandRefused(404, f"{entry.path.name} cannot be fetched")
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


class OfRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which row."""

    id: Annotated[int, msgspec.Meta(ge=1, le=2**53, description="row number as listed")]


class LibraryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rows."""

    group: Annotated[str, msgspec.Meta(pattern="^(|clips|pictures|films|archives)$")] = ""
    camera: Annotated[str, msgspec.Meta(pattern=rf"^({LABEL})?$")] = ""
    since: Annotated[str, msgspec.Meta(max_length=40, description="ISO 8601, or an age such as 2h")] = ""
    until: Annotated[str, msgspec.Meta(max_length=40)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100
    before: Annotated[int, msgspec.Meta(ge=0, le=2**53, description="older than this row: the next page")] = 0


class Row(msgspec.Struct, frozen=True):
    """One saved file."""

    id: int
    kind: str
    group: str
    """pictures, clips, films or archives."""
    camera: str
    name: str
    """File name; the path is the service's own business."""
    started_utc: str
    duration_s: float
    bytes: int
    frames: int
    drops: int
    first_frame: int
    last_frame: int
    trigger: str
    label: str
    protected: bool
    media: str
    """Type of the file; empty: cannot be fetched."""


class Rows(msgspec.Struct, frozen=True):
    """Rows, newest first, and what there is in all."""

    rows: list[Row]
    totals: dict[str, Total]


class Total(msgspec.Struct, frozen=True):
    """All files of one group."""

    files: int
    bytes: int


def row_of(entry: Entry) -> Row:
    """One entry as the API tells it."""
    fields = dataclasses.asdict(entry)
    kept = {name: fields[name] for name in Row.__struct_fields__ if name in fields}
    return Row(
        **kept,
        group=entry.group,
        name=entry.path.name,
        started_utc=iso(entry.started_utc_ns),
        media=TYPES.get(entry.path.suffix.lower(), ""),
    )


async def _rows(call: Call) -> Rows:
    return await asyncio.to_thread(_found, call.context, call.query)


def _found(context: Context, wish: LibraryQuery) -> Rows:
    now = time.time_ns()
    catalogue = context.catalogue
    try:
        since, until = instant_ns(wish.since, now), instant_ns(wish.until, now)
    except ValueError as problem:
        raise CommandRefused(400, str(problem)) from None
    cameras = [wish.camera] if wish.camera else []
    with reading():
        found = catalogue.find(
            group=wish.group,
            cameras=cameras,
            since_utc_ns=since,
            until_utc_ns=until,
            before=wish.before or None,
            limit=wish.limit,
        )
        totals = {name: Total(*counted) for name, counted in catalogue.totals().items()}
    return Rows([row_of(entry) for entry in found], totals)


async def _row(call: Call) -> Row:
    return row_of(await _entry(call))


async def _file(call: Call) -> web.StreamResponse:
    """The file itself; ranges, If-Modified-Since and ETag are aiohttp's."""
    entry = await _entry(call)
    path, media = await handed_out(call.context, entry)
    return web.FileResponse(
        path, headers={"Content-Type": media, "Content-Disposition": disposition(entry.path.name, media)}
    )


async def _thumbnail(call: Call) -> web.StreamResponse:
    entry = await _entry(call)
    path, media = await handed_out(call.context, entry)
    jpeg = await thumbnail(path, media, entry.bytes)
    if jpeg is None:
        return error_response(404, f"no picture can be made of {entry.path.name}")
    # A file never changes once it has its row: the row's number may be reused only after a rebuild, so ask again daily.
    return web.Response(body=jpeg, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})


async def _entry(call: Call) -> Entry:
    with reading():
        return await asyncio.to_thread(call.context.catalogue.get, call.place.id)


def _changing(word: str, command: type[c.Protect | c.Unprotect | c.Delete], summary: str) -> Endpoint:
    async def run(call: Call) -> Answer:
        await _entry(call)
        return answer_of(await call.context.hub.ask(command(number=call.place.id), 10.0))

    return Endpoint("POST", f"/library/{{id}}/{word}", "library", summary, run, Answer, place=OfRow, body=Nothing)


def endpoints() -> list[Endpoint]:
    """All of this topic."""
    return [
        Endpoint(
            "GET", "/library", "library", "List what has been saved, newest first", _rows, Rows, query=LibraryQuery
        ),
        Endpoint("GET", "/library/{id}", "library", "Show one row", _row, Row, place=OfRow),
        Endpoint(
            "GET", "/library/{id}/file", "library", "Fetch the file, or a range of it", _file, None,
            place=OfRow, media=tuple(dict.fromkeys(TYPES.values())), other=(206, 304, 416),
        ),
        Endpoint(
            "GET", "/library/{id}/thumbnail", "library", "A small picture of it", _thumbnail, None,
            place=OfRow, media=("image/jpeg",),
        ),
        _changing("protect", c.Protect, "Keep it for ever"),
        _changing("unprotect", c.Unprotect, "Give it back to retention"),
        _changing("delete", c.Delete, "Delete the file and its row"),
    ]  # fmt: skip
