"""The load around the streamer: the hub's status of every process, CPU, recorder lag.

Measured once per second for all clients, every third without any: a hundred open pages ask the hub no more than one.
"""

from __future__ import annotations

from typing import Any

import psutil
from msgspec import Struct

from shmcam.control.messages import Reply
from streamer.monitoring.health import ProcessHealth

CPU_SMOOTHING = 0.3
"""Weight of the newest second; a change shows after about three seconds."""


class SystemLoad(Struct, frozen=True):
    """One measurement."""

    hub: bool = False
    """The hub answers."""
    processes: tuple[ProcessHealth, ...] = ()
    cameras: dict[str, dict[str, Any]] = {}
    """The hub's row of each camera: mode, recording, source, model."""
    cpu_percent: float = 0.0
    """Of all cores, smoothed."""
    recorder_lag_s: float = 0.0
    """Of the slowest recorder."""


def load_of(reply: Reply, before: SystemLoad) -> SystemLoad:
    """Returns a measurement from the hub's reply to `status`; `before` is the one a second ago."""
    rows = reply.data.get("processes", []) if reply.ok else []
    processes = tuple(process_health_of(row) for row in rows)
    return SystemLoad(
        hub=reply.ok,
        processes=processes,
        cameras={str(row.get("camera")): row for row in reply.data.get("cameras", [])} if reply.ok else {},
        cpu_percent=before.cpu_percent + CPU_SMOOTHING * (psutil.cpu_percent(None) - before.cpu_percent),
        recorder_lag_s=max((process.get_figure("behind_s") for process in processes), default=0.0),
    )


def process_health_of(row: dict[str, Any]) -> ProcessHealth:
    """Returns the health of one process from its row in the hub's `status`."""
    return ProcessHealth(
        program=str(row.get("program", "")),
        camera=str(row.get("camera", "")),
        pid=int(row.get("pid", 0)),
        state=str(row.get("state", "")),
        reason=str(row.get("reason", "")),
        fps=float(row.get("fps", -1.0)),
        lag=int(row.get("lag", -1)),
        laps=int(row.get("laps", 0)),
        rss_bytes=int(row.get("rss_bytes", 0)),
        swap_bytes=int(row.get("swap_bytes", 0)),
        figures=dict(row.get("figures") or {}),
    )
