"""The calls of supervisord, by XML-RPC over its Unix socket, with a timeout."""

from __future__ import annotations

import http.client
import os
import socket
import xmlrpc.client
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, cast

from msgspec import Struct

from shmcam.runtime.atomic_files import read_state
from shmcam.runtime.folder_checks import user_name
from shmcam.runtime.procfs import find_commands

TIMEOUT_S = 6.0
"""supervisord answers at once, except while it waits for the end of a program (5 s); a stopped one costs us this."""


SOCKET = "supervisor.sock"
"""The name of its socket in [paths] run (supervisord.conf)."""

PID_FILE = "supervisord.pid"
"""The name of its pid file there."""


def is_listening(path: Path) -> bool:
    """Returns whether a process listens on a Unix socket; a stale socket file does not count."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(1.0)
        probe.connect(str(path))
        return True
    return False


def find_owner(path: Path) -> str:
    """Returns the user whose socket, or whose folder around it, is closed to this process; "" if none is."""
    for there in (path, *path.parents):
        try:
            uid = there.stat().st_uid
        except PermissionError:
            continue
        except OSError:
            return ""
        return "" if os.access(path, os.W_OK) else user_name(uid)
    return ""


def find_supervisord(run: Path, confs: Collection[Path]) -> int:
    """Returns the pid of the supervisord of a run folder or of one of these files, its socket there or not; 0: none."""
    noted = ""
    with suppress(OSError):
        noted = read_state(run / PID_FILE).decode(errors="replace").strip()
    wanted = set(map(str, confs))
    for pid, arguments in find_commands():
        if is_supervisord(arguments) and (str(pid) == noted or wanted & set(arguments)):
            return pid
    return 0


def is_supervisord(arguments: Sequence[str]) -> bool:
    """Returns whether a command line starts supervisord: as a program, as a script of Python, or as its module.

    An editor with supervisord.conf open is none.
    """
    names = {PurePath(argument).name for argument in arguments[:2]}
    module = next((word for option, word in pairwise(arguments) if option == "-m"), "")
    return "supervisord" in names or module in ("supervisor", "supervisor.supervisord", "shmcam.supervisord")


class SupervisordError(OSError):
    """supervisord did not answer, or refused."""


class Program(Struct, frozen=True):
    """One program as supervisord sees it."""

    name: str
    group: str
    state: str
    """RUNNING, STARTING, BACKOFF, FATAL, STOPPED, STOPPING, EXITED."""
    pid: int
    started_utc_s: float
    """Seconds since 1970, of supervisord's clock."""
    exit_status: int
    spawn_error: str
    """supervisord's words for why it did not start, if so."""

    @property
    def full_name(self) -> str:
        """group:name, as supervisord's calls need it."""
        return f"{self.group}:{self.name}"


class Supervisord:
    """The calls of one supervisord."""

    def __init__(self, url: str) -> None:
        """`url`: SUPERVISOR_SERVER_URL, unix:///path/to/supervisor.sock."""
        self._proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(url.removeprefix("unix://")))

    def programs(self) -> list[Program]:
        """Returns every program. Raises: SupervisordError, as all of these."""
        rows = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return [
            Program(r["name"], r["group"], r["statename"], r["pid"], r["start"], r["exitstatus"], r["spawnerr"] or "")
            for r in rows
        ]

    def start(self, full_name: str) -> None:
        """Starts a program; does not wait until it runs."""
        self._call("startProcess", full_name, False)

    def kill(self, full_name: str) -> None:
        """Sends SIGKILL to what runs as this program now; supervisord knows its child, so no other process is hit."""
        self._call("signalProcess", full_name, "KILL")

    def terminate(self, full_name: str) -> None:
        """Sends SIGTERM, without waiting; supervisord starts the program again when it has ended."""
        self._call("signalProcess", full_name, "TERM")

    def reload(self) -> None:
        """Ends all programs and begins anew with supervisord.conf as it is now, if that can be read."""
        self._call("reloadConfig")
        self._call("restart")

    def _call(self, method: str, *arguments: object) -> object:
        try:
            return getattr(self._proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisordError(f"{method} {arguments[:1]}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, ValueError) as problem:
            raise SupervisordError(f"{method}: {problem}") from problem


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket with a timeout: supervisor's own has none, and a stopped one would hold us."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        """Makes a fresh one each time: supervisord closes idle ones."""
        return _UnixConnection(Path(self._path))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))
