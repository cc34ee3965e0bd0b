"""A real mosquitto with a configuration and port of its own, a client that hears everything, and our process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.machine import SHORT, until
from tests.pipeline import free_port
from tests.programs import Program
from tests.shmcam.hub.hubs import HubProcess

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """Started and ended by its process id; keeps retained messages over a restart only with `persistent`."""

    def __init__(
        self, config: str = "allow_anonymous true", *, host: str = "127.0.0.1", persistent: bool = False
    ) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="shmcam-q", dir=SHORT))
        self.config = self.folder / "mosquitto.conf"
        lines = [f"listener {self.port} {host}", config, "user root", "max_queued_messages 0"]
        if persistent:
            lines += ["persistence true", f"persistence_location {self.folder}/", "autosave_interval 1"]
        self.config.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen([str(MOSQUITTO), "-c", str(self.config)], stdout=out, stderr=out)
        until(self._answers, 10, lambda: (self.folder / "log").read_text())

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """A client that hears what it subscribes to: `messages` in their order, `retained` the newest of each topic."""

    def __init__(self, broker: Mosquitto, *topics: str, username: str = "", password: str = "", ca: str = "") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self._ready = threading.Event()
        self._topics = topics or ("#",)
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if username:
            self.client.username_pw_set(username, password)
        if ca:
            self.client.tls_set(ca)
        self.client.on_connect = self._subscribe
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = self._hear
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("localhost" if ca else "127.0.0.1", broker.port)

    def __enter__(self) -> Listener:
        self.client.loop_start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _subscribe(self, *_: object) -> None:
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        self.client.subscribe([(topic, options) for topic in self._topics])

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.messages.append((message.topic, message.payload))
        if message.retain:
            self.retained[message.topic] = message.payload

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for place, payload in list(self.messages) if place == topic]

    def json(self, topic: str) -> dict:
        return json.loads(self.retained.get(topic, b"{}") or b"{}")

    def publish(self, topic: str, payload: str | bytes | dict, *, retain: bool = False) -> None:
        data = json.dumps(payload) if isinstance(payload, dict) else payload
        self.client.publish(topic, data, 1, retain).wait_for_publish(20)

    def ask(self, topic: str, payload: str | dict, seconds: float = 20) -> dict:
        """A command with a response topic, and its answer."""
        reply_to = f"shmcam/reply/{len(self.messages)}-{id(self)}"
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic, properties.CorrelationData = reply_to, b"7"
        self.client.publish(topic, json.dumps(payload) if isinstance(payload, dict) else payload, 1, False, properties)
        until(lambda: self.payloads(reply_to), seconds, f"an answer to {payload}")
        return json.loads(self.payloads(reply_to)[0])


class MqttProcess:
    """A hub and `python -m shmcam.mqtt`, without cameras."""

    def __init__(self, broker: Mosquitto, tables: str = "", *, hub: bool = True, **keys: object) -> None:
        own = {"enable": True, "port": broker.port, "device": "pi", "image_s": 0, "state_s": 0.5, **keys}
        lines = [f"{key} = {json.dumps(value)}" for key, value in own.items()]
        self.hub = HubProcess("\n".join(["[mqtt]", *lines, tables]))
        self._wants_hub = hub
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MqttProcess:
        if self._wants_hub:
            self.hub.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signal.SIGKILL)
        self.hub.__exit__()

    def start(self) -> None:
        command = [sys.executable, "-m", "shmcam.mqtt", "--config", str(self.hub.config)]
        self.process = Program(command, env=self.hub.environ, cwd=self.hub.folder)

    def kill(self, number: int = signal.SIGKILL) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code, self.process = self.process.wait(20), None
        return code

    def row(self) -> dict:
        """Its row in status."""
        answer = json.loads(self.hub.exchange(b'{"command": "status"}\n').splitlines()[0])
        return next((row for row in answer["data"]["processes"] if row["program"] == "mqtt"), {"figures": {}})

    @property
    def log(self) -> str:
        path = self.hub.folder / "logs/mqtt.log"
        return path.read_text() if path.exists() else ""
