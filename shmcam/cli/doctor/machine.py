"""Checks of the machine: software, memory, disk, clock, permissions."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from shm_ring.machine.available_memory import SHM_FOLDER, available_room
from shmcam.cli.doctor.finding import Finding, note, ok, problem
from shmcam.cli.doctor.imports import find_import_errors
from shmcam.cli.options import Options
from shmcam.cli.run.start_checks import find_path_problem, find_running
from shmcam.config.memory_plan import plan_memory
from shmcam.config.optional_program import list_enabled
from shmcam.config.settings import Settings
from shmcam.library.disks.disk_space import measure_room
from shmcam.library.settings import LibrarySettings
from shmcam.runtime.atomic_files import existing_parent_of
from shmcam.runtime.folder_checks import find_folder_problems, user_name

MIB = 1024 * 1024
MODULES = ("numpy", "cv2", "simplejpeg", "av", "posix_ipc", "msgpack", "msgspec", "aiohttp", "supervisor.supervisord")
DISK_LOW_BYTES = 1024 * MIB
SYSTEM_UID_MAX = 999
EARLIEST_S = 1_704_067_200
"""2024-01-01: a clock before this was never set (Unix time)."""


def check_software(_options: Options) -> Iterator[Finding]:
    """Checks Python, the packages of this program, and the libraries that the processor needs."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the wrong interpreter may well run this
        yield problem(f"Python {platform.python_version()}: 3.11 or newer is needed", "make setup PYTHON=python3.11")
    refused = find_import_errors(MODULES)
    for module, error in refused.items():
        yield problem(f"{module} cannot be imported: {error}", "rm -rf .venv && make setup")
    if not refused:
        yield ok(f"Python {platform.python_version()} with all packages, {platform.machine()}")
    if platform.machine() not in {"x86_64", "i686"} and ctypes.util.find_library("atomic") is None:
        yield problem(
            "libatomic is missing, which the ring needs on this processor", "sudo apt-get install -y libatomic1"
        )
    if not shutil.which("socat"):
        yield note("socat is not installed; the examples use it", "sudo apt-get install -y socat")


def check_memory(options: Options) -> Iterator[Finding]:
    """Compares memory, swap and /dev/shm with what the rings will take."""
    settings = options.settings()
    plan, room = plan_memory(settings, len(list_enabled(settings))), available_room()
    held_bytes = sum(p.stat().st_size for p in SHM_FOLDER.glob(f"{settings.value('ring.prefix')}.*"))
    text = f"{SHM_FOLDER}: {room.shm_bytes // MIB} MiB free, the rings want about {plan.ring_bytes // MIB} MiB"
    if plan.ring_bytes > room.shm_bytes + held_bytes:
        size_mib = (plan.ring_bytes + 64 * MIB) // MIB
        yield problem(text, f"sudo mount -o remount,size={size_mib}M /dev/shm   # or a smaller ring.seconds")
    else:
        yield ok(text)
    program_bytes = 0 if find_running(settings) else plan.program_bytes
    needed_bytes = max(0, plan.ring_bytes - held_bytes) + program_bytes
    text = f"memory: {room.memory_bytes // MIB} MiB available"
    yield (
        ok(text)
        if room.memory_bytes > needed_bytes
        else problem(f"{text}, about {needed_bytes // MIB} MiB wanted; rings get smaller", "shmcam sizes")
    )
    swap = psutil.swap_memory()
    if swap.total and swap.percent > 70:
        yield problem(f"swap: {swap.percent:.0f} % used; capture slows down above 70 %", "shmcam health")


def check_disk(options: Options) -> Iterator[Finding]:
    """Checks the free space where clips and pictures go."""
    settings, devices = options.settings(), set[int]()
    paths = settings.paths
    for folder in (paths.recordings, paths.captures, paths.logs):
        there = existing_parent_of(folder)
        if there.stat().st_dev in devices:
            continue
        devices.add(there.stat().st_dev)
        room = measure_room(there, settings.table(LibrarySettings))
        text = f"{there}: {room.free_bytes // MIB} MiB free of {room.total_bytes // MIB}"
        if not room.total_bytes:
            yield note(f"{there}: this file system does not tell its free space")
        elif room.missing_files > 0:
            yield problem(f"{text}, but {room.free_files} inodes of {room.total_files}", "shmcam library list")
        else:
            yield ok(text) if room.free_bytes > DISK_LOW_BYTES else problem(text, "shmcam library list")


def check_clock(_options: Options) -> Iterator[Finding]:
    """Checks the wall clock, which file names and the library use (durations do not)."""
    if time.time() < EARLIEST_S:
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


def check_permissions(options: Options) -> Iterator[Finding]:
    """Checks the folders, the length of the socket's path, and the user."""
    settings = options.settings()
    problems = find_folder_problems(settings)
    owner = owner_of_service(settings)
    if owner not in {None, 0, os.getuid()}:
        yield note(f"the service runs as {user_name(int(owner or 0))}, which may write where this user may not")
    else:
        for item in problems:
            yield problem(str(item), item.type_this)
    user = user_name(os.getuid())
    if not problems:
        yield ok(f"{user} may write where the configuration says")
    if path_problem := find_path_problem(settings):
        yield problem(*path_problem.split("; ", 1))
    if os.getuid() == 0:
        yield note("running as root; the service needs no root", "make install   # a system user of its own")
    elif os.getuid() > SYSTEM_UID_MAX and _is_ipc_removed():
        text = "logind removes this user's shared memory when the last session ends (RemoveIPC)"
        yield note(text, f"sudo loginctl enable-linger {user}")


def owner_of_service(settings: Settings) -> int | None:
    """Returns the user id of the service's control socket; None: there is no socket."""
    try:
        return settings.socket_path.stat().st_uid
    except OSError:
        return None


def _is_ipc_removed() -> bool:
    """Returns whether systemd-logind is there and removes the IPC objects of a user who logs out (its default)."""
    if not Path("/run/systemd/system").exists():
        return False
    try:
        return "RemoveIPC=no" not in Path("/etc/systemd/logind.conf").read_text()
    except OSError:
        return True
