"""What keeps this configuration from running: its paths, a service that runs already, a port that is taken."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from shmcam.config.settings import Settings
from shmcam.runtime.atomic_files import existing_parent_of
from shmcam.runtime.supervisord import SOCKET, find_owner, find_supervisord, is_listening
from shmcam.runtime.supervisord_programs import TEMPLATE, is_home

SOCKET_PATH_MAX = 107
"""sun_path of unix(7), less the final zero."""

CANNOT_WRITE = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)

PID_SUFFIX_BYTES = len(".4194304")
"""supervisord binds its socket under a name with its pid first, and renames it; the longest pid of proc(5)."""


def find_path_problem(settings: Settings) -> str:
    """Returns the reason why supervisord cannot use the paths of a configuration, and what to change; empty: it can."""
    paths = settings.paths
    saved = (paths.captures, paths.recordings, paths.archives, paths.library)
    for path in (settings.path, Path(sys.executable), paths.run, paths.logs, *saved):
        if not str(path).isprintable() and any(c in str(path) for c in "\n\r\0"):
            return f"{str(path)!r}: supervisord cannot use a path with a line break; rename that folder"
        try:
            str(path).encode()
        except UnicodeEncodeError:
            user = "the library" if path in saved else "supervisord"
            return f"{os.fsencode(path)!r}: {user} cannot use a path that is not UTF-8; rename that folder"
    longest = paths.run / SOCKET  # the longest name there
    length, limit = len(os.fsencode(longest)), SOCKET_PATH_MAX - PID_SUFFIX_BYTES
    if length > limit:
        return (
            f"the socket's path is {length} bytes long, {limit} are possible: {longest}; "
            'set [paths] run = "/run/shmcam" in config.toml, or another short folder'
        )
    return _find_socket_problem(existing_parent_of(paths.run))


def _find_socket_problem(folder: Path) -> str:
    """Returns the reason why no socket can be made in a folder that can be written: FAT, exFAT and SMB know none."""
    probe = folder / f".{os.getpid()}.sock"
    try:
        with socket.socket(socket.AF_UNIX) as unbound:
            unbound.bind(str(probe))
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            return ""  # told with the other folders
        return (
            f"{folder} is on a disk that knows no Unix sockets ({os.strerror(error.errno or 0)}); "
            'set [paths] run = "/run/shmcam" in config.toml, or another folder on a disk of Linux'
        )
    finally:
        with suppress(OSError):
            probe.unlink()
    return ""


def find_running(settings: Settings) -> str:
    """Returns words about the supervisord of this configuration that runs; empty: none does."""
    path = settings.paths.run / SOCKET
    if is_listening(path):
        return f"already running with run folder {settings.paths.run}"
    confs = [settings.paths.run / "supervisord.conf", *([TEMPLATE] if is_home(settings) else [])]
    if pid := find_supervisord(settings.paths.run, confs):
        if owner := find_owner(path):
            return f"already running as pid {pid} of user {owner}; to start it anew, type: sudo shmcam restart"
        text = f"already running as pid {pid}, but its socket {path} is gone"
        return f"{text}; if the watchdog does not bring it back, type: kill -HUP {pid}"
    return ""


def find_port_holder(bind: str, port: int) -> str:
    """Returns who has a TCP port, such as "pid 812 (python3)"; "" if it is free."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as problem:
            return _name_port_holder(port) if problem.errno == errno.EADDRINUSE else ""
    return ""


def _name_port_holder(port: int) -> str:
    import psutil

    with suppress(psutil.Error):  # other users' sockets have no pid
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and getattr(connection.laddr, "port", 0) == port
                and connection.pid
            ):
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another program"
