"""Simulated devices at a broker: the product's own connection, outbox and commands, with a made-up hub behind them."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from pathlib import Path
from typing import Any

import aiomqtt

from shmcam.control.messages import Reply, Snapshot
from shmcam.mqtt.broker_connection import BrokerLink
from shmcam.mqtt.commands_from_broker import parse_command, reply_payload_of
from shmcam.mqtt.health import MachineFigures, health_of
from shmcam.mqtt.outbox import Outbox, Outgoing
from shmcam.mqtt.settings import MqttSettings
from shmcam.mqtt.topics import Topics
from shmcam.runtime.clock import ClockError

CAMERA = {"camera": "cam0", "state": "found", "fps": 30.0, "dropped": 0, "night": False, "recording": None}
STATUS: dict[str, Any] = {"processes": [{"program": "recorder", "state": "idle"}], "cameras": [CAMERA]}
MACHINE = MachineFigures(total_bytes=32_000_000_000, free_bytes=9_000_000_000, clock=ClockError(True, 100, 1500))


class SimulatedDevice:
    """One device; answers commands at once, a snapshot at its instant."""

    def __init__(self, port: int, name: str, health_s: float) -> None:
        settings = MqttSettings(port=port, device=name, discovery=False)
        self.topics, self.outbox, self._health_s = Topics("shmcam", name), Outbox(100), health_s
        self.link = BrokerLink(settings, Path(), self.topics, self.outbox, self._take)

    async def run(self, delay_s: float) -> None:
        """Works until cancelled."""
        await asyncio.sleep(delay_s)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.link.run())
            tasks.create_task(self._report())

    async def _report(self) -> None:
        while True:
            health = health_of(self.topics.device, STATUS, MACHINE, time.time_ns())
            self.outbox.set(self.topics.own("health"), json.dumps(health).encode())
            self.outbox.set(self.topics.camera("cam0", "state"), json.dumps(CAMERA | {"utc": time.time_ns()}).encode())
            self.link.wake()
            await asyncio.sleep(self._health_s)

    def _take(self, message: aiomqtt.Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else b""
        order = parse_command(payload, access="control", device=self.topics.device, now_utc_ns=time.time_ns())
        if order is None:
            return
        wait_s = max(0.0, (order.at_utc_ns - time.time_ns()) / 1e9) if order.at_utc_ns else 0.0
        asyncio.get_running_loop().call_later(wait_s, self._answer, message, order)

    def _answer(self, message: aiomqtt.Message, order: Any) -> None:
        data: dict[str, Any] = {}
        if isinstance(order.command, Snapshot):
            data = {"frames": {"cam0": {"asked_age_s": 0.02, "age_s": 0.01}}}
        more = {"at_utc_ns": order.at_utc_ns} if order.at_utc_ns else {}
        reply = reply_payload_of(Reply(text="done", data=data), self.topics.device, None, clock_error_us=1500, **more)
        topic = str(getattr(message.properties, "ResponseTopic", self.topics.own("reply")))
        self.outbox.add_reply(Outgoing(topic, reply, correlation=message.properties.CorrelationData))  # type: ignore[union-attr]
        self.link.wake()


async def run_devices(port: int, count: int, health_s: float, name: str) -> None:
    """Runs so many devices in this process until it is ended; they begin within five seconds."""
    devices = [SimulatedDevice(port, f"d{name}-{number:04}", health_s) for number in range(count)]
    async with asyncio.TaskGroup() as tasks:
        for number, device in enumerate(devices):
            tasks.create_task(device.run(5.0 * number / count))


def main(port: int, count: int, health_s: float, name: str) -> None:
    """Runs devices in a process of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))
    asyncio.run(run_devices(port, count, health_s, name))


if __name__ == "__main__":
    import sys

    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
