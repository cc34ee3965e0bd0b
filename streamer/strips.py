"""Keogram and brightness of the day, as the analyzer draws them into [paths] run, for the Night tab."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from streamer.context import CONTEXT, camera_of

STRIP_BYTES_MAX = 16 * 1024 * 1024
"""A day's keogram is 1440 columns; more than this is none."""


async def strip(request: web.Request) -> web.StreamResponse:
    """Answer with the picture as it is now."""
    context = request.app[CONTEXT]
    camera = camera_of(context, request)
    path = context.settings.paths.run / f"{request.match_info['strip']}_{camera.name}.png"
    body = await asyncio.to_thread(_read, path)
    if body is None:
        raise web.HTTPNotFound(text=f"no {request.match_info['strip']} of {camera.name} yet")
    return web.Response(body=body, content_type="image/png", headers={"Cache-Control": "no-store"})


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            body = file.read(STRIP_BYTES_MAX + 1)
    except OSError:
        return None
    return body if 0 < len(body) <= STRIP_BYTES_MAX else None
