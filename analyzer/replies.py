"""The analyzer's replies to commands, and its events. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import asdict

from analyzer.frame_analyzer import FrameAnalyzer, FrameResult
from analyzer.motion.events import MotionEvent
from analyzer.night.controller import ExposureRequest
from analyzer.night.decision import Decision, Lock
from shmcam.control.messages import (
    JSON,
    ModeRequested,
    MotionBegan,
    MotionEnded,
    NightBegan,
    NightEnded,
    Reply,
)

STALE_S = 5.0
"""The reply names the age of a level that is older than this (and than two exposures)."""


def answer_night_level(frame_analyzer: FrameAnalyzer, camera: str, now_ns: int) -> Reply:
    """Answers `night_level`, in the words of the user's first service, with the source of the level at the end."""
    result = frame_analyzer.last
    if result is None:
        return Reply(ok=False, status="no_data", text="NO_DATA", data={"camera": camera})
    settings, assessment = frame_analyzer.night_settings, result.assessment
    status = "NIGHT" if result.is_night else "DAY"
    relevant = settings.bright_threshold if frame_analyzer.is_night else settings.dark_threshold
    age_s = max(0.0, (now_ns - result.sample.meta.captured_ns) / 1e9)
    source = assessment.source.name.lower()
    text = (
        f"LEVEL={assessment.level:.1f} relevant threshold={relevant:g} dark_threshold: < {settings.dark_threshold:g} "
        f"bright_threshold: > {settings.bright_threshold:g} STATUS={status} SOURCE={source}"
    )
    if frame_analyzer.override != "auto":
        text += f" FORCED={frame_analyzer.override}"
    if (locked_s := frame_analyzer.lock_at(result.sample.meta.captured_ns).seconds) > 0:
        text += f" LOCKED={locked_s:.0f}s"
    if assessment.own_lamp:
        text += " LAMP=on"
    if age_s > max(STALE_S, 2e-6 * result.sample.meta.exposure_us):
        text += f" AGE={age_s:.0f}s"
    return Reply(status="night_level", text=text, data={"camera": camera, "age_s": age_s, **figures_of(frame_analyzer)})


def figures_of(frame_analyzer: FrameAnalyzer) -> dict[str, JSON]:
    """Returns the numbers of the newest frame, for `status`, heartbeats and JSON."""
    result = frame_analyzer.last
    if result is None:
        return {}
    assessment, settings = result.assessment, frame_analyzer.night_settings
    return {
        "level": round(assessment.level, 2),
        "low": round(assessment.low, 2),
        "high": round(assessment.high, 2),
        "scene_ev": round(assessment.ev, 2),
        "dark_score": round(float(result.measurement.dark_score[0]), 2),
        "source": assessment.source.name.lower(),
        "night": result.is_night,
        "override": frame_analyzer.override,
        "own_lamp": assessment.own_lamp,
        "locked_s": round(frame_analyzer.lock_at(result.sample.meta.captured_ns).seconds, 1),
        "dark_threshold": settings.dark_threshold,
        "bright_threshold": settings.bright_threshold,
        "motion": round(result.motion.score, 4),
        "moving": frame_analyzer.is_moving,
        "saturated": round(float(result.measurement.saturated[0]), 4),
        "sharpness": round(result.sample.sharpness, 3),
        "frame_id": result.sample.meta.frame_id,
    }


def night_event_of(decision: Decision, camera: str, result: FrameResult) -> NightBegan:
    """Returns NightBegan or NightEnded."""
    event = NightBegan if decision.night else NightEnded
    return event(
        camera=camera,
        score=result.assessment.level,
        frame_id=result.sample.meta.frame_id,
        captured_ns=max(0, decision.captured_ns),
        reason=decision.reason[:300],
    )


def mode_request_of(request: ExposureRequest, camera: str) -> ModeRequested:
    """Returns the event that asks capture for a mode and an exposure."""
    return ModeRequested(
        camera=camera,
        mode=request.mode,
        exposure_us=request.exposure.exposure_us,
        gain=request.exposure.gain,
        reason=request.reason[:300],
    )


def motion_event_of(event: MotionEvent, camera: str, result: FrameResult) -> MotionBegan:
    """Returns MotionBegan or MotionEnded, the box in pixels."""
    x, y, width, height = event.peak.box
    frame_width, frame_height = result.sample.width, result.sample.height
    began = MotionBegan(
        camera=camera,
        score=event.peak.score,
        box=(round(x * frame_width), round(y * frame_height), round(width * frame_width), round(height * frame_height)),
        zone=event.peak.zone,
        frame_id=event.frame_id,
        captured_ns=max(0, event.captured_ns),
    )
    return began if event.began else MotionEnded(**asdict(began), duration_s=max(0.0, event.duration_s))


def answer_night(frame_analyzer: FrameAnalyzer, camera: str) -> Reply:
    """Answers `night on|off|auto|status` with one sentence: what holds, and until when."""
    mode = "night" if frame_analyzer.is_night else "day"
    text = f"OK: {camera} {mode} ({_explain_mode(frame_analyzer)})"
    return Reply(status="night", text=text, data={"camera": camera, **figures_of(frame_analyzer)})


def _explain_mode(frame_analyzer: FrameAnalyzer) -> str:
    """Returns who decides between day and night, and until when the present one holds."""
    settings, result = frame_analyzer.night_settings, frame_analyzer.last
    if frame_analyzer.override != "auto":
        return f"forced {frame_analyzer.override}, until `night auto` or a restart of the analyzer"
    if not settings.enable:
        return "night.enable = false, until it is true or `night on`"
    limit = "above" if frame_analyzer.is_night else "below"
    threshold = settings.bright_threshold if frame_analyzer.is_night else settings.dark_threshold
    text = f"automatic, until the brightness is {limit} {threshold:g} for {settings.dwell_s:g} s"
    lock = Lock(0.0) if result is None else frame_analyzer.lock_at(result.sample.meta.captured_ns)
    return text + (f", and not within the next {lock.seconds:.0f} s ({lock.key})" if lock.seconds else "")


def answer_keogram(paths: Sequence[Path], camera: str, columns: int) -> Reply:
    """Answers `keogram`."""
    if not paths:
        return Reply(ok=False, status="no_data", text="NO_DATA", data={"camera": camera})
    text = "\n".join(f"Saved keogram: {path}" for path in paths)
    data = {"camera": camera, "paths": [str(path) for path in paths], "columns": columns}
    return Reply(status="saved", text=text, data=data)
