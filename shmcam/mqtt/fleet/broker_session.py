"""A connection to the broker for one command of the fleet: finds the devices, asks them, waits for their answers."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from shmcam.control.messages import JSON
from shmcam.mqtt.broker_connection import BrokerClient, open_client, subscribe
from shmcam.mqtt.fleet.answers import Answers
from shmcam.mqtt.fleet.devices import FleetDevices
from shmcam.mqtt.settings import MqttSettings

FIND_S = 15.0
"""The longest wait for what the broker retains."""
INCOMING_MAX = 100_000
"""Messages in the queue at most: two of each device."""


class FleetSession:
    """See the module."""

    def __init__(self, client: BrokerClient, prefix: str) -> None:
        """Use `open_session`."""
        self._client, self._prefix = client, prefix
        self._reply_topic = f"{prefix}/reply/fleet-{secrets.token_hex(6)}"

    async def find_devices(self) -> FleetDevices:
        """Returns every device that the broker knows. Raises: MqttError, TimeoutError."""
        devices = FleetDevices(self._prefix)
        await self._subscribe(self._reply_topic, 1)
        for leaf in ("availability", "health"):
            # one after the other: the queue holds so much
            await self._subscribe(f"{self._prefix}/+/{leaf}", 0)
            async for topic, payload in self._read_retained():
                devices.note(topic, payload)
            await self._client.unsubscribe(f"{self._prefix}/+/{leaf}")
        return devices

    async def ask(
        self,
        command: Mapping[str, JSON] | str,
        answers: Answers,
        *,
        to_all: bool,
        deadline_s: float,
        on_progress: Callable[[int, int], None],
    ) -> float:
        """Sends a command, and gathers answers until all are there or the deadline. Returns: the time it took.

        Devices that get it after the deadline do not: the message expires (MQTT 5). Raises: MqttError.
        """
        payload = command if isinstance(command, str) else json.dumps(command)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = self._reply_topic
        properties.CorrelationData = correlation = secrets.token_bytes(8)
        properties.MessageExpiryInterval = math.ceil(deadline_s)
        topics = [f"{self._prefix}/all/command"] if to_all else _topics_of(self._prefix, answers.expected)
        began_s = time.monotonic()
        on_progress(0, len(answers.expected))
        for topic in topics:
            await self._publish(topic, payload, properties=properties)
        try:
            async with asyncio.timeout(began_s + deadline_s - time.monotonic()):
                while not answers.is_complete:
                    message = await anext(self._client.messages)
                    is_ours = getattr(message.properties, "CorrelationData", None) == correlation
                    if is_ours and isinstance(message.payload, bytes) and answers.note(message.payload):
                        on_progress(len(answers.by_device), len(answers.expected))
        except TimeoutError:
            on_progress(len(answers.expected), len(answers.expected))
        return time.monotonic() - began_s

    async def forget(self, device: str, discovery_prefix: str) -> int:
        """Removes everything that the broker retains of a device. Returns: how many topics. Raises: MqttError."""
        filters = [f"{self._prefix}/{device}/#", f"{discovery_prefix}/device/{device}/+/config"]
        await self._subscribe(self._reply_topic, 1)
        for topic in filters:
            await self._subscribe(topic, 0)
        topics = {topic async for topic, payload in self._read_retained() if payload}
        for topic in sorted(topics):
            await self._publish(topic, b"", retain=True)
        return len(topics)

    async def _read_retained(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yields what is retained at the topics subscribed to. Raises: MqttError."""
        marker = secrets.token_bytes(8)  # comes after everything that is retained
        await self._publish(self._reply_topic, marker)
        try:
            async with asyncio.timeout(FIND_S):
                async for message in self._client.messages:
                    if str(message.topic) == self._reply_topic and message.payload == marker:
                        return
                    if message.retain and isinstance(message.payload, bytes):
                        yield str(message.topic), message.payload
        except TimeoutError:  # mosquitto refuses no subscription, it delivers nothing
            why = f"it refuses to let us read {self._reply_topic}, or takes more than {FIND_S:.0f} s"
            raise aiomqtt.MqttError(f"{why}; its access rules must allow {self._prefix}/#") from None

    async def _subscribe(self, topic: str, qos: int) -> None:
        """Subscribes to one topic. Raises: MqttError, also where the broker refuses it."""
        for refused in await subscribe(self._client, [topic], SubscribeOptions(qos=qos)):
            raise aiomqtt.MqttError(f"it refuses to let us read {refused}; its access rules must allow it")

    async def _publish(
        self, topic: str, payload: str | bytes, *, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publishes one message. Raises: MqttError, also where the broker refuses it."""
        await self._client.publish(topic, payload, 1, retain, properties)
        if self._client.take_refusal():
            why = f"it refuses to let us write {topic} ({self._client.refusal})"
            raise aiomqtt.MqttError(f"{why}; its access rules must allow it")


def _topics_of(prefix: str, devices: Iterable[str]) -> list[str]:
    return [f"{prefix}/{device}/command" for device in sorted(devices)]


@asynccontextmanager
async def open_session(settings: MqttSettings, folder: Path) -> AsyncIterator[FleetSession]:
    """Connects to the broker of [mqtt]. Raises: MqttError, OSError."""
    client = open_client(settings, folder, f"shmcam-fleet-{secrets.token_hex(6)}", incoming_max=INCOMING_MAX)
    async with client:
        yield FleetSession(client, settings.prefix)


def choose(devices: FleetDevices, names: Collection[str]) -> Answers:
    """Returns whose answers are expected: the named devices, or all; without those that are offline."""
    wanted = set(names or devices.by_name)
    online = {name for name in wanted if name in devices.by_name and devices.by_name[name].is_online}
    return Answers(expected=online, offline=wanted - online)
