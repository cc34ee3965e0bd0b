"""doctor: software, memory, disk, clock, permissions."""

from __future__ import annotations

import ctypes.util
import os
import platform
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from shmcam.cli.doctor.finding import Finding, note, ok, problem
from shmcam.cli.options import Options
from shmcam.runtime.files import existing

MIB = 1024 * 1024
SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
PACKAGES = ("numpy", "opencv-python-headless", "posix_ipc", "msgpack", "supervisor", "av", "aiohttp", "simplejpeg")
DISK_LOW_BYTES = 1024 * MIB
PIPELINE_BYTES = 350 * MIB
"""Budget of all processes without the rings (design.md §2)."""
SOCKET_PATH_MAX = 107
"""sun_path of unix(7), less the final zero."""
SYSTEM_UID_MAX = 999
EARLIEST = 1_704_067_200
"""2024-01-01: a clock before this was never set."""


def software(_options: Options) -> Iterator[Finding]:
    """Look at Python, our packages, and what the processor needs."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the wrong interpreter may well run this
        yield problem(f"Python {platform.python_version()}: 3.11 or newer is needed", "make setup PYTHON=python3.11")
    missing = [name for name in PACKAGES if not _installed(name)]
    if missing:
        yield problem(f"packages are missing: {', '.join(missing)}", "make setup")
    else:
        yield ok(f"Python {platform.python_version()} with all packages, {platform.machine()}")
    if platform.machine() not in {"x86_64", "i686"} and ctypes.util.find_library("atomic") is None:
        yield problem(
            "libatomic is missing, which the ring needs on this processor", "sudo apt-get install -y libatomic1"
        )
    if not shutil.which("socat"):
        yield note("socat is not installed; the examples use it", "sudo apt-get install -y socat")


def memory(options: Options) -> Iterator[Finding]:
    """Look at memory, swap and /dev/shm against what the rings will take."""
    settings = options.settings()
    need = sum(_ring_bytes(options, camera) for camera in settings.cameras)
    shm = shutil.disk_usage(SHM)
    held = sum(p.stat().st_size for p in SHM.glob(f"{settings.value('ring.prefix')}.*"))
    text = f"{SHM}: {shm.free // MIB} MiB free, the rings want about {need // MIB} MiB"
    if need > shm.free + held:
        yield problem(
            text, f"sudo mount -o remount,size={(need + 64 * MIB) // MIB}M /dev/shm   # or a smaller ring.seconds"
        )
    else:
        yield ok(text)
    available = psutil.virtual_memory().available
    text = f"memory: {available // MIB} MiB available"
    wanted = PIPELINE_BYTES + max(0, need - held)
    yield (
        ok(text)
        if available > wanted
        else problem(f"{text}, about {wanted // MIB} MiB wanted", "shmcam get ring.seconds")
    )
    swap = psutil.swap_memory()
    if swap.total and swap.percent > 70:
        yield problem(f"swap: {swap.percent:.0f} % used; capture slows down above 70 %", "shmcam health")


def _ring_bytes(options: Options, camera: str) -> int:
    """Estimate a camera's main ring: yuv420p, `size` slots or `seconds` of them."""
    settings = options.settings()
    prefix = f"cameras.{camera}." if camera in settings.document.get("cameras", {}) else ""
    width, height = (
        int(settings.value(f"{prefix}{name}" if prefix else f"camera.{name}")) for name in ("width", "height")
    )
    rate = float(settings.value("camera.framerate")) or 60.0
    slots = int(settings.value("ring.size")) or int(float(settings.value("ring.seconds")) * rate)
    return width * height * 3 // 2 * slots


def disk(options: Options) -> Iterator[Finding]:
    """Look at the space where clips and pictures go."""
    paths = options.settings().paths
    seen: set[int] = set()
    for folder in (paths.recordings, paths.captures, paths.logs):
        there = existing(folder)
        if there.stat().st_dev in seen:
            continue
        seen.add(there.stat().st_dev)
        usage = shutil.disk_usage(there)
        text = f"{there}: {usage.free // MIB} MiB free of {usage.total // MIB}"
        yield ok(text) if usage.free > DISK_LOW_BYTES else problem(text, "shmcam library list")


def clock(_options: Options) -> Iterator[Finding]:
    """Look at the wall clock: names and the library go by it (durations do not)."""
    if time.time() < EARLIEST:
        yield problem(f"the clock says {time.strftime('%Y-%m-%d')}", "sudo timedatectl set-ntp true")
        return
    synchronized = ""
    if shutil.which("timedatectl"):
        command = ["timedatectl", "show", "-p", "NTPSynchronized", "--value"]
        try:
            synchronized = subprocess.run(
                command, capture_output=True, text=True, timeout=5, check=False
            ).stdout.strip()
        except subprocess.TimeoutExpired:
            synchronized = ""
    text = f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
    yield note(f"{text}, not synchronized", "sudo timedatectl set-ntp true") if synchronized == "no" else ok(text)


def _user() -> str:
    """Who we are, by name where there is one: in containers often nobody has entered us into /etc/passwd."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def permissions(options: Options) -> Iterator[Finding]:
    """Look at folders, socket path and the user."""
    settings = options.settings()
    closed = []
    for folder in (settings.paths.run, settings.paths.logs, settings.paths.captures, settings.paths.recordings):
        there = existing(folder)
        if not os.access(there, os.W_OK | os.X_OK):
            closed.append(there)
    user = _user()
    for folder in dict.fromkeys(closed):
        yield problem(f"{user} may not write in {folder}", f"sudo chown -R {user} {folder}")
    if not closed:
        yield ok(f"{user} may write where the configuration says")
    length = len(str(settings.socket_path).encode())
    if length > SOCKET_PATH_MAX:
        said = f"the socket's path is {length} bytes long, {SOCKET_PATH_MAX} are possible"
        yield problem(said, 'set [paths] run = "/run/shmcam" in config.toml')
    if os.getuid() == 0:
        yield note("running as root; the service needs no root", "make install   # a system user of its own")
    elif os.getuid() > SYSTEM_UID_MAX and _removes_ipc():
        said = "logind removes this user's shared memory when the last session ends (RemoveIPC)"
        yield note(said, f"sudo loginctl enable-linger {user}")


def _removes_ipc() -> bool:
    """Tell whether systemd-logind is there and has not been told to leave IPC objects alone."""
    if not Path("/run/systemd/system").exists():
        return False
    try:
        return "RemoveIPC=no" not in Path("/etc/systemd/logind.conf").read_text()
    except OSError:
        return True


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
