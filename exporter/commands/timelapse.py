"""What `timelapse` answers: start, stop and status of running films, and building one from saved pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporter import replies
from exporter.continuous.follower import CameraFollower
from exporter.films import build as timelapse
from exporter.pictures import names
from shmcam.config.settings import Settings
from shmcam.control.messages import Event, Progressed, Reply, Saved, Timelapse, error
from shmcam.library import Catalogue
from shmcam.library.entry import row

TELL_FRAMES = 50
"""Frames between two Progressed events."""


def steer(command: Timelapse, followers: Mapping[str, CameraFollower]) -> Reply:
    """Start or stop the running films, or tell how they are."""
    chosen = {name: one for name, one in followers.items() if command.camera in ("", name)}
    if not chosen:
        known = ", ".join(followers)
        return error(f"no camera {command.camera}; known: {known}", "unknown_camera")
    if command.action != "status":
        for one in chosen.values():
            one.forced = command.action == "start"
    rows = {name: _state(one) for name, one in chosen.items()}
    text = "\n".join(f"{name}: {_said(state)}" for name, state in rows.items())
    return Reply(status=f"timelapse_{command.action}", text=text, data={"cameras": rows})


def build(
    command: Timelapse, settings: Settings, catalogue: Catalogue, announce: Callable[[Event], None], now_utc_ns: int
) -> Reply:
    """Make a film of saved pictures. Raises: ValueError, OSError, sqlite3.Error."""
    camera = timelapse.camera_of(settings, command.camera)
    pictures = timelapse.find_pictures(catalogue, [camera], command.since, command.until, now_utc_ns)

    def tell(done: int, total: int) -> None:
        if done % TELL_FRAMES == 0 or done == total:
            announce(Progressed(task=f"timelapse {camera}", done=done, total=total))

    label = names.check_label(command.label)
    made = timelapse.build(settings, catalogue, pictures, fps=command.fps, label=label, progress=tell)
    announce(Saved(camera=camera, path=str(made.path), kind="timelapse", frame_id=made.last_frame))
    text = f"Saved timelapse: {replies.format_path(made)} (frames: {made.frames}, {made.bytes / 1e6:.1f} MB)"
    return Reply(status="timelapse_saved", text=text, data=row(made))


def _state(one: CameraFollower) -> dict[str, object]:
    film = one.film.film
    return {
        "running": one.interval_s > 0,
        "interval_s": one.interval_s,
        "frames": one.frames,
        "path": "" if film is None else str(film.part),
        "trouble": one.trouble,
    }


def _said(state: Mapping[str, object]) -> str:
    if not state["running"]:
        return "no timelapse runs"
    pauses = f", pauses: {state['trouble']}" if state["trouble"] else ""
    film = f"{state['frames']} frames in {state['path']}" if state["path"] else "no frame yet"
    return f"timelapse runs, a frame every {state['interval_s']:g}s, {film}{pauses}"
