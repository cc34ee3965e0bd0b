"""`/state` in ustreamer's words, and `/healthz`."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from shmcam.config.settings import Settings
from shmcam.library.room import room_at
from shmcam.library.settings import LibrarySettings
from shmcam.runtime.clock import iso, now_ns
from streamer.http.context import CONTEXT, Context, StreamedCamera, camera_of
from streamer.monitoring.health import CameraHealth, DiskHealth, Health, reasons
from streamer.monitoring.viewers import ViewerEntry


async def serve_state(request: web.Request) -> web.StreamResponse:
    """What ustreamer's `/state` tells, so that clients made for it (PiKVM, OctoPrint) find their way."""
    context = request.app[CONTEXT]
    camera = camera_of(context, request)
    sight = camera.feed.sight
    geometry, settings = sight.geometry, context.mjpeg
    clients = [one for one in context.viewers.entries.values() if one.camera == camera.name]
    result = {
        "instance_id": camera.name,
        "encoder": {"type": "CPU", "quality": settings.quality},
        "source": {
            "online": camera_health(context, camera).live,
            "resolution": {"width": geometry.width if geometry else 0, "height": geometry.height if geometry else 0},
            "desired_fps": settings.fps,
            "captured_fps": round(sight.fps),
        },
        "stream": {
            "queued_fps": round(sight.fps) if camera.fanout.viewers else 0,
            "clients": len(clients),
            "clients_stat": {str(one.number): _client(one) for one in clients},
        },
    }
    return json_response({"ok": True, "result": result})


async def serve_healthz(request: web.Request) -> web.StreamResponse:
    """200 when everything a user would miss is there, else 503 with reasons."""
    health = health_of(request.app[CONTEXT])
    return json_response(health, status=200 if health.ready else 503)


def health_of(context: Context) -> Health:
    """Gather the facts and decide."""
    machine = context.system_load
    cameras = {name: camera_health(context, camera) for name, camera in context.cameras.items()}
    disk = disk_health(context.settings)
    found = reasons(cameras, disk, hub=machine.hub, processes=machine.processes)
    return Health(
        ready=not found,
        reasons=found,
        time_utc=iso(time.time_ns()),
        uptime_s=round(time.time() - context.started_utc, 1),
        cameras=cameras,
        disk=disk,
        hub=machine.hub,
        processes=list(machine.processes),
    )


def camera_health(context: Context, camera: StreamedCamera) -> CameraHealth:
    """One camera as the feed sees it."""
    sight, now = camera.feed.sight, now_ns()
    age_s = sight.age_s(now)
    return CameraHealth(
        live=not sight.stale(now, context.mjpeg.stale_after_s),
        age_s=None if age_s is None else round(age_s, 3),
        frame_id=sight.meta.frame_id if sight.meta else -1,
        fps=round(sight.fps, 2),
    )


def disk_health(settings: Settings) -> DiskHealth:
    """Space where recordings go; the folder may not exist yet."""
    path = settings.paths.recordings
    room = room_at(path, settings.table(LibrarySettings))
    return DiskHealth(str(path), room.free_bytes, room.total_bytes, room.reserve_bytes)


def json_response(value: object, status: int = 200) -> web.Response:
    """Anything msgspec can encode, never cached."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _client(one: ViewerEntry) -> dict[str, Any]:
    seconds = max(1e-3, time.monotonic() - one.since_s)
    return {"fps": round(one.counts.sent / seconds), "extra_headers": True, "advance_headers": False, "key": one.peer}
