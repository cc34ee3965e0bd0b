"""The route `/metrics` for Prometheus: the counts that the streamer and the hub keep anyway, read for each scrape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shmcam.runtime.clock import now_ns
from streamer.http.context import CONTEXT, Context, StreamedCamera
from streamer.monitoring.health import ProcessHealth
from streamer.monitoring.routes import health_of

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def serve_metrics(request: web.Request) -> web.StreamResponse:
    """Answers one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(request.app[CONTEXT]))
    return web.Response(
        body=generate_latest(registry), headers={"Content-Type": _CONTENT_TYPE, "Cache-Control": "no-store"}
    )


class MetricsCollector:
    """The metrics of one scrape; a collector of prometheus_client."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """Yields every metric family."""
        yield from self._collect_cameras()
        yield from self._collect_processes()
        yield from self._collect_server()

    def _collect_cameras(self) -> Iterator[Metric]:
        for name, text, read in _CAMERA:
            family: Metric = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(
                f"shmcam_{name}", text, labels=["camera"]
            )
            for camera in self._context.cameras.values():
                value = read(camera)
                if value is not None and math.isfinite(value):
                    family.add_metric([camera.name], value)  # type: ignore[attr-defined]
            yield family

    def _collect_processes(self) -> Iterator[Metric]:
        rows = self._context.system_load.processes
        labels = ["program", "camera"]
        up = GaugeMetricFamily("shmcam_process_up", "1: connected to the hub and not silent", labels=labels)
        rss = GaugeMetricFamily("shmcam_process_resident_bytes", "resident memory", labels=labels)
        lag = GaugeMetricFamily("shmcam_reader_lag_frames", "frames a reader is behind the ring's head", labels=labels)
        laps = CounterMetricFamily("shmcam_reader_laps", "frames a reader lost to the writer", labels=labels)
        recording = GaugeMetricFamily("shmcam_recording", "1: a recording is being written", labels=["camera"])
        behind = GaugeMetricFamily("shmcam_recorder_lag_seconds", "age of the frame the recorder is at", labels=labels)
        encoded = CounterMetricFamily("shmcam_recorder_encoded", "frames encoded since its start", labels=["camera"])
        unwritten = CounterMetricFamily("shmcam_recorder_unwritten", "of them, refused by the disk", labels=["camera"])
        yield from _collect_hooks(rows)
        trouble = GaugeMetricFamily("shmcam_process_trouble", "1: its line in status has a reason", labels=labels)
        text = "a number of its line in status, such as upload's waiting"
        figures = GaugeMetricFamily("shmcam_process_figure", text, labels=[*labels, "figure"])
        for row in rows:
            names = [row.program, row.camera]
            trouble.add_metric(names, bool(row.reason))
            for name, value in row.figures.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    figures.add_metric([*names, name], value)
            up.add_metric(names, row.pid > 0 and row.state not in {"silent", "missing"})
            rss.add_metric(names, row.rss_bytes)
            laps.add_metric(names, row.laps)
            if row.lag >= 0:
                lag.add_metric(names, row.lag)
            if "behind_s" in row.figures:
                behind.add_metric(names, row.get_figure("behind_s"))
                recording.add_metric([row.camera], row.state == "recording")
                encoded.add_metric([row.camera], row.get_figure("encoded"))
                unwritten.add_metric([row.camera], row.get_figure("unwritten"))
        yield from (up, rss, lag, laps, behind, recording, encoded, unwritten, trouble, figures)

    def _collect_server(self) -> Iterator[Metric]:
        context = self._context
        totals = context.viewers.sum_up()
        for name, text, counted in (
            ("sent_bytes", "bytes of pictures and video sent", totals.bytes),
            ("sent_pictures", "pictures and fragments sent", totals.sent),
            ("skipped_pictures", "pictures replaced by newer ones before there was room", totals.skipped),
            ("viewers_served", "viewers since start", totals.viewers),
        ):
            family = CounterMetricFamily(f"shmcam_{name}", text, labels=["kind"])
            for kind, value in counted.items():
                family.add_metric([kind], value)
            yield family
        counts = context.connections.counts
        for name in ("accepted", "refused", "evicted", "reset"):
            yield CounterMetricFamily(f"shmcam_connections_{name}", f"connections {name}", value=getattr(counts, name))
        yield GaugeMetricFamily("shmcam_connections", "open connections", value=len(context.connections.open))
        yield GaugeMetricFamily("shmcam_viewers", "viewers now", value=len(context.viewers.entries))
        yield GaugeMetricFamily("shmcam_ready", "1: /healthz says ready", value=health_of(context).ready)
        yield GaugeMetricFamily("shmcam_hub_up", "1: the hub answers", value=context.system_load.hub)
        yield GaugeMetricFamily("shmcam_cpu_percent", "load of all cores", value=context.system_load.cpu_percent)
        yield GaugeMetricFamily("shmcam_served_share", "part of the wanted rate", value=context.encoding_throttle.share)
        disk = context.disk.read()
        yield GaugeMetricFamily("shmcam_disk_free_bytes", "free where recordings go", value=disk.free_bytes)
        yield GaugeMetricFamily("shmcam_disk_total_bytes", "size of that disk", value=disk.total_bytes)
        yield GaugeMetricFamily("shmcam_disk_reserve_bytes", "what retention keeps free", value=disk.reserve_bytes)


def _collect_hooks(rows: Sequence[ProcessHealth]) -> Iterator[Metric]:
    """Yields the counts of each hook, as the hooks process writes them into its heartbeat."""
    events = CounterMetricFamily(
        "shmcam_hook_events", "events of a hook, by what became of them", labels=["hook", "result"]
    )
    waiting = GaugeMetricFamily("shmcam_hook_waiting", "events of a hook that wait", labels=["hook"])
    for row in rows:
        hooks = row.figures.get("hooks")
        for name, counts in hooks.items() if row.program == "hooks" and isinstance(hooks, dict) else ():
            for result in ("delivered", "given_up", "dropped", "limited"):
                events.add_metric([name, result], _to_number(counts, result))
            waiting.add_metric([name], _to_number(counts, "waiting"))
    yield from (events, waiting)


def _to_number(counts: Any, name: str) -> float:
    value = counts.get(name) if isinstance(counts, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0


def _meta_reader(name: str, scale: float = 1.0) -> Any:
    def read(camera: StreamedCamera) -> float | None:
        meta = camera.feed.status.meta
        return None if meta is None else float(getattr(meta, name)) * scale

    return read


def _score_reader(name: str) -> Any:
    def read(camera: StreamedCamera) -> float | None:
        score = camera.feed.status.score
        return None if score is None else float(getattr(score, name))

    return read


_CAMERA: tuple[tuple[str, str, Any], ...] = (
    ("camera_fps", "frames a second, by sensor time stamps", lambda camera: camera.feed.status.fps),
    ("camera_frame_age_seconds", "age of the newest frame", lambda camera: camera.feed.status.get_age_s(now_ns())),
    ("camera_frame_id", "number of the newest frame", _meta_reader("frame_id")),
    ("camera_dropped_total", "frames the camera lost", _meta_reader("total_dropped")),
    ("camera_exposure_seconds", "exposure time", _meta_reader("exposure_us", 1e-6)),
    ("camera_analogue_gain", "analogue gain", _meta_reader("analogue_gain")),
    ("camera_lux", "scene illumination", _meta_reader("lux")),
    ("camera_dark_score", "mean luma 0..255", _score_reader("dark_score")),
    ("camera_scene_brightness", "brightness on the scale of the thresholds", _score_reader("scene_brightness")),
    ("camera_night", "1: night", _score_reader("night")),
    ("camera_motion", "moving fraction of the picture", _score_reader("motion_score")),
    ("ring_head", "frames published in this generation", lambda camera: camera.feed.status.head),
    ("ring_generation", "generation of the ring", lambda camera: camera.feed.status.generation),
    ("streamer_skipped_frames_total", "frames passed over while encoding", lambda camera: camera.feed.status.skipped),
    ("encodes_total", "JPEGs made", lambda camera: camera.fanout.counts.encodes),
    ("encode_seconds_total", "time spent making JPEGs", lambda camera: camera.fanout.counts.encode_ns / 1e9),
    ("variants", "variants watched", lambda camera: len(camera.fanout.variants)),
    (
        "camera_viewers",
        "viewers now, of pictures and video",
        lambda camera: camera.fanout.viewers + len(camera.live_video.viewers),
    ),
    ("h264_viewers", "viewers of live H.264", lambda camera: len(camera.live_video.viewers)),
)
