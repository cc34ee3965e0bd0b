"""The hub's own answers about processes, made from what it remembers: `status`, `health`, `cameras`. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shmcam.control.messages import Event, ProcessDown, Reply, values_of, wire_name
from shmcam.hub.registry import Peer, Registry
from shmcam.runtime.programs import FOR_ALL, PER_CAMERA

SILENT_S = 4.0
"""A process that has not sent its heartbeat for this long is shown as silent."""

MIB = 1024 * 1024
LINE_MAX = 118
FIGURE_MAX = 32
"""Longer figures (paths) are left to --json."""


def status(roster: Registry, now_s: float) -> Reply:
    """Tell what every process is doing: one line each, then one per camera."""
    rows = processes(roster, now_s)
    cameras = camera_rows(roster)
    lines = [f"{row['program']:<18} {row['state']:<10} {_doing(row)}".rstrip() for row in rows]
    lines += [f"{row['camera']:<18} {_camera(row, LINE_MAX - 19)}" for row in cameras]
    well = all(row["state"] not in {"silent", "missing", "FATAL", "EXITED", "BACKOFF"} for row in rows)
    return Reply(
        ok=True, status="status", text="\n".join(lines), data={"ok": well, "processes": rows, "cameras": cameras}
    )


def cameras(roster: Registry) -> Reply:
    """List the configured cameras, what they are and what they deliver."""
    rows = camera_rows(roster)
    return Reply(
        status="cameras", text="\n".join(f"{row['camera']:<8} {_camera(row)}" for row in rows), data={"cameras": rows}
    )


def health(roster: Registry, now_s: float, hub: dict[str, Any], machine: dict[str, Any]) -> Reply:
    """Tell memory, swap and state of every process; `hub` and `machine` are measured by the caller."""
    rows = [hub, *processes(roster, now_s)]
    lines = [
        f"{row['program']:<18} {row['state']:<10} rss={row['rss_bytes'] / MIB:.0f}MiB "
        f"swap={row['swap_bytes'] / MIB:.0f}MiB {row.get('reason', '')}".rstrip()
        for row in rows
    ]
    total = sum(row["rss_bytes"] for row in rows) / MIB
    lines.append(
        f"{'machine':<29} rss={total:.0f}MiB in all, swap {machine['swap_percent']:.0f}% used, "
        f"{machine['available_bytes'] / MIB:.0f}MiB memory available, load {machine['load']:.2f}"
    )
    return Reply(status="health", text="\n".join(lines), data={"processes": rows, "machine": machine})


def processes(roster: Registry, now_s: float) -> list[dict[str, Any]]:
    """Return a row for each program that should be there or is."""
    by_program = {peer.program: peer for peer in roster.processes()}
    states = roster.states
    names = dict.fromkeys([*_expected(roster), *by_program, *states])
    rows = {name: _row(name, by_program.get(name), roster, now_s) for name in names if name != "hub"}
    for name, row in rows.items():
        if row["state"] == "missing" and states.get(name, "RUNNING") not in {"RUNNING", "STARTING"}:
            last = roster.programs.get(name)
            row["state"], row["reason"] = states[name], last.reason if isinstance(last, ProcessDown) else ""
    return list(rows.values())


def _expected(roster: Registry) -> Iterable[str]:
    yield from (roster.program_of(role, camera) for camera in roster.cameras for role in PER_CAMERA)
    yield from FOR_ALL


def _row(name: str, peer: Peer | None, roster: Registry, now_s: float) -> dict[str, Any]:
    row: dict[str, Any] = {"program": name, "state": "missing", "reason": "not connected"}
    row |= {"camera": "", "pid": 0, "fps": -1.0, "lag": -1, "laps": 0, "rss_bytes": 0, "swap_bytes": 0, "figures": {}}
    if peer is None or peer.hello is None:
        return row
    row |= {"camera": peer.hello.camera, "pid": peer.hello.pid, "state": "starting", "reason": ""}
    if peer.beat:
        row |= {key: value for key, value in values_of(peer.beat).items() if key != "role"}
    if (silent_s := now_s - peer.beat_s) > SILENT_S:
        row |= {"state": "silent", "reason": f"no sign of life for {silent_s:.0f} s"}
    return row


def _doing(row: dict[str, Any]) -> str:
    """Put a row's figures into words; only those there are."""
    words = [f"fps={row['fps']:.1f}"] if row["fps"] >= 0 else []
    words += [f"lag={row['lag']}"] if row["lag"] > 0 else []
    words += [f"laps={row['laps']}"] if row["laps"] else []
    words += [f"rss={row['rss_bytes'] / MIB:.0f}MiB"] if row["rss_bytes"] else []
    words += [row["reason"]] if row["reason"] else []
    figures = [
        f"{n}={v}" for n, v in sorted(row["figures"].items()) if isinstance(v, int | float | str) and v not in {"", 0}
    ]
    return _within(words + [figure for figure in figures if len(figure) <= FIGURE_MAX], LINE_MAX - 30)


def _within(words: list[str], cells: int) -> str:
    """Join as many words as fit, so that status stays one line a process on any terminal."""
    line = ""
    for word in words:
        if line and len(line) + 1 + len(word) > cells:
            break
        line = f"{line} {word}".strip()
    return line


def camera_rows(roster: Registry) -> list[dict[str, Any]]:
    """Return what is known of each configured camera."""
    rows = []
    for camera in roster.cameras:
        row: dict[str, Any] = {
            "camera": camera,
            "state": "unknown",
            "source": "",
            "model": "",
            "mode": "",
            "night": None,
        }
        row |= {"recording": None, "device_id": "", "modes": [], "reason": ""}
        for kind in ("camera", "mode", "night", "recording"):
            if event := roster.latest.get((kind, camera)):
                row |= _known(event)
        capture = next((p for p in roster.owners("detect", camera)), None)
        row |= {"fps": capture.beat.fps, **_figures(capture, row)} if capture and capture.beat else {}
        rows.append(row)
    return rows


def _figures(peer: Peer, row: dict[str, Any]) -> dict[str, Any]:
    """Take what capture counts; its mode too, until the first mode_changed tells it."""
    figures = peer.beat.figures if peer.beat else {}
    names = ("width", "height", "pixel_format", "exposure_us", "gain", "dropped")
    return {name: figures[name] for name in names if name in figures} | {"mode": row["mode"] or figures.get("mode", "")}


def _known(event: Event) -> dict[str, Any]:
    """Turn the latest event of a kind into what it says about now."""
    values, name = values_of(event), wire_name(event)
    if name in {"camera_found", "camera_lost"}:
        return {k: v for k, v in values.items() if k != "camera"} | {
            "state": "found" if name == "camera_found" else "lost"
        }
    if name == "mode_changed":
        return {"mode": values["new"]}
    if name.startswith("night"):
        return {"night": name == "night_began"}
    return {"recording": values["path"] if name == "recording_started" else None}


def _camera(row: dict[str, Any], cells: int = 1000) -> str:
    size = f"{row['width']}x{row['height']}" if "width" in row else ""
    rate = f"{row['fps']:.1f}fps" if row.get("fps", -1) >= 0 else ""
    night = {True: "NIGHT", False: "DAY", None: ""}[row["night"]]
    recording = "RECORDING" if row["recording"] else ""
    words = (row["state"], row["source"], row["model"], size, rate, row["mode"], night, recording, row["reason"])
    line = " ".join(word for word in words if word)
    return line if len(line) <= cells else line[: cells - 1] + "…"
