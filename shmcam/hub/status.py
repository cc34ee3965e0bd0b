"""Builds the hub's answers to `status`, `health` and `cameras` from its registry. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import asdict

from shmcam.config.settings import FOR_ALL, PER_CAMERA
from shmcam.control.messages import Event, ProcessDown, Reply, wire_name
from shmcam.hub.registry import Peer, Registry

SILENT_S = 4.0
"""A process without a heartbeat for this long is shown as silent."""

MIB = 1024 * 1024

LINE_MAX = 118
"""Longest line in characters."""

FIGURE_MAX = 32
"""Longer figures (paths) appear with --json only."""


def status_reply(registry: Registry, now_s: float) -> Reply:
    """Returns the state of every process: one line each, then one per camera."""
    rows = process_rows(registry, now_s)
    cameras = camera_rows(registry)
    lines = [f"{row['program']:<18} {row['state']:<10} {_show_figures(row)}".rstrip() for row in rows]
    lines += [f"{row['camera']:<18} {_camera_line(row, LINE_MAX - 19)}" for row in cameras]
    is_well = all(row["state"] not in {"silent", "missing", "FATAL", "EXITED", "BACKOFF"} for row in rows)
    return Reply(
        ok=True, status="status", text="\n".join(lines), data={"ok": is_well, "processes": rows, "cameras": cameras}
    )


def cameras_reply(registry: Registry) -> Reply:
    """Returns the configured cameras: their sources, modes and rates."""
    rows = camera_rows(registry)
    lines = [f"{row['camera']:<8} {_camera_line(row)}" for row in rows]
    return Reply(status="cameras", text="\n".join(lines), data={"cameras": rows})


def health_reply(registry: Registry, now_s: float, hub: dict[str, Any], machine: dict[str, Any]) -> Reply:
    """Returns memory, swap and state of every process; the caller measures `hub` and `machine`."""
    rows = [hub, *process_rows(registry, now_s)]
    lines = [
        f"{row['program']:<18} {row['state']:<10} rss={row['rss_bytes'] / MIB:.0f}MiB "
        f"swap={row['swap_bytes'] / MIB:.0f}MiB {row.get('reason', '')}".rstrip()
        for row in rows
    ]
    # Each row has what programs share (they are forked from one), the sum has it once.
    taken = registry.service_bytes or sum(row["rss_bytes"] for row in rows)
    machine = {"service_bytes": taken, **machine}
    total = taken / MIB
    lines.append(
        f"{'machine':<29} {total:.0f}MiB in all (what programs share counted once), "
        f"swap {machine['swap_percent']:.0f}% used, "
        f"{machine['available_bytes'] / MIB:.0f}MiB memory available, load {machine['load']:.2f}"
    )
    former = f"RSS={total:.1f}MiB SWAP={machine['swap_percent']:.1f}%"  # the whole reply of the former programs
    lines.insert(0, former)
    return Reply(status="health", text="\n".join(lines), data={"processes": rows, "machine": machine})


def process_rows(registry: Registry, now_s: float) -> list[dict[str, Any]]:
    """Returns a row for each program that is expected or connected."""
    by_program = {peer.program: peer for peer in registry.processes()}
    states = registry.program_states
    names = dict.fromkeys([*_expected_programs(registry), *by_program, *states])
    rows = {name: _process_row(name, by_program.get(name), now_s) for name in names if name != "hub"}
    for name, row in rows.items():
        if row["state"] == "missing" and states.get(name, "RUNNING") not in {"RUNNING", "STARTING"}:
            last = registry.programs.get(name)
            row["state"], row["reason"] = states[name], last.reason if isinstance(last, ProcessDown) else ""
    return list(rows.values())


def _expected_programs(registry: Registry) -> Iterable[str]:
    yield from (registry.program_of(role, camera) for camera in registry.cameras for role in PER_CAMERA)
    yield from FOR_ALL


def _process_row(name: str, peer: Peer | None, now_s: float) -> dict[str, Any]:
    row: dict[str, Any] = {"program": name, "state": "missing", "reason": "not connected"}
    row |= {"camera": "", "pid": 0, "fps": -1.0, "lag": -1, "laps": 0, "rss_bytes": 0, "swap_bytes": 0, "figures": {}}
    if peer is None or peer.hello is None:
        return row
    row |= {"camera": peer.hello.camera, "pid": peer.hello.pid, "state": "starting", "reason": ""}
    if peer.heartbeat:
        row |= {key: value for key, value in asdict(peer.heartbeat).items() if key != "role"}
    if (silent_s := now_s - peer.last_seen_s) > SILENT_S:
        row |= {"state": "silent", "reason": f"no sign of life for {silent_s:.0f} s"}
    return row


def _show_figures(row: dict[str, Any]) -> str:
    """Returns a row's figures as words, without those it does not have."""
    words = [f"fps={row['fps']:.1f}"] if row["fps"] >= 0 else []
    words += [f"lag={row['lag']}"] if row["lag"] > 0 else []
    words += [f"laps={row['laps']}"] if row["laps"] else []
    words += [f"rss={row['rss_bytes'] / MIB:.0f}MiB"] if row["rss_bytes"] else []
    if row["reason"]:  # cut rather than left out: it is what a person looks for
        room = LINE_MAX - 31 - len(" ".join(words))
        words += [row["reason"] if len(row["reason"]) <= room else row["reason"][: room - 1] + "…"]
    figures = [
        f"{n}={v}" for n, v in sorted(row["figures"].items()) if isinstance(v, int | float | str) and v not in {"", 0}
    ]
    return _join_within(words + [figure for figure in figures if len(figure) <= FIGURE_MAX], LINE_MAX - 30)


def _join_within(words: list[str], cells: int) -> str:
    """Joins as many words as fit, so that a process takes one line on any terminal."""
    line = ""
    for word in words:
        if line and len(line) + 1 + len(word) > cells:
            break
        line = f"{line} {word}".strip()
    return line


def camera_rows(registry: Registry) -> list[dict[str, Any]]:
    """Returns a row for each configured camera, with its latest state."""
    rows = []
    for camera in registry.cameras:
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
            if event := registry.latest.get((kind, camera)):
                row |= _state_of(event)
        capture = next((p for p in registry.owners("detect", camera)), None)
        row |= {"fps": capture.heartbeat.fps, **_capture_figures(capture, row)} if capture and capture.heartbeat else {}
        if not registry.is_connected("capture", camera):
            is_stopped = registry.program_states.get(registry.program_of("capture", camera)) == "STOPPED"
            if row["state"] == "found" or is_stopped:
                row |= {"state": "unknown", "reason": ""}  # a lost one keeps its reason while it is tried again
        row["night"] = _find_night(registry, camera, row["night"])
        rows.append(row)
    return rows


def _find_night(registry: Registry, camera: str, announced: bool | None) -> bool | None:
    """Returns whether it is night by the analyzer's figures, or as announced before they came.

    None: no analyzer runs, and who announced it has gone.
    """
    analyzer = registry.find_process("analyzer", camera)
    figures = analyzer.heartbeat.figures if analyzer and analyzer.heartbeat else {}
    is_said = analyzer or any(("night", camera) in peer.standing for peer in registry.processes())
    return figures.get("night", announced) if is_said else None


def _capture_figures(peer: Peer, row: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of capture's heartbeat; its mode too, until the first mode_changed."""
    figures = peer.heartbeat.figures if peer.heartbeat else {}
    names = ("width", "height", "pixel_format", "exposure_us", "gain", "dropped")
    return {name: figures[name] for name in names if name in figures} | {"mode": row["mode"] or figures.get("mode", "")}


def _state_of(event: Event) -> dict[str, Any]:
    """Returns the fields of a camera's row that the latest event of a kind sets."""
    values, name = asdict(event), wire_name(event)
    if name in {"camera_found", "camera_lost"}:
        return {k: v for k, v in values.items() if k != "camera"} | {
            "state": "found" if name == "camera_found" else "lost"
        }
    if name == "mode_changed":
        return {"mode": values["new"]}
    if name.startswith("night"):
        return {"night": name == "night_began"}
    return {"recording": values["path"] if name == "recording_started" else None}


def _camera_line(row: dict[str, Any], cells: int = 1000) -> str:
    size = f"{row['width']}x{row['height']}" if "width" in row else ""
    rate = f"{row['fps']:.1f}fps" if row.get("fps", -1) >= 0 else ""
    night = {True: "NIGHT", False: "DAY", None: ""}[row["night"]]
    recording = "RECORDING" if row["recording"] else ""
    words = (row["state"], row["source"], row["model"], size, rate, row["mode"], night, recording, row["reason"])
    line = " ".join(word for word in words if word)
    return line if len(line) <= cells else line[: cells - 1] + "…"
