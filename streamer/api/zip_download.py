"""Sends files as one zip, written as it is sent: no copy of it exists on the disk, and a few MiB of it in memory."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiohttp import web

from shmcam.library.manifest import CHUNK_BYTES
from shmcam.runtime.atomic_files import open_regular


async def send_zip(request: web.Request, name: str, files: Sequence[tuple[Path, str]]) -> web.StreamResponse:
    """Sends `name`.zip with these files, each under its name in the zip."""
    headers = {"Content-Type": "application/zip", "Content-Disposition": f'attachment; filename="{name}.zip"'}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    if request.method != "HEAD":  # aiohttp would send what is written all the same
        pieces = zip_pieces(files)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            await response.write(piece)
    await response.write_eof()
    return response


class _Pieces(io.RawIOBase):
    """Collects what zipfile writes, until it is taken."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._data += data
        return len(data)

    def take(self) -> bytes:
        """Returns what was written since the last call."""
        data, self._data = bytes(self._data), bytearray()
        return data


def zip_pieces(files: Sequence[tuple[Path, str]]) -> Iterator[bytes]:
    """Yields the bytes of a zip of files, each under its name there. Nothing is compressed: videos and pictures are.

    Raises: OSError where a file is gone; what was yielded is then no whole zip.
    """
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED, allowZip64=True, strict_timestamps=False) as whole:
        for path, name in files:
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with open_regular(path) as source, whole.open(info, "w", force_zip64=True) as target:
                while data := source.read(CHUNK_BYTES):
                    target.write(data)
                    yield pieces.take()
    yield pieces.take()
