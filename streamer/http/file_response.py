"""The response of every route that sends a file: aiohttp's, and If-Range with an ETag."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter


class FileResponse(web.FileResponse):
    """A file, or a range of it; a range only if it is of the file that the client has a part of.

    aiohttp reads a date in If-Range only. With anything else it would send the range of whatever file is there now, and
    a client that goes on with a download would join parts of two. *Source*: RFC 9110, 13.1.5.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Sends header and file; the whole file where If-Range names another one."""
        condition = request.headers.get(hdrs.IF_RANGE)
        if condition is not None and request.if_range is None and condition != await asyncio.to_thread(self._make_etag):
            # What is not ASCII cannot be cloned, and nothing that sends a file reads it.
            headers = [(name, value) for name, value in request.headers.items() if value.isascii()]
            request = request.clone(headers=[(name, value) for name, value in headers if name.lower() != "range"])
        return await super().prepare(request)

    def _make_etag(self) -> str:
        """Returns the strong ETag that aiohttp gives the file; empty where there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return ""
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
