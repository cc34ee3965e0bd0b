"""The table of all paths of the server."""

from __future__ import annotations

from aiohttp import web

from streamer.api.openapi import list_api_routes
from streamer.auth import login
from streamer.h264.routes import serve_live_mp4, serve_live_websocket
from streamer.h264.whep import begin_session, end_session
from streamer.http import static_files
from streamer.monitoring.metrics import serve_metrics
from streamer.monitoring.routes import serve_healthz, serve_state
from streamer.pictures.mjpeg import serve_mjpeg
from streamer.pictures.snapshot import serve_snapshot
from streamer.websocket.connection import serve_sessions


async def serve_root(request: web.Request) -> web.StreamResponse:
    """Answers `/` with the page, or with what mjpg-streamer's `?action=` asks for."""
    action = request.query.get("action")
    if action is None:
        return await static_files.serve_page(request)
    word, _, _ = action.partition("_")  # stream_1: mjpg-streamer's name for its second input; `camera_of` reads it
    if word == "stream":
        return await serve_mjpeg(request)
    if word == "snapshot":
        return await serve_snapshot(request)
    raise web.HTTPBadRequest(text=f"action={action[:32]!r}: must be stream or snapshot, or stream_0, snapshot_0, …")


def build_routes() -> list[web.RouteDef]:
    """Returns all routes; the guard decides which of them are public."""
    return [
        web.get("/", serve_root),
        web.get("/login", static_files.serve_login_page),
        web.post("/api/v1/login", login.login),
        web.post("/api/v1/logout", login.logout),
        web.get("/static/{name}", static_files.serve_asset),
        web.get("/stream", serve_mjpeg),
        web.get("/cam/{camera}/stream", serve_mjpeg),
        web.get("/snapshot.jpg", serve_snapshot),
        web.get("/snapshot", serve_snapshot),
        web.get("/cam/{camera}/snapshot.jpg", serve_snapshot),
        web.get("/cam/{camera}/{strip:keogram|brightness}.png", static_files.serve_strip),
        web.get("/live.mp4", serve_live_mp4),
        web.get("/cam/{camera}/live.mp4", serve_live_mp4),
        web.post("/whep", begin_session),
        web.post("/cam/{camera}/whep", begin_session),
        web.delete("/whep/{id}", end_session),
        web.delete("/cam/{camera}/whep/{id}", end_session),
        web.get("/ws", serve_sessions, allow_head=False),
        web.get("/ws/live", serve_live_websocket, allow_head=False),
        web.get("/state", serve_state),
        web.get("/metrics", serve_metrics),
        web.get("/healthz", serve_healthz),
        *list_api_routes(),
    ]
