"""The page and its parts: plain files from `static/`, named one by one, so that nothing else can be fetched.

Keogram and brightness of the day, as the analyzer draws them into [paths] run, for the Night tab.
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

from aiohttp import web

from streamer.auth.login import add_login_cookie
from streamer.http.context import CONTEXT, camera_of

STATIC = Path(__file__).parents[1] / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def load_assets() -> dict[str, tuple[bytes, str]]:
    """Every file of the page, read once: name → (bytes, type)."""
    files = sorted(path for path in STATIC.iterdir() if path.suffix in _TYPES)
    return {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in files}


def asset_response(name: str) -> web.Response:
    """One file of the page. Raises: HTTPNotFound."""
    if name not in load_assets():
        raise web.HTTPNotFound(text="no such part of the page")
    body, kind = load_assets()[name]
    # no-cache: ask each time, so that an update of shmcam never mixes old scripts with new ones.
    return web.Response(body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"})


async def serve_page(request: web.Request) -> web.StreamResponse:
    """The page. A link with `?token=` logs in and leaves the address bar without it."""
    if "token" in request.query and request.app[CONTEXT].guard.is_login_required:
        raise add_login_cookie(request, web.HTTPSeeOther("/"))
    return asset_response("index.html")


async def serve_login_page(request: web.Request) -> web.StreamResponse:
    """Where people show token or password; the page itself where nothing needs to be shown."""
    if not request.app[CONTEXT].guard.is_login_required:
        raise web.HTTPSeeOther("/")
    return asset_response("login.html")


async def serve_asset(request: web.Request) -> web.StreamResponse:
    """Scripts, style and pictures of the page."""
    return asset_response(request.match_info["name"])


STRIP_BYTES_MAX = 16 * 1024 * 1024
"""A day's keogram is 1440 columns; more than this is none."""


async def serve_strip(request: web.Request) -> web.StreamResponse:
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
