"""A thousand simulated devices at one mosquitto: messages a second, CPU and memory of the broker, and their answers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.measure import Measured, Outcome, Row, Skipped

if TYPE_CHECKING:
    from tests.shmcam.mqtt.brokers import Mosquitto

ROWS = (
    Row("devices_found", "", 1.0, "devices that `fleet list` shows online with health / devices there are", "higher"),
    Row("answers", "", 1.0, "devices that answer one command for all / devices there are", "higher"),
    Row("snapshot_answers", "", 1.0, "devices that answer a snapshot at one instant / devices there are", "higher"),
    Row("messages_per_s", "1/s", None, "MQTT packets that the broker receives and sends meanwhile, confirmations too"),
    Row("broker_cpu_percent", "%", None, "of one core, used by mosquitto meanwhile"),
    Row("broker_rss_mb", "MB", None, "resident memory of mosquitto"),
    Row("find_s", "s", None, "from connecting to the list of all devices"),
    Row("answers_s", "s", None, "from one command for all to the last answer"),
)

DEVICES, HEALTH_S, PROCESSES = 1000, 5.0, 2
"""Each device publishes health and the state of a camera so often: 400 messages a second in all."""
CONNECT_S = 120.0
ROOT = Path(__file__).parents[2]
CONFIG = "allow_anonymous true\nsys_interval 1\nmax_connections -1"


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    try:
        from tests.shmcam.mqtt.brokers import MOSQUITTO, Mosquitto
    except ImportError as error:
        yield from ((row.name, Skipped(f"needs the test packages: {error}")) for row in ROWS)
        return
    if MOSQUITTO is None:
        yield from ((row.name, Skipped("not installed: mosquitto")) for row in ROWS)
        return
    count, seconds = (200, 5.0) if quick else (DEVICES, 20.0)
    with Mosquitto(CONFIG) as broker:
        command = [sys.executable, "-m", "bench.peers.mqtt_devices", str(broker.port)]
        devices = [
            subprocess.Popen([*command, str(count // PROCESSES), str(HEALTH_S), name], cwd=ROOT)
            for name in map(str, range(PROCESSES))
        ]
        try:
            yield from _measure(broker, count, seconds)
        finally:
            for process in devices:
                process.kill()
                process.wait()


def _measure(broker: Mosquitto, count: int, seconds: float) -> Iterator[tuple[str, Outcome]]:
    from tests.shmcam.mqtt.brokers import Listener

    with Listener(broker, "$SYS/broker/#") as counters:
        deadline_s = time.monotonic() + CONNECT_S
        while _counter(counters, "clients/connected") < count and time.monotonic() < deadline_s:
            time.sleep(0.2)
        time.sleep(HEALTH_S)  # until each has sent its health
        assert broker.process is not None
        mosquitto = psutil.Process(broker.process.pid)
        before, began_s, cpu_s = _messages(counters), time.monotonic(), sum(mosquitto.cpu_times()[:2])
        time.sleep(seconds)
        span_s = time.monotonic() - began_s
        rate, cpu = (_messages(counters) - before) / span_s, (sum(mosquitto.cpu_times()[:2]) - cpu_s) / span_s
        yield (
            "messages_per_s",
            Measured(round(rate), f"{count} devices, each with {2 / HEALTH_S:g} publications a second"),
        )
        yield "broker_cpu_percent", Measured(round(100 * cpu, 1), f"{os.cpu_count()} cores, shared with the devices")
        yield "broker_rss_mb", Measured(round(mosquitto.memory_info().rss / 1e6, 1), f"{count} connections")
    results = asyncio.run(_ask(broker.port))
    yield "devices_found", Measured(results["found"] / count)
    yield "find_s", Measured(round(results["find_s"], 2), f"{results['found']} devices")
    yield "answers", Measured(results["answers"] / count)
    yield (
        "answers_s",
        Measured(round(results["answers_s"], 2), f"{results['answers'] / results['answers_s']:.0f} a second"),
    )
    yield "snapshot_answers", Measured(results["snapshots"] / count, results["spread"])


async def _ask(port: int) -> dict[str, Any]:
    from shmcam.mqtt.fleet.broker_session import choose, open_session
    from shmcam.mqtt.settings import MqttSettings

    async with open_session(MqttSettings(port=port), Path()) as session:
        began_s = time.monotonic()
        devices = await session.find_devices()
        found = sum(device.is_online and bool(device.health) for device in devices.list_all())
        results: dict[str, Any] = {"found": found, "find_s": time.monotonic() - began_s}
        for name, command in (
            ("answers", {"command": "ping"}),
            ("snapshots", {"command": "snapshot", "at_utc_ns": time.time_ns() + 2_000_000_000}),
        ):
            answers = choose(devices, ())
            took_s = await session.ask(command, answers, to_all=True, deadline_s=60.0, on_progress=lambda *_: None)
            results |= {name: len(answers.by_device), f"{name}_s": took_s, "spread": answers.describe_spread()}
        return results


def _counter(counters: Any, name: str) -> float:
    payloads = counters.payloads(f"$SYS/broker/{name}")
    return float(payloads[-1]) if payloads else 0.0


def _messages(counters: Any) -> float:
    return _counter(counters, "messages/received") + _counter(counters, "messages/sent")
