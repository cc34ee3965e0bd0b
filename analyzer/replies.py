"""The words of the analyzer: replies to commands and events, from what is known. Pure."""

from __future__ import annotations

from pathlib import Path

from analyzer.frame_analyzer import FrameAnalyzer, FrameResult
from analyzer.motion.events import MotionEvent
from analyzer.night.controller import ExposureRequest
from analyzer.night.decision import Decision
from shmcam.control.messages import (
    JSON,
    ModeRequested,
    MotionBegan,
    MotionEnded,
    NightBegan,
    NightEnded,
    Reply,
    values_of,
)

STALE_S = 5.0
"""A level older than this (and than two exposures) is told with its age."""


def night_level(watcher: FrameAnalyzer, camera: str, now_ns: int) -> Reply:
    """Answer `night_level`, in the words of the user's first service, with the source of the level at the end."""
    seen = watcher.last
    if seen is None:
        return Reply(ok=False, status="no_data", text="NO_DATA", data={"camera": camera})
    rules, verdict = watcher.night_rules, seen.verdict
    status = "NIGHT" if seen.night else "DAY"
    relevant = rules.bright_threshold if watcher.night else rules.dark_threshold
    age_s = max(0.0, (now_ns - seen.look.meta.captured_ns) / 1e9)
    source = verdict.source.name.lower()
    text = (
        f"LEVEL={verdict.level:.1f} relevant threshold={relevant:g} dark_threshold: < {rules.dark_threshold:g} "
        f"bright_threshold: > {rules.bright_threshold:g} STATUS={status} SOURCE={source}"
    )
    if watcher.override != "auto":
        text += f" FORCED={watcher.override}"
    if (locked_s := watcher.locked_s(seen.look.meta.captured_ns)) > 0:
        text += f" LOCKED={locked_s:.0f}s"
    if age_s > max(STALE_S, 2e-6 * seen.look.meta.exposure_us):
        text += f" AGE={age_s:.0f}s"
    return Reply(status="night_level", text=text, data={"camera": camera, "age_s": age_s, **figures(watcher)})


def figures(watcher: FrameAnalyzer) -> dict[str, JSON]:
    """The numbers of the newest frame, for `status`, heartbeats and JSON."""
    seen = watcher.last
    if seen is None:
        return {}
    verdict, rules = seen.verdict, watcher.night_rules
    return {
        "level": round(verdict.level, 2),
        "low": round(verdict.low, 2),
        "high": round(verdict.high, 2),
        "scene_ev": round(verdict.ev, 2),
        "dark_score": round(float(seen.measured.dark_score[0]), 2),
        "source": verdict.source.name.lower(),
        "night": seen.night,
        "override": watcher.override,
        "locked_s": round(watcher.locked_s(seen.look.meta.captured_ns), 1),
        "dark_threshold": rules.dark_threshold,
        "bright_threshold": rules.bright_threshold,
        "motion": round(seen.motion.score, 4),
        "moving": watcher.moving,
        "saturated": round(float(seen.measured.saturated[0]), 4),
        "sharpness": round(seen.look.sharpness, 3),
        "frame_id": seen.look.meta.frame_id,
    }


def night_event(decision: Decision, camera: str, seen: FrameResult) -> NightBegan:
    """NightBegan or NightEnded."""
    event = NightBegan if decision.night else NightEnded
    return event(
        camera=camera,
        score=seen.verdict.level,
        frame_id=seen.look.meta.frame_id,
        captured_ns=max(0, decision.captured_ns),
        reason=decision.reason[:300],
    )


def mode_request(request: ExposureRequest, camera: str) -> ModeRequested:
    """What capture is asked for."""
    return ModeRequested(
        camera=camera,
        mode=request.mode,
        exposure_us=request.exposure.exposure_us,
        gain=request.exposure.gain,
        reason=request.reason[:300],
    )


def motion_event(movement: MotionEvent, camera: str, seen: FrameResult) -> MotionBegan:
    """MotionBegan or MotionEnded, the box in pixels."""
    x, y, width, height = movement.peak.box
    across, down = seen.look.width, seen.look.height
    began = MotionBegan(
        camera=camera,
        score=movement.peak.score,
        box=(round(x * across), round(y * down), round(width * across), round(height * down)),
        zone=movement.peak.zone,
        frame_id=movement.frame_id,
        captured_ns=max(0, movement.captured_ns),
    )
    return began if movement.began else MotionEnded(**values_of(began), duration_s=max(0.0, movement.duration_s))


def night_status(watcher: FrameAnalyzer, camera: str) -> Reply:
    """Answer `night on|off|auto|status`."""
    mode = "night" if watcher.night else "day"
    by = "automatic" if watcher.override == "auto" else f"forced {watcher.override}"
    if watcher.override == "auto" and not watcher.night_rules.enable:
        by = "night.enable = false"
    text = f"OK: {camera} {mode} ({by})"
    if (locked_s := figures(watcher).get("locked_s", 0.0)) and watcher.override == "auto":
        text += f"; no switch for the next {locked_s:.0f} s (night.hold_s)"
    return Reply(status="night", text=text, data={"camera": camera, **figures(watcher)})


def keogram(paths: tuple[Path, ...], camera: str, columns: int) -> Reply:
    """Answer `keogram`."""
    if not paths:
        return Reply(ok=False, status="no_data", text="NO_DATA", data={"camera": camera})
    text = "\n".join(f"Saved keogram: {path}" for path in paths)
    data = {"camera": camera, "paths": [str(path) for path in paths], "columns": columns}
    return Reply(status="saved", text=text, data=data)
