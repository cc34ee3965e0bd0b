"""The endpoints of the saved files: their rows, downloads and thumbnails, and the changes of one row.

Rows come from the catalogue; changes go to their owner, the exporter, through the hub. A file is named by the number of
its row, never by a path. Only plain files of known types inside the folders of [paths] are sent.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec.structs import asdict

from shmcam.config.settings import LABEL
from shmcam.control import messages as c
from shmcam.library import Entry, LibraryError, NoSuchEntry
from shmcam.library.query import ORDERS, Query, find_next_cursor
from shmcam.library.time_parsing import parse_instant_ns
from shmcam.library.timeline import Timeline, TimelineSpan
from shmcam.runtime.atomic_files import PART
from shmcam.runtime.clock import to_iso
from streamer.api.actions import OfCamera
from streamer.api.endpoint import Answer, Call, CommandRefused, Endpoint, Nothing, answer_of
from streamer.api.thumbnails import get_thumbnail
from streamer.api.zip_download import send_zip
from streamer.http.context import Context, access_of, camera_of
from streamer.http.errors import error_response
from streamer.http.file_response import FileResponse

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tiff": "image/tiff",
    ".mp4": "video/mp4",
    ".h264": "video/h264",
    ".npy": "application/octet-stream",
    ".csv": "text/csv",
    ".json": "application/json",
}
"""The media type for each suffix; a file with any other suffix is not sent."""

_UNQUOTABLE = re.compile(r'[^ -~]|["\\]')
"""Characters that cannot stand in a quoted file name of a header (RFC 6266); rebuilt rows may have foreign names."""


class OfRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The row in the path."""

    id: Annotated[int, msgspec.Meta(ge=1, le=2**53, description="row number as listed")]


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows to list."""  # the class is called as its schema in /openapi.json

    text: Annotated[str, msgspec.Meta(max_length=100, description="words in kind, camera, trigger, label, name")] = ""
    group: Annotated[str, msgspec.Meta(pattern="^(|clips|pictures|films|archives)$")] = ""
    kind: Annotated[str, msgspec.Meta(max_length=32, description="picture, stack, clip …")] = ""
    camera: Annotated[str, msgspec.Meta(pattern=rf"^({LABEL})?$")] = ""
    label: Annotated[str, msgspec.Meta(max_length=64, description="the whole label")] = ""
    trigger: Annotated[str, msgspec.Meta(max_length=32, description="its event or command: motion, save …")] = ""
    since: Annotated[str, msgspec.Meta(max_length=40, description="ISO 8601, or an age such as 2h")] = ""
    until: Annotated[str, msgspec.Meta(max_length=40)] = ""
    min_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    max_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53, description="0: no limit")] = 0
    order: Annotated[
        str,
        msgspec.Meta(
            pattern=f"^({'|'.join(ORDERS)})$",
            description="newest, oldest: by adding; latest, earliest: by time",
        ),
    ] = "newest"
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100
    cursor: Annotated[str, msgspec.Meta(max_length=40, description="`next` of the page before")] = ""
    before: Annotated[int, msgspec.Meta(ge=0, le=2**53, description="added before this row")] = 0


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows to put into a zip."""

    ids: Annotated[str, msgspec.Meta(pattern=r"^\d{1,16}(,\d{1,16}){0,199}$", description="row numbers: 7,12,13")]


class TimelineWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The span of a timeline."""

    camera: Annotated[str, msgspec.Meta(pattern=rf"^({LABEL})?$", description="empty: all")] = ""
    since: Annotated[str, msgspec.Meta(max_length=40, description="empty: a day before `until`")] = ""
    until: Annotated[str, msgspec.Meta(max_length=40, description="empty: now")] = ""
    step_s: Annotated[int, msgspec.Meta(ge=1, le=86_400, description="length of a cell, s")] = 60


class Row(msgspec.Struct, frozen=True):
    """One saved file."""

    id: int
    kind: str
    group: str
    """pictures, clips, films or archives."""
    camera: str
    name: str
    """File name; the path is not published."""
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
    uploaded: str
    """The place of a copy elsewhere, such as nas:shmcam; empty: none."""
    media: str
    """Media type of the file; empty: cannot be fetched."""


class Rows(msgspec.Struct, frozen=True):
    """One page of rows, and the totals of all files."""

    rows: list[Row]
    totals: dict[str, Total]
    found: Total
    """All files that the query finds, on all pages."""
    next: str
    """The cursor of the next page; empty after the last."""


class Total(msgspec.Struct, frozen=True):
    """All files of one group."""

    files: int
    bytes: int


def row_of(entry: Entry) -> Row:
    """Returns an entry of the catalogue as a row."""
    fields = asdict(entry)
    own = {name: fields[name] for name in Row.__struct_fields__ if name in fields}
    return Row(
        **own,
        group=entry.group,
        name=entry.path.name,
        started_utc=to_iso(entry.started_utc_ns),
        media=MEDIA_TYPES.get(entry.path.suffix.lower(), ""),
    )


def find_rows(context: Context, query: Wish) -> Rows:
    """Returns the rows of a query and the totals, from the disk. Raises: CommandRefused."""
    since, until = _parse_span(query)
    search = Query(
        text=query.text,
        group=query.group,
        kinds=[query.kind] if query.kind else [],
        cameras=[query.camera] if query.camera else [],
        label=query.label or None,
        trigger=query.trigger or None,
        since_utc_ns=since,
        until_utc_ns=until,
        before=query.before or None,
        min_bytes=query.min_bytes,
        max_bytes=query.max_bytes or None,
        order=query.order,
        cursor=query.cursor,
        limit=query.limit,
    )
    with refuse_library_errors():
        entries = context.catalogue.search(search)
        totals = {name: Total(*counts) for name, counts in context.catalogue.sum_groups().items()}
        found = Total(*context.catalogue.sum_search(search))
    return Rows([row_of(entry) for entry in entries], totals, found, find_next_cursor(search, entries))


def find_timeline(context: Context, query: TimelineWish) -> Timeline:
    """Returns the timeline of a span, from the disk. Raises: CommandRefused."""
    since, until = _parse_span(query)
    with refuse_library_errors():
        span = TimelineSpan.of(since, until, query.step_s, time.time_ns())
        return context.catalogue.read_timeline(span, [query.camera] if query.camera else [])


def _parse_span(query: Wish | TimelineWish) -> tuple[int | None, int | None]:
    now_utc_ns = time.time_ns()
    with refuse_library_errors():
        return parse_instant_ns(query.since, now_utc_ns), parse_instant_ns(query.until, now_utc_ns)


@contextmanager
def refuse_library_errors() -> Iterator[None]:
    """Turns the library's errors into refusals. Raises: CommandRefused."""
    try:
        yield
    except NoSuchEntry as problem:
        raise CommandRefused(404, str(problem)) from None
    except ValueError as problem:
        raise CommandRefused(400, str(problem)) from None
    except (LibraryError, OSError) as problem:  # its disk is away or full, another process holds it
        raise CommandRefused(503, f"the library cannot be read now: {problem}"[:300]) from None


async def find_download(call: Call, entry: Entry) -> tuple[Path, str]:
    """Returns path and media type of a file that may be fetched. Raises: CommandRefused."""
    context = call.context
    if not context.may_download(access_of(call.request)):
        raise CommandRefused(403, "http.downloads is off for you")
    media_type = MEDIA_TYPES.get(entry.path.suffix.lower())
    if media_type is None or not await asyncio.to_thread(_is_in_our_folders, context, entry.path):
        raise CommandRefused(404, f"{entry.path.name} cannot be fetched")
    return entry.path, media_type


def content_disposition_of(name: str, media_type: str) -> str:
    """Returns the Content-Disposition of a file: shown where browsers can show it, else saved."""
    kind = "inline" if media_type.startswith(("image/", "video/mp4")) else "attachment"
    return f'{kind}; filename="{_UNQUOTABLE.sub("_", name)}"'


def _is_in_our_folders(context: Context, path: Path) -> bool:
    """True if a path is a plain file inside our folders, also where links lead elsewhere."""
    paths = context.settings.paths
    folders = [folder.resolve() for folder in (paths.captures, paths.recordings, paths.archives)]
    real = path.resolve()
    return not path.is_symlink() and real.is_file() and any(real.is_relative_to(folder) for folder in folders)


async def _list_rows(call: Call) -> Rows:
    return await asyncio.to_thread(find_rows, call.context, call.query)


async def _show_timeline(call: Call) -> Timeline:
    async with call.context.timeline_lock:
        return await asyncio.to_thread(find_timeline, call.context, call.query)


async def _show_row(call: Call) -> Row:
    return row_of(await _find_entry(call))


async def _send_file(call: Call) -> web.StreamResponse:
    entry = await _find_entry(call)
    path, media_type = await find_download(call, entry)
    disposition = content_disposition_of(entry.path.name, media_type)
    return FileResponse(path, headers={"Content-Type": media_type, "Content-Disposition": disposition})


async def _send_chosen(call: Call) -> web.StreamResponse:
    """Sends the files of some rows as one zip; two of one name get their numbers in front."""
    files: dict[str, Path] = {}
    for number in dict.fromkeys(map(int, call.query.ids.split(","))):
        with refuse_library_errors():
            entry = await asyncio.to_thread(call.context.catalogue.get, number)
        path, _ = await find_download(call, entry)
        files[f"{number}_{path.name}" if path.name in files else path.name] = path
    return await send_zip(call.request, "shmcam", [(path, f"shmcam/{name}") for name, path in files.items()])


async def _send_growing(call: Call) -> web.StreamResponse:
    """Sends what there is of the recording that is being written: a fragmented mp4, whole up to its last fragment."""
    context = call.context
    camera = camera_of(context, call.request)
    if not context.may_download(access_of(call.request)):
        raise CommandRefused(403, "http.downloads is off for you")
    files = [
        Path(f"{row.figures['file']}{PART}")
        for row in context.system_load.processes
        if row.camera == camera.name and row.figures.get("file")
    ]
    for path in files:
        if path.name.endswith(f".mp4{PART}") and await asyncio.to_thread(_is_in_our_folders, context, path):
            return FileResponse(path, headers={"Content-Type": "video/mp4", "Cache-Control": "no-store"})
    raise CommandRefused(404, f"no mp4 of {camera.name} is being written")


async def _send_thumbnail(call: Call) -> web.StreamResponse:
    entry = await _find_entry(call)
    path, media_type = await find_download(call, entry)
    jpeg = await get_thumbnail(path, media_type, entry.bytes, call.context.thumbnail_lock)
    if jpeg is None:
        return error_response(404, f"no picture can be made of {entry.path.name}")
    # A file with a row never changes, but a rebuild may give its number to another file: cached for a day only.
    return web.Response(body=jpeg, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})


async def _find_entry(call: Call) -> Entry:
    with refuse_library_errors():
        return await asyncio.to_thread(call.context.catalogue.get, call.path_params.id)


def _make_change_endpoint(word: str, command: type[c.Protect | c.Unprotect | c.Delete], summary: str) -> Endpoint:
    async def run(call: Call) -> Answer:
        await _find_entry(call)
        return answer_of(await call.context.hub.ask(command(number=call.path_params.id), 10.0))

    return Endpoint("POST", f"/library/{{id}}/{word}", "library", summary, run, Answer, path_params=OfRow, body=Nothing)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/library", "library", "Search what has been saved, by pages", _list_rows, Rows, query=Wish),
    Endpoint(
        "GET", "/library/zip", "library", "Fetch several files as a zip", _send_chosen, None,
        query=Chosen, media_types=("application/zip",),
    ),
    Endpoint(
        "GET", "/library/timeline", "library", "Show what exists of each camera in each minute",
        _show_timeline, Timeline, query=TimelineWish,
    ),
    Endpoint("GET", "/library/{id}", "library", "Show one row", _show_row, Row, path_params=OfRow),
    Endpoint(
        "GET", "/library/{id}/file", "library", "Fetch the file, or a range of it", _send_file, None,
        path_params=OfRow, media_types=tuple(dict.fromkeys(MEDIA_TYPES.values())), other_statuses=(206, 304, 416),
    ),
    Endpoint(
        "GET", "/library/{id}/thumbnail", "library", "A small picture of it", _send_thumbnail, None,
        path_params=OfRow, media_types=("image/jpeg",),
    ),
    Endpoint(
        "GET", "/cameras/{camera}/recording", "recording", "Fetch what is written of the running recording so far",
        _send_growing, None, path_params=OfCamera, media_types=("video/mp4",), other_statuses=(206, 304, 416),
    ),
    _make_change_endpoint("protect", c.Protect, "Keep it for ever"),
    _make_change_endpoint("unprotect", c.Unprotect, "Give it back to retention"),
    _make_change_endpoint("delete", c.Delete, "Delete the file and its row"),
)  # fmt: skip
