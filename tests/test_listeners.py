"""Every socket that the service listens on, found by looking: silent peers take no place for ever at any of them."""

import re
import socket
import urllib.request
from pathlib import Path

import psutil

from tests.machine import PATIENCE, until
from tests.pipeline import Pipeline, free_port

SILENT = 300
"""More than any listener has places."""


def find_listeners(pid: int) -> dict[str, str]:
    """Every listening socket of a process and its descendants, address → name of the process."""
    owners: dict[int, str] = {}
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        name = process.cmdline()[-1]
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                owners[int(found[1])] = name
    found = {}
    for table in ("tcp", "tcp6"):
        for row in (line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]):
            if row[3] == "0A" and int(row[9]) in owners:
                found[str(int(row[1].rpartition(":")[2], 16))] = owners[int(row[9])]
    for row in (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]):
        if int(row[3], 16) & 0x10000 and int(row[6]) in owners:  # SO_ACCEPTCON
            found[row[7].split(".")[0] if len(row) > 7 else "?"] = owners[int(row[6])]
    return found


def connect(where: int | Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET)
    link.settimeout(PATIENCE * 10)
    link.connect(str(where) if isinstance(where, Path) else ("127.0.0.1", where))
    return link


def test_silent_peers_keep_nobody_out_of_any_listener():
    """Idle trigger connections, Unix connections and WebSockets took every place until they went by themselves."""
    port = free_port()
    with Pipeline(network={"trigger_port": port}) as shmcam:
        run = shmcam.folder / "run"
        listeners = find_listeners(shmcam.supervisord_pid)
        ours = {str(shmcam.port), str(port), str(run / "control")}
        assert set(listeners) == ours | {str(run / "supervisor")}, "a new listener needs a case below"

        def ask_http() -> bool:
            with urllib.request.urlopen(f"{shmcam.url}/snapshot.jpg", timeout=PATIENCE * 10) as answer:
                return answer.status == 200

        def ask_trigger_port() -> bool:
            with connect(port) as link:
                link.sendall(b"ping\n")
                return link.recv(100) == b"pong\n"

        cases = {
            shmcam.port: ask_http,
            port: ask_trigger_port,
            run / "control.sock": lambda: shmcam.text("ping") == "pong",
        }
        held = []
        try:
            for where, ask in cases.items():
                for number in range(SILENT):
                    held.append(connect(where))
                    if number % 50 == 49:
                        assert ask(), where  # or the kernel's queue of connections overflows
                until(ask, 10, f"an answer at {where}")
            upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            for number in range(SILENT):
                held.append(connect(shmcam.port))
                held[-1].sendall(f"GET /ws HTTP/1.1\r\nHost: localhost\r\n{upgrade}{key}\r\n".encode())
                if number % 50 == 49:
                    assert ask_http(), "WebSockets leave places to pages"
            shmcam.supervisorctl("restart", "exporter")
            until(lambda: shmcam.text("save").startswith("Saved"), 30, "a process of ours finds its place at the hub")
        finally:
            for link in held:
                link.close()
