"""A real supervisord with the real hub and watchdog, and small programs that beat, hang or fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from shmcam.cli.run.command import prepare
from shmcam.config.settings import Settings
from shmcam.runtime.supervisord import Program, Supervisord, SupervisordError
from tests.shmcam.hub.hubs import HubProcess, connectable, until

CONF = """
[unix_http_server]
file={folder}/run/supervisor.sock
chmod=0700
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/run/supervisord.pid
environment=SHMCAM_CONFIG="{folder}/config.toml"
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:hub]
command={python} -m shmcam.hub
priority=10
startsecs=1
redirect_stderr=true
stdout_logfile={folder}/logs/hub.startup.log
[eventlistener:watchdog]
command={python} -m shmcam.watchdog
events=PROCESS_STATE,TICK_5
priority=90
startsecs=1
stderr_logfile={folder}/logs/watchdog.startup.log
"""

PROGRAM = """
[program:{name}]
command={python} {script} {name}
autostart={autostart}
startsecs=5
startretries={retries}
exitcodes=78
redirect_stderr=true
stdout_logfile={folder}/logs/{name}.startup.log
"""

BEATER = """
import sys, time
from pathlib import Path
from shmcam.control.client import ControlClient
from shmcam.runtime.startup import startup

role = sys.argv.pop(1)
with startup(role) as process, ControlClient(role, socket_path=process.settings.socket_path) as control:
    ballast, frames = b"", 0
    while not process.stop.requested:
        orders = Path(f"orders-{role}")
        order = orders.read_text() if orders.exists() else ""
        if order == "fail":
            sys.exit(1)
        if order == "grow" and not ballast:
            ballast = bytearray(b"x") * (200 << 20)
        if order == "hang":
            time.sleep(1000)
        frames += order != "freeze"
        control.beat(frames=frames)
        process.stop.wait(0.1)
"""


class Supervised(HubProcess):
    """A folder with its own supervisord; `programs` each run BEATER under their name."""

    supervisord_command = (str(Path(sys.executable).with_name("supervisord")),)

    def __init__(self, *programs: str, config: str = "", retries: int = 3, idle: tuple[str, ...] = ()) -> None:
        """`idle` programs are known to supervisord and not started by it."""
        super().__init__(config)
        (self.folder / "run").mkdir()
        (self.folder / "logs").mkdir()
        script = self.folder / "beater.py"
        script.write_text(BEATER)
        places = {"folder": self.folder, "python": sys.executable, "script": script, "retries": retries}
        conf = CONF.format(**places)
        for name in (*programs, *idle):
            conf += PROGRAM.format(name=name, autostart="false" if name in idle else "true", **places)
        self.conf = self.folder / "run/supervisord.conf"
        self.conf.write_text(conf)
        self.supervisord = Supervisord(f"unix://{self.folder}/run/supervisor.sock")

    def start(self, *, wait: bool = True) -> None:
        command = [*self.supervisord_command, "--nodaemon", "-c", str(self.conf), "--silent"]
        path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
        environ = {**self.environ, "PYTHONPATH": path}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL)
        until(lambda: self.state("watchdog") == "RUNNING" and self.state("hub") == "RUNNING", "supervisord runs all")
        until(lambda: connectable(self.socket), "the hub listens")

    def __exit__(self, *_: object) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)  # a test that failed may have left it stopped
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def supervisorctl(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("supervisorctl")), "-c", str(self.conf), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    def orphan(self, role: str) -> subprocess.Popen[bytes]:
        """Start a process that says it is one of supervisord's."""
        return subprocess.Popen(
            [sys.executable, str(self.folder / "beater.py"), role, "--config", str(self.config)],
            cwd=self.folder,
            env={**self.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )

    def program(self, name: str) -> Program | None:
        try:
            return next((p for p in self.supervisord.programs() if p.name == name), None)
        except SupervisordError:
            return None

    def state(self, name: str) -> str:
        found = self.program(name)
        return found.state if found else ""

    def pid(self, name: str) -> int:
        found = self.program(name)
        return found.pid if found else 0

    def order(self, name: str, order: str) -> None:
        (self.folder / f"orders-{name}").write_text(order)

    def told(self) -> str:
        path = self.folder / "logs/watchdog.log"
        return path.read_text() if path.exists() else ""

    def beats(self, *names: str) -> bool:
        try:
            rows = self.json({"command": "status"})["data"]["processes"]
        except (OSError, IndexError):
            return False  # the hub is not there, or was killed before it answered
        return {r["program"] for r in rows if r["state"] == "running"} >= set(names)


class SupervisedOptional(Supervised):
    """The service as `shmcam run` makes it, but only with hub, watchdog and the optional programs that are enabled."""

    supervisord_command = (sys.executable, "-m", "shmcam.supervisord")

    def __init__(self, config: str = "") -> None:
        super().__init__(config=config)
        self.conf = prepare(Settings.load(self.config, environ={}))
        text = self.conf.read_text().replace("startsecs=5\n", "startsecs=1\n")  # each test module waits for RUNNING
        for role in ("capture", "analyzer", "recorder", "exporter", "streamer"):
            text = text.replace(f"[program:{role}]\n", f"[program:{role}]\nautostart=false\n")
        self.conf.write_text(text)

    def row(self, program: str) -> list[str]:
        """The words of a program's line in `status`."""
        return next((line.split() for line in self.text("status").splitlines() if line.startswith(program)), [])

    def log_of(self, program: str) -> str:
        path = self.folder / f"logs/{program}.log"
        return path.read_text() if path.exists() else ""
