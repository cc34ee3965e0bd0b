"""doctor: is there a camera, may we use it, who holds it."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from shmcam.cli.doctor.finding import Finding, note, ok, problem
from shmcam.cli.options import Options

SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
MODEL = Path("/proc/device-tree/model")


def camera(options: Options) -> Iterator[Finding]:
    """Look at picamera2, the device nodes, the group and who has them open."""
    is_pi = "Raspberry Pi" in _text(MODEL)
    yield from _picamera2(is_pi=is_pi)
    nodes = sorted([*Path("/dev").glob("video*"), *Path("/dev").glob("media*")])
    wanted = str(options.settings().value("camera.source"))
    if not nodes:
        text = "no camera device (/dev/video*, /dev/media*)"
        if is_pi or wanted in {"picamera2", "v4l2"}:
            yield problem(f"{text}: check the ribbon cable with the power off", "rpicam-hello --list-cameras")
        else:
            yield note(f"{text}; source = {wanted!r} runs on the synthetic camera without one")
        return
    yield ok(f"camera devices: {', '.join(node.name for node in nodes[:8])}{' …' if len(nodes) > 8 else ''}")
    yield from _group(nodes)
    yield from _holders(nodes)


def _picamera2(*, is_pi: bool) -> Iterator[Finding]:
    if find_spec("picamera2") and find_spec("libcamera"):
        yield ok(f"picamera2 {_version('picamera2')} on libcamera {_version('libcamera')}")
    elif (SYSTEM_PACKAGES / "picamera2").exists():
        said = "python3-picamera2 is installed, but this environment does not see the system's packages"
        yield problem(said, "rm -rf .venv && make setup")
    elif is_pi:
        yield problem("picamera2 is missing, which this camera needs", "sudo apt-get install -y python3-picamera2")
    else:
        yield note("picamera2 is not installed (only Raspberry Pi cameras need it)")


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "(version unknown)"


def _group(nodes: list[Path]) -> Iterator[Finding]:
    """Tell whether we may open the devices."""
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if not closed:
        yield ok("this user may open them")
        return
    number = closed[0].stat().st_gid
    try:
        name = grp.getgrgid(number).gr_name
    except KeyError:
        name = str(number)  # the host's, inside a container
    yield problem(
        f"this user may not open {closed[0]} (group {name})", f"sudo usermod -aG {name} $USER && newgrp {name}"
    )


def _holders(nodes: list[Path]) -> Iterator[Finding]:
    """Name the processes that have a camera open."""
    found = holders({str(node) for node in nodes})
    for pid, (command, devices) in sorted(found.items()):
        text = f"{', '.join(sorted(devices)[:3])} is open in {command} (pid {pid})"
        if "capture" in command:
            yield ok(text)
        else:
            yield problem(f"{text}; a camera has one owner at a time", f"kill {pid}")


def holders(devices: set[str]) -> dict[int, tuple[str, set[str]]]:
    """Return pid → (command line, devices) of every process of ours (root: of all) that has one open."""
    found: dict[int, tuple[str, set[str]]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            opened = {str(link.readlink()) for link in (entry / "fd").iterdir()} & devices
        except OSError:
            continue  # gone meanwhile, or not ours to see
        if opened:
            found[int(entry.name)] = (_text(entry / "cmdline").replace("\0", " ").strip()[:80], opened)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
