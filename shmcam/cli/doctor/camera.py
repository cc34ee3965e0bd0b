"""Checks of the camera: picamera2, the device nodes, their group, the processes that have them open."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from shmcam.cli.doctor.finding import Finding, note, ok, problem
from shmcam.cli.doctor.imports import find_import_errors
from shmcam.cli.options import Options
from shmcam.runtime.procfs import find_holders

SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
MODEL = Path("/proc/device-tree/model")


def check_camera(options: Options) -> Iterator[Finding]:
    """Checks picamera2, the device nodes, their group, and the processes that have them open."""
    is_pi = "Raspberry Pi" in _read_text(MODEL)
    source = str(options.settings().value("camera.source"))
    yield from _check_picamera2(is_pi=is_pi, is_wanted=source in {"auto", "picamera2"})
    nodes = sorted([*Path("/dev").glob("video*"), *Path("/dev").glob("media*")])
    if not nodes:
        text = "no camera device (/dev/video*, /dev/media*)"
        if is_pi or source in {"picamera2", "v4l2"}:
            yield problem(f"{text}: check the ribbon cable with the power off", "rpicam-hello --list-cameras")
        else:
            yield note(f"{text}; source = {source!r} runs on the synthetic camera without one")
        return
    yield ok(f"camera devices: {', '.join(node.name for node in nodes[:8])}{' …' if len(nodes) > 8 else ''}")
    yield from _check_group(nodes)
    yield from _check_holders(nodes)


def _check_picamera2(*, is_pi: bool, is_wanted: bool) -> Iterator[Finding]:
    if find_spec("picamera2") and find_spec("libcamera"):
        for module, error in find_import_errors(["picamera2"]).items():
            level = problem if is_wanted else note
            yield level(f"{module} cannot be imported: {error}", "rm -rf .venv && make setup")
            return
        yield ok(f"picamera2 {_version_of('picamera2')} on libcamera {_version_of('libcamera')}")
    elif (SYSTEM_PACKAGES / "picamera2").exists():
        text = "python3-picamera2 is installed, but this environment does not see the system's packages"
        yield problem(text, "rm -rf .venv && make setup")
    elif is_pi:
        yield problem("picamera2 is missing, which this camera needs", "sudo apt-get install -y python3-picamera2")
    else:
        yield note("picamera2 is not installed (only Raspberry Pi cameras need it)")


def _version_of(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "(version unknown)"


def _check_group(nodes: list[Path]) -> Iterator[Finding]:
    """Checks that this user may open the devices."""
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if not closed:
        yield ok("this user may open them")
        return
    number = closed[0].stat().st_gid
    try:
        name = grp.getgrgid(number).gr_name
    except KeyError:
        name = str(number)  # inside a container the group may be the host's
    yield problem(
        f"this user may not open {closed[0]} (group {name})", f"sudo usermod -aG {name} $USER && newgrp {name}"
    )


def _check_holders(nodes: list[Path]) -> Iterator[Finding]:
    """Names the processes that have a camera open."""
    for holder in find_holders(map(str, nodes)):
        command = holder.command[:80]
        text = f"{', '.join(holder.devices[:3])} is open in {command} (pid {holder.pid})"
        if "capture" in command:
            yield ok(text)
        else:
            yield problem(f"{text}; a camera has one owner at a time", f"kill {holder.pid}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
