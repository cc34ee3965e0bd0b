"""The files that are served as they are: the page's own from `static/`, and the day's strips from [paths] run.

The page's files are listed once, so that nothing else can be fetched. The strips are the keogram and the brightness of
the day, which the analyzer draws for the Night tab.
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

from aiohttp import web

from shmcam.runtime.atomic_files import open_regular
from streamer.auth.login import add_login_cookie
from streamer.http.context import CONTEXT, access_of, camera_of

STATIC = Path(__file__).parents[1] / "static"
STRIP_BYTES_MAX = 16 * 1024 * 1024
"""The largest strip: a day's keogram has 1440 columns, so a larger file is none."""
LOGGED_IN_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="color-scheme" content="dark light">
<meta http-equiv="refresh" content="0; url=./">
<title>shmcam</title>
<a href="./">shmcam</a>
"""
"""The page after a login by link; a navigation of its own brings the new cookie."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def load_assets() -> dict[str, tuple[bytes, str]]:
    """Reads every file of the page once. Returns: name → (bytes, type)."""
    files = sorted(path for path in STATIC.iterdir() if path.suffix in _TYPES)
    return {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in files}


def _respond_with_asset(name: str) -> web.Response:
    """Returns one file of the page as a response. Raises: HTTPNotFound."""
    if name not in load_assets():
        raise web.HTTPNotFound(text="no such part of the page")
    body, content_type = load_assets()[name]
    # no-cache: the browser asks each time, so that an update of shmcam never mixes old scripts with new ones.
    return web.Response(body=body, content_type=content_type, charset="utf-8", headers={"Cache-Control": "no-cache"})


async def serve_page(request: web.Request) -> web.StreamResponse:
    """Answers with the page; a link with `?token=` logs in, and goes on without the token in the address bar."""
    if "token" in request.query and request.app[CONTEXT].guard.is_login_required:
        # No redirect: where the link is on another site, the browser follows it without the cookie, which is Strict.
        response = web.Response(text=LOGGED_IN_PAGE, content_type="text/html", headers={"Cache-Control": "no-store"})
        return add_login_cookie(request, response, access_of(request).role)
    return _respond_with_asset("index.html")


async def serve_login_page(request: web.Request) -> web.StreamResponse:
    """Answers with the login page; redirects to the page if no login is required."""
    if not request.app[CONTEXT].guard.is_login_required:
        raise web.HTTPSeeOther("./")
    return _respond_with_asset("login.html")


async def serve_asset(request: web.Request) -> web.StreamResponse:
    """Answers with a script, the style or an icon of the page."""
    return _respond_with_asset(request.match_info["name"])


async def serve_strip(request: web.Request) -> web.StreamResponse:
    """Answers with the current keogram or brightness strip."""
    context = request.app[CONTEXT]
    camera = camera_of(context, request)
    path = context.settings.paths.run / f"{request.match_info['strip']}_{camera.name}.png"
    body = await asyncio.to_thread(_read_strip, path)
    if body is None:
        raise web.HTTPNotFound(text=f"no {request.match_info['strip']} of {camera.name} yet")
    return web.Response(body=body, content_type="image/png", headers={"Cache-Control": "no-store"})


def _read_strip(path: Path) -> bytes | None:
    try:
        with open_regular(path) as file:
            body = file.read(STRIP_BYTES_MAX + 1)
    except OSError:
        return None
    return body if 0 < len(body) <= STRIP_BYTES_MAX else None
