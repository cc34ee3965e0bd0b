"""Every path the server knows, in one table."""

from __future__ import annotations

from aiohttp import web

from streamer.api.openapi import list_api_routes
from streamer.auth import login
from streamer.h264.routes import serve_live_mp4, serve_live_websocket
from streamer.http import static_files
from streamer.monitoring.metrics import serve_metrics
from streamer.monitoring.routes import serve_healthz, serve_state
from streamer.pictures import mjpeg, snapshot
from streamer.websocket.connection import serve_sessions


async def root(request: web.Request) -> web.StreamResponse:
    """`/`: the page, or what mjpg-streamer's `?action=` asks for."""
    action = request.query.get("action")
    if action is None:
        return await static_files.page(request)
    if action == "stream":
        return await mjpeg.stream(request)
    if action == "snapshot":
        return await snapshot.snapshot(request)
    raise web.HTTPBadRequest(text=f"action={action[:32]!r}: must be stream or snapshot")


def routes() -> list[web.RouteDef]:
    """All of them; which are public is the guard's business, not this table's."""
    return [
        web.get("/", root),
        web.get("/login", static_files.login_page),
        web.post("/api/v1/login", login.login),
        web.post("/api/v1/logout", login.logout),
        web.get("/static/{name}", static_files.static),
        web.get("/stream", mjpeg.stream),
        web.get("/cam/{camera}/stream", mjpeg.stream),
        web.get("/snapshot.jpg", snapshot.snapshot),
        web.get("/snapshot", snapshot.snapshot),
        web.get("/cam/{camera}/snapshot.jpg", snapshot.snapshot),
        web.get("/cam/{camera}/{strip:keogram|brightness}.png", static_files.strip),
        web.get("/live.mp4", serve_live_mp4),
        web.get("/cam/{camera}/live.mp4", serve_live_mp4),
        web.get("/ws", serve_sessions, allow_head=False),
        web.get("/ws/live", serve_live_websocket, allow_head=False),
        web.get("/state", serve_state),
        web.get("/metrics", serve_metrics),
        web.get("/healthz", serve_healthz),
        *list_api_routes(),
    ]
