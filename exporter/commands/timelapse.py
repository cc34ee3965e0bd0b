"""Answers `timelapse`: start, stop and status of running films, and a film of saved pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from exporter import replies
from exporter.continuous.follower import CameraFollower
from exporter.films.build import build, camera_of, find_pictures, format_refused
from shmcam.config.errors import explain_unknown_camera
from shmcam.config.settings import Settings
from shmcam.control.messages import Event, Progressed, Reply, Saved, Timelapse, error
from shmcam.library import Catalogue, file_names
from shmcam.library.entry import to_row
from shmcam.runtime.atomic_files import PART

PROGRESS_FRAMES = 50
"""Frames between two Progressed events."""


def answer_timelapse(command: Timelapse, followers: Mapping[str, CameraFollower]) -> Reply:
    """Starts or stops the running films. Returns: their state."""
    chosen = {name: follower for name, follower in followers.items() if command.camera in ("", name)}
    if not chosen:
        return error(explain_unknown_camera(command.camera, followers), "unknown_camera")
    if command.action != "status":
        for follower in chosen.values():
            follower.forced = command.action == "start"
    rows = {name: _state_of(follower) for name, follower in chosen.items()}
    text = "\n".join(f"{name}: {_format_state(state)}" for name, state in rows.items())
    return Reply(status=f"timelapse_{command.action}", text=text, data={"cameras": rows})


def build_timelapse(
    command: Timelapse, settings: Settings, catalogue: Catalogue, announce: Callable[[Event], None], now_utc_ns: int
) -> Reply:
    """Makes a film of saved pictures. Raises: ValueError, OSError."""
    camera = camera_of(settings, command.camera)
    pictures = find_pictures(catalogue, [camera], command.since, command.until, now_utc_ns)

    def announce_progress(done: int, total: int) -> None:
        if done % PROGRESS_FRAMES == 0 or done == total:
            announce(Progressed(task=f"timelapse {camera}", done=done, total=total))

    label = file_names.check_label(command.label)
    refused: list[tuple[Path, str]] = []

    def refuse(path: Path, reason: str) -> None:
        refused.append((path, reason))

    film = build(settings, catalogue, pictures, fps=command.fps, label=label, progress=announce_progress, refuse=refuse)
    announce(Saved(camera=camera, path=str(film.path), kind=film.kind, trigger=film.trigger, frame_id=film.last_frame))
    details = [f"frames: {film.frames}", f"{film.frames / command.fps:.1f} s", f"{film.bytes / 1e6:.1f} MB"]
    details += filter(None, [format_refused(refused)])
    text = f"Saved timelapse: {replies.format_path(film)} ({', '.join(details)})"
    left_out = [{"path": str(path), "reason": reason} for path, reason in refused[: replies.PATHS_SHOWN]]
    return Reply(status="timelapse_saved", text=text, data={**to_row(film), "left_out": left_out})


def _state_of(follower: CameraFollower) -> dict[str, object]:
    film = follower.timelapse.film
    return {
        "running": follower.interval_s > 0,
        "interval_s": follower.interval_s,
        "frames": follower.frames,
        "path": "" if film is None else str(film.part),
        "trouble": follower.trouble,
    }


def _format_state(state: Mapping[str, object]) -> str:
    if not state["running"]:
        ends = f"timelapse ends, {state['frames']} frames in {str(state['path']).removesuffix(PART)}"
        return ends if state["path"] else "no timelapse runs"
    pauses = f", pauses: {state['trouble']}" if state["trouble"] else ""
    film = f"{state['frames']} frames in {state['path']}" if state["path"] else "no frame yet"
    return f"timelapse runs, a frame every {state['interval_s']:g}s, {film}{pauses}"
