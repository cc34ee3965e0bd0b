"""The endpoints of status, cameras, processes and version, and `/overview`: all that the page reads once per second."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from aiohttp import web

from shm_ring import Flags
from shm_ring.records.scores import Score
from shmcam.config.errors import explain_unknown_camera
from shmcam.control import messages as c
from shmcam.runtime.clock import to_iso
from streamer.api.actions import OfCamera, make_read_endpoint
from streamer.api.endpoint import Call, Endpoint
from streamer.auth.roles import Role
from streamer.h264.whep import find_webrtc_problem
from streamer.http.context import Context, StreamedCamera, access_of
from streamer.monitoring.health import Health
from streamer.monitoring.routes import camera_health_of, health_of
from streamer.settings import WebRtcSettings


class FrameStatus(msgspec.Struct, frozen=True):
    """The newest frame of a camera."""

    frame_id: int
    captured_utc: str
    exposure_us: int | None
    """null: unknown."""
    analogue_gain: float | None
    lux: float | None
    colour_temperature_k: int | None
    total_dropped: int
    """Frames lost by the camera since it was opened."""
    settling: bool
    """A change of the camera's controls is on its way."""


class RingStatus(msgspec.Struct, frozen=True):
    """The ring of the camera."""

    generation: int
    slots: int
    head: int
    """Frames published."""
    skipped: int
    """Frames that the streamer skipped because it was busy."""
    writer_pid: int


class CameraStatus(msgspec.Struct, frozen=True):
    """One camera as the streamer sees it."""

    name: str
    live: bool
    age_s: float | None
    fps: float
    width: int
    height: int
    pixel_format: str
    frame: FrameStatus | None
    ring: RingStatus
    viewers: int
    night: bool | None
    """null: no analyzer runs, or no picture comes."""
    dark_score: float | None
    stale_after_s: float
    h264_age_s: float | None
    """Age of the newest frame of live H.264 when it was sent; null: nobody watches it."""
    no_long_exposure: str
    """The reason why `/stream?exposure=long` has no picture; empty: it has."""


class Cameras(msgspec.Struct, frozen=True):
    """All cameras."""

    cameras: list[CameraStatus]


def camera_status_of(context: Context, camera: StreamedCamera) -> CameraStatus:
    """Returns the status of one camera."""
    status, health = camera.feed.status, camera_health_of(context, camera)
    geometry, meta, score = status.geometry, status.meta, status.score
    frame = None
    if meta is not None:
        frame = FrameStatus(
            frame_id=meta.frame_id,
            captured_utc=to_iso(meta.captured_utc_ns),
            exposure_us=meta.exposure_us or None,
            analogue_gain=meta.analogue_gain or None,
            lux=None if math.isnan(meta.lux) else meta.lux,
            colour_temperature_k=meta.colour_temperature_k or None,
            total_dropped=meta.total_dropped,
            settling=bool(meta.flags & Flags.SETTLING),
        )
    return CameraStatus(
        name=camera.name,
        live=health.live,
        age_s=health.age_s,
        fps=health.fps,
        width=geometry.width if geometry else 0,
        height=geometry.height if geometry else 0,
        pixel_format=geometry.pixel_format if geometry else "",
        frame=frame,
        ring=RingStatus(status.generation, status.slots, status.head, status.skipped, status.writer_pid),
        viewers=camera.fanout.viewers + len(camera.live_video.viewers),
        night=score.night if score else None,
        dark_score=round(score.dark_score, 2) if score else None,
        stale_after_s=context.mjpeg.stale_after_s,
        h264_age_s=camera.live_video.age_s and round(camera.live_video.age_s, 3),
        no_long_exposure=camera.feed.long_exposure_problem,
    )


async def _list_cameras(call: Call) -> Cameras:
    return Cameras([camera_status_of(call.context, camera) for camera in call.context.cameras.values()])


async def _show_camera(call: Call) -> CameraStatus:
    if call.path_params.camera not in call.context.cameras:
        raise web.HTTPNotFound(text=explain_unknown_camera(call.path_params.camera, call.context.cameras))
    return camera_status_of(call.context, call.context.cameras[call.path_params.camera])


async def _show_health(call: Call) -> Health:
    return health_of(call.context)


class Overview(msgspec.Struct, frozen=True):
    """All that a page reads once per second, in one answer."""

    health: Health
    cameras: list[CameraStatus]
    recordings: dict[str, Recording]
    """By camera."""
    nights: dict[str, NightStatus | None]
    """By camera; null: no analyzer runs, or no picture comes."""
    startrails: dict[str, str]
    """By camera, in words: the frames of tonight's startrails or the last night's, and why some were left out."""
    cpu_percent: float
    viewers: int
    throttle: Throttled
    last_event: int
    """Number of the newest event."""
    strips: list[str]
    """The cameras with a keogram and a brightness strip of today."""
    no_webrtc: str
    """The reason why there is no WebRTC; empty: there is."""
    login: bool
    """A login is required, so the page offers a logout."""
    role: str
    """owner: may do everything; viewer: may look."""
    role_reason: str
    """For a viewer: why nothing may be changed, and what would help."""
    config: str
    """Path of config.toml, for commands that the owner types: `shmcam --config PATH …`; empty for viewers."""


class Recording(msgspec.Struct, frozen=True):
    """The state of a camera's recorder."""

    state: str
    """recording, idle, armed, waiting, silent, missing …; armed: an event starts a clip."""
    file: str
    """Name of the file being written."""
    frames: int
    drops: int
    behind_s: float
    since_utc: str
    """Time of the first frame of the recording; empty: none runs."""
    reason: str
    """The reason why nothing is written although it should be."""


class NightStatus(msgspec.Struct, frozen=True):
    """Day or night, with the figures behind the decision."""

    night: bool
    level: float
    """On the scale of the thresholds."""
    dark_score: float
    """Plain mean luma, 0..255."""
    dark_threshold: float
    bright_threshold: float
    locked_s: float
    forced: bool
    moving: bool


class Throttled(msgspec.Struct, frozen=True):
    """The part of their requested rate at which viewers are served."""

    share: float
    reason: str


async def _show_overview(call: Call) -> Overview:
    context, access = call.context, access_of(call.request)
    return Overview(
        health=health_of(context),
        cameras=[camera_status_of(context, camera) for camera in context.cameras.values()],
        recordings={name: _recording_of(context, name) for name in context.cameras},
        nights={name: _night_of(camera.feed.status.score) for name, camera in context.cameras.items()},
        startrails=_startrails_of(context),
        cpu_percent=round(context.system_load.cpu_percent, 1),
        viewers=len(context.viewers.entries),
        throttle=Throttled(context.encoding_throttle.share, context.encoding_throttle.reason),
        last_event=context.events.latest[-1].number if context.events.latest else 0,
        strips=[name for name in context.cameras if all(path.exists() for path in strip_paths_of(context, name))],
        no_webrtc=find_webrtc_problem(context.settings.table(WebRtcSettings)),
        login=context.guard.is_login_required,
        role=access.role.name.lower(),
        role_reason=access.reason,
        config=str(context.settings.path) if access.role is Role.OWNER else "",
    )


def strip_paths_of(context: Context, camera: str) -> list[Path]:
    """Returns the files of today's keogram and brightness strip, which the analyzer draws after some minutes."""
    run = context.settings.paths.run
    return [run / f"{strip}_{camera}.png" for strip in ("keogram", "brightness")]


def _recording_of(context: Context, camera: str) -> Recording:
    program = "recorder" if camera == next(iter(context.cameras)) else f"recorder-{camera}"
    process = next((row for row in context.system_load.processes if row.program == program), None)
    if process is None:
        return Recording("missing", "", 0, 0, 0.0, "", "")
    value = context.settings.value
    own = f"cameras.{camera}.recorder"
    is_armed = value(f"{own}.mode") in {"event", "rolling"} and bool(value(f"{own}.events"))
    since_utc_ns = int(process.get_figure("since_utc_ns"))
    return Recording(
        state="armed" if is_armed and process.state in {"idle", "live"} else process.state,
        file=Path(str(process.figures.get("file", ""))).name,
        frames=int(process.get_figure("frames")),
        drops=int(process.get_figure("drops")),
        behind_s=process.get_figure("behind_s"),
        since_utc=to_iso(since_utc_ns) if since_utc_ns else "",
        reason=process.reason,
    )


def _startrails_of(context: Context) -> dict[str, str]:
    exporter = next((row for row in context.system_load.processes if row.program == "exporter"), None)
    states = exporter.figures.get("startrails") if exporter else None
    return {str(name): str(state) for name, state in states.items()} if isinstance(states, dict) else {}


def _night_of(score: Score | None) -> NightStatus | None:
    if score is None:
        return None
    figures = {
        "level": score.scene_brightness,
        "dark_score": score.dark_score,
        "dark_threshold": score.dark_threshold,
        "bright_threshold": score.bright_threshold,
        "locked_s": score.locked_s,
    }
    rounded = {name: round(value, 2) if math.isfinite(value) else 0.0 for name, value in figures.items()}
    return NightStatus(night=score.night, forced=score.forced, moving=score.moving, **rounded)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/overview", "status", "Everything a page shows, in one answer", _show_overview, Overview),
    Endpoint("GET", "/cameras", "status", "List the cameras and what they deliver", _list_cameras, Cameras),
    Endpoint("GET", "/cameras/{camera}", "status", "Show one camera", _show_camera, CameraStatus, path_params=OfCamera),
    Endpoint("GET", "/health", "status", "Tell whether everything is well, and what is not", _show_health, Health),
    make_read_endpoint("/status", "status", "Tell what every process is doing", lambda _: c.Status()),
    make_read_endpoint("/processes", "status", "Tell memory, swap and state of every process", lambda _: c.Health()),
    make_read_endpoint(
        "/version", "status", "Tell the versions of shmcam and of what it runs on", lambda _: c.Version()
    ),
    make_read_endpoint(
        "/detect/{camera}",
        "status",
        "List every camera this machine can see",
        lambda call: c.Detect(camera=call.path_params.camera),
        path_params=OfCamera,
    ),
)
