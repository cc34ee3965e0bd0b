"""The routes `/state`, in the format of ustreamer, and `/healthz`."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from shmcam.runtime.clock import now_ns, to_iso
from shmcam.runtime.non_utf8_escapes import encode_json
from streamer.auth.roles import Role
from streamer.http.context import ACCESS, CONTEXT, Context, StreamedCamera, camera_of
from streamer.monitoring.health import CameraHealth, Health, find_reasons
from streamer.monitoring.viewers import ViewerEntry


async def serve_state(request: web.Request) -> web.StreamResponse:
    """Answers as ustreamer's `/state`, for clients made for it (PiKVM, OctoPrint)."""
    context = request.app[CONTEXT]
    camera = camera_of(context, request)
    status = camera.feed.status
    geometry, settings = status.geometry, context.mjpeg
    viewers = [entry for entry in context.viewers.entries.values() if entry.camera == camera.name]
    result = {
        "instance_id": camera.name,
        "encoder": {"type": "CPU", "quality": settings.quality},
        "source": {
            "online": camera_health_of(context, camera).live,
            "resolution": {"width": geometry.width if geometry else 0, "height": geometry.height if geometry else 0},
            "desired_fps": settings.fps,
            "captured_fps": round(status.fps),
        },
        "stream": {
            "queued_fps": round(status.fps) if camera.fanout.viewers else 0,
            "clients": len(viewers),
            "clients_stat": {str(entry.number): _client_of(entry) for entry in viewers},
        },
    }
    return json_response({"ok": True, "result": result})


async def serve_healthz(request: web.Request) -> web.StreamResponse:
    """Answers 200 when everything works that a user would miss, else 503 with reasons.

    A program of this machine that shows no secret gets one word: names of cameras and folders are not for all.
    """
    health = health_of(request.app[CONTEXT])
    is_bare = request[ACCESS].role is Role.NOBODY
    body = {"status": "ok" if health.ready else "trouble"} if is_bare else health
    return json_response(body, status=200 if health.ready else 503)


def health_of(context: Context) -> Health:
    """Returns the health of the service now."""
    load = context.system_load
    cameras = {name: camera_health_of(context, camera) for name, camera in context.cameras.items()}
    disk = context.disk.read()
    reasons = find_reasons(cameras, disk, hub=load.hub, processes=load.processes)
    return Health(
        ready=not reasons,
        reasons=reasons,
        time_utc=to_iso(time.time_ns()),
        uptime_s=round(time.time() - context.started_utc, 1),
        cameras=cameras,
        disk=disk,
        hub=load.hub,
        processes=list(load.processes),
    )


def camera_health_of(context: Context, camera: StreamedCamera) -> CameraHealth:
    """Returns the health of one camera, from its feed."""
    status, now = camera.feed.status, now_ns()
    age_s = status.get_age_s(now)
    return CameraHealth(
        live=not status.is_stale(now, context.mjpeg.stale_after_s),
        age_s=None if age_s is None else round(age_s, 3),
        frame_id=status.meta.frame_id if status.meta else -1,
        fps=round(status.fps, 2),
    )


def json_response(value: object, status: int = 200) -> web.Response:
    """Returns a response with any value that msgspec can encode, never cached."""
    return web.Response(
        body=encode_json(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _client_of(entry: ViewerEntry) -> dict[str, Any]:
    seconds = max(1e-3, time.monotonic() - entry.since_s)
    return {
        "fps": round(entry.counts.sent / seconds),
        "extra_headers": True,
        "advance_headers": False,
        "key": entry.peer,
    }
