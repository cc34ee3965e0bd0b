"""Capture and recorder beside a hundred viewers: a whole pipeline under a real supervisord, without and with them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.areas.pipeline import CAMERA
from bench.measure import Measured, Outcome, Row, Skipped, Table
from bench.peers.streamer_subjects import metric, watch

if TYPE_CHECKING:
    from tests.pipeline import Pipeline

ROWS = (
    Row("capture_fps_ratio", "", 0.99, "frames a second with 100 viewers and 20 that never read / with none", "higher"),
    Row("capture_drops", "frames", 0.0, "lost by capture while they watch"),
    Row("recorder_drops", "frames", 0.0, "missing in the recording of that time, counted in the pixels"),
    Row("viewers_share", "", 0.95, "frames for the worst of the 100 meanwhile", "higher"),
)

VIEWERS, STALLED = 100, 20
SETTLE_S = 3.0


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    try:
        from tests.pipeline import Pipeline
    except ImportError as error:
        yield from ((row.name, Skipped(f"needs the test packages: {error}")) for row in ROWS)
        return
    seconds = 8.0 if quick else 20.0
    limits = {"max_streams": 2 * VIEWERS}, {"max_connections": 4 * VIEWERS}
    with Pipeline(camera=CAMERA, ring={"size": 0}, mjpeg_server=limits[0], http=limits[1]) as pipeline:
        pipeline.wait_running()
        pipeline.text("record start")
        time.sleep(SETTLE_S)
        alone, _ = _phase(pipeline, 0, seconds)
        beside, seen = _phase(pipeline, VIEWERS, seconds)
        pipeline.text("record stop", 60)
        recorded = _recorded(pipeline)
    phases: Table = [_counted(phase, recorded) for phase in (alone, beside)]
    watched = phases[1]
    yield (
        "capture_fps_ratio",
        Measured(float(str(watched["fps"])) / float(str(phases[0]["fps"])), tables={"beside viewers": phases}),
    )
    yield "capture_drops", Measured(float(str(watched["capture drops"])))
    yield "recorder_drops", Measured(float(str(watched["recorder drops"])), f"of {watched['frames']} frames")
    possible = int(seen["last"]) - int(seen["first"]) + 1
    yield "viewers_share", Measured(min(seen["distinct"]) / possible, f"p50 latency {seen['latency_p50_ms']:.1f} ms")


def _phase(pipeline: Pipeline, viewers: int, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Look on for a while. Returns: what the camera did meanwhile, and what the viewers saw."""
    first, drops, began = _frame(pipeline), metric(pipeline.port, "camera_dropped_total"), time.monotonic()
    seen: dict[str, Any] = {}
    if viewers:
        seen = watch(pipeline.port, "/stream", viewers, STALLED, seconds)
    else:
        time.sleep(seconds)
    last, spent_s = _frame(pipeline), time.monotonic() - began
    return {
        "viewers": viewers,
        "fps": round((last - first) / spent_s, 3),
        "capture drops": metric(pipeline.port, "camera_dropped_total") - drops,
        "first": first,
        "last": last,
    }, seen


def _frame(pipeline: Pipeline) -> int:
    return int(metric(pipeline.port, "camera_frame_id"))


def _recorded(pipeline: Pipeline) -> set[int | None]:
    """The frame numbers in the recording."""
    from tests.reading import numbers_in_clip

    clips = (pipeline.folder / "recordings").glob("session_*/*.mp4")
    return {number for clip in clips for number in numbers_in_clip(clip)}


def _counted(phase: dict[str, Any], recorded: set[int | None]) -> dict[str, Any]:
    """Replace first and last frame by their count and by what the recording lacks of them."""
    wanted = range(phase.pop("first"), phase.pop("last") + 1)
    return phase | {"frames": len(wanted), "recorder drops": sum(number not in recorded for number in wanted)}
