"""Checks of the service: its ports, its programs, its cameras."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from shmcam.cli.doctor.finding import Finding, note, ok, problem
from shmcam.cli.options import Options
from shmcam.cli.run.start_checks import find_running
from shmcam.cli.supervisorctl import supervisord_of
from shmcam.config.optional_program import find_missing, list_enabled, optional_programs
from shmcam.config.settings import Settings
from shmcam.control.call import call
from shmcam.control.messages import Status
from shmcam.runtime.supervisord import SOCKET, SupervisordError, find_owner, is_listening


def check_ports(options: Options) -> Iterator[Finding]:
    """Checks that the ports of the configuration are free, or served by this service."""
    settings = options.settings()
    addresses = [("web page", str(settings.value("http.bind")), int(settings.value("mjpeg_server.port")))]
    if trigger := int(settings.value("network.trigger_port")):
        addresses.append(("trigger port", str(settings.value("network.bind")), trigger))
    is_running = is_listening(settings.socket_path)
    for name, bind, port in addresses:
        if _is_free(bind, port):
            yield ok(f"{name} {bind}:{port} is {'not served' if is_running else 'free'}")
        elif is_running:
            yield ok(f"{name} {bind}:{port} is served")
        else:
            yield problem(f"{name}: port {port} is taken by another program", f"sudo ss -ltnp 'sport = :{port}'")


def _is_free(bind: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError:
            return False
        return True


def check_optional_programs(options: Options) -> Iterator[Finding]:
    """Checks that what the enabled optional programs need is installed."""
    settings = options.settings()
    for name in list_enabled(settings):
        if need := find_missing(settings, name):
            yield problem(f"[{name}] enable = true: {name} needs {need.name}", need.type_this)
        else:
            yield ok(f"{name} is enabled, and what it needs is there")


def check_service(options: Options) -> Iterator[Finding]:
    """Checks supervisord, the hub and each program."""
    settings = options.settings()
    if not is_listening(settings.paths.run / SOCKET):
        yield _explain_silence(settings)
        return
    try:
        programs = supervisord_of(settings).programs()
    except (SupervisordError, PermissionError) as error:
        yield problem(f"supervisord does not answer: {error}", f"ls -l {settings.paths.run}/supervisor.sock")
        return
    enabled = set(list_enabled(settings))
    present = {program.name for program in programs} & optional_programs().keys()
    for name in sorted(enabled ^ present):
        text = "enabled, and not yet" if name in enabled else "not enabled, and still"
        yield note(f"{name} is {text} a program of the service", "shmcam update")
    down = [program for program in programs if program.state not in {"RUNNING", "STARTING"}]
    for program in down:
        text = f"{program.name} is {program.state} (exit {program.exit_status}) {program.spawn_error}".rstrip()
        level = note if program.state == "STOPPED" else problem
        action = "start" if program.state == "STOPPED" else "logs"
        yield level(text, f"shmcam {action} {program.name}")
    if not down:
        yield ok(f"all {len(programs)} programs run")
    reply = call(settings.socket_path, Status(), 5.0)
    if not reply.ok:
        yield problem(reply.text.removeprefix("ERROR: "), "shmcam restart hub")
        return
    for row in reply.data["processes"]:
        if row["state"] == "silent":
            yield problem(f"{row['program']}: {row['reason']}", f"shmcam logs {row['program']}")
    for row in reply.data["cameras"]:
        if row["state"] == "lost":
            yield problem(f"{row['camera']}: {row['reason'] or 'no camera'}", "shmcam detect")
        elif row["state"] == "found":
            yield ok(f"{row['camera']}: {row['source']} {row['model']} at {row.get('fps', 0):.1f}/s")


def _explain_silence(settings: Settings) -> Finding:
    """Returns why supervisord's socket is not there for this user."""
    if owner := find_owner(settings.paths.run / SOCKET):
        return note(f"the programs of the service are shown to user {owner} only", "sudo shmcam doctor")
    if running := find_running(settings):
        text, _, line = running.partition("; ")
        return problem(f"the service is {text}", line.rpartition("type: ")[2])
    unit = Path("/etc/systemd/system/shmcam.service").exists()
    return note("the service is not running", "sudo systemctl start shmcam" if unit else "make run")
