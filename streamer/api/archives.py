"""The endpoints of archives: their list, and of one archive its files, a check, one file, or all of them as a zip.

A file is named by its path in the manifest. The configuration is for owners, and only with its secrets masked: old
archives have copies with a camera's password in them, and those stay on the disk.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web

from shmcam.config.masking import mask_secrets
from shmcam.config.settings import FORMER_LONG_NAME
from shmcam.control import messages as c
from shmcam.library import manifest
from shmcam.library.sidecar import MANIFEST, is_archive
from shmcam.runtime.atomic_files import read_state
from shmcam.runtime.clock import to_iso
from streamer.api.actions import make_command_endpoint, make_read_endpoint
from streamer.api.endpoint import Answer, Call, CommandRefused, Endpoint, Nothing, answer_of
from streamer.api.library import MEDIA_TYPES, content_disposition_of
from streamer.api.zip_download import send_zip
from streamer.auth.roles import Role
from streamer.http.context import access_of
from streamer.http.file_response import FileResponse

VERIFY_S = 600.0
"""The longest wait for a check; it reads every byte of the archive."""


class OfArchive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The archive in the path."""

    name: Annotated[str, msgspec.Meta(pattern=rf"^{FORMER_LONG_NAME}$", description="as listed")]


class OfFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the archive."""

    file: Annotated[str, msgspec.Meta(max_length=1000, description="path in the archive, as listed")]


class ArchivedFile(msgspec.Struct, frozen=True):
    """One file in an archive."""

    file: str
    """The path inside the archive, with `/`."""
    bytes: int
    sha256: str
    """Empty for the manifest and the configuration, which the manifest does not list."""
    modified_utc: str
    """When the original was changed last."""
    media: str
    """Media type; empty: sent as plain bytes."""


class ArchiveContents(msgspec.Struct, frozen=True):
    """What is in an archive."""

    name: str
    bytes: int
    files: list[ArchivedFile]


def list_files(folder: Path, role: Role) -> list[ArchivedFile]:
    """Returns the files of an archive that this role may have, in the manifest's order. Raises: OSError."""
    items, config = manifest.read_items(folder), folder / manifest.CONFIG
    hidden = None if role is Role.OWNER and _is_masked(config) else config.resolve()
    sums = {**{name: item.sha256 for name, item in items.items()}, MANIFEST: "", manifest.CONFIG: ""}
    files = []
    for name, sha256 in sums.items():
        path = folder / name
        if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            continue  # a manifest may have been written by others
        if path.resolve() == hidden:  # whatever the manifest calls it
            continue
        status, media = path.stat(), MEDIA_TYPES.get(path.suffix.lower(), "")
        files.append(ArchivedFile(name, status.st_size, sha256, to_iso(status.st_mtime_ns), media))
    return files


def _is_masked(config: Path) -> bool:
    """Returns whether a configuration is readable and holds no secret in plain text."""
    try:
        document = tomllib.loads(read_state(config).decode())
    except (OSError, ValueError, RecursionError):
        return False
    return mask_secrets(document) == document


def _is_own_archive(folder: Path) -> bool:
    return not folder.is_symlink() and (folder / MANIFEST).is_file() and is_archive(folder / MANIFEST)


async def _find_folder(call: Call) -> Path:
    """Returns the folder of the archive in the path. Raises: CommandRefused."""
    archives, name = call.context.settings.paths.archives, call.path_params.name
    folder: Path = archives / name
    if not await asyncio.to_thread(_is_own_archive, folder):
        raise CommandRefused(404, f"no archive {name}")
    return folder


async def _list_files(call: Call, folder: Path) -> list[ArchivedFile]:
    return await asyncio.to_thread(list_files, folder, access_of(call.request).role)


async def _show_archive(call: Call) -> ArchiveContents:
    files = await _list_files(call, await _find_folder(call))
    return ArchiveContents(call.path_params.name, sum(file.bytes for file in files), files)


async def _verify(call: Call) -> Answer:
    await _find_folder(call)
    return answer_of(await call.context.hub.ask(c.Archives(action="verify", name=call.path_params.name), VERIFY_S))


async def _send_file(call: Call) -> web.StreamResponse:
    folder = await _find_folder(call)
    _refuse_unless_allowed(call)
    files = {file.file: file for file in await _list_files(call, folder)}
    file = files.get(call.query.file)
    if file is None:
        raise CommandRefused(404, f"no file {call.query.file[:100]!r} in archive {folder.name}")
    media = file.media or "application/octet-stream"
    disposition = content_disposition_of(Path(file.file).name, media)
    return FileResponse(folder / file.file, headers={"Content-Type": media, "Content-Disposition": disposition})


async def _send_zip(call: Call) -> web.StreamResponse:
    folder = await _find_folder(call)
    _refuse_unless_allowed(call)
    files = [file.file for file in await _list_files(call, folder)]
    return await send_zip(call.request, folder.name, [(folder / name, f"{folder.name}/{name}") for name in files])


def _refuse_unless_allowed(call: Call) -> None:
    if not call.context.may_download(access_of(call.request)):
        raise CommandRefused(403, "http.downloads is off for you")


ENDPOINTS: tuple[Endpoint, ...] = (
    make_read_endpoint("/archives", "archives", "List the archives", lambda _: c.Archives()),
    make_command_endpoint("POST", "/archives", "archives", c.Archive),
    make_command_endpoint("POST", "/archives/change", "archives", c.Archives),
    Endpoint(
        "GET", "/archives/{name}", "archives", "What is in an archive", _show_archive, ArchiveContents,
        path_params=OfArchive,
    ),
    Endpoint(
        "POST", "/archives/{name}/verify", "archives", "Compare an archive with its checksums", _verify, Answer,
        path_params=OfArchive, body=Nothing,
    ),
    Endpoint(
        "GET", "/archives/{name}/file", "archives", "Fetch one file of an archive, or a range of it", _send_file, None,
        path_params=OfArchive, query=OfFile, media_types=(*dict.fromkeys(MEDIA_TYPES.values()),),
        other_statuses=(206, 304, 416),
    ),
    Endpoint(
        "GET", "/archives/{name}/zip", "archives", "Fetch a whole archive as a zip", _send_zip, None,
        path_params=OfArchive, media_types=("application/zip",),
    ),
)  # fmt: skip
