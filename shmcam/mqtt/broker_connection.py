"""The connection to the broker: connects again for ever, sends what the outbox wants, hands messages on.

Rules: nothing here waits for the hub, and a broker that is away, slow or refuses us costs no memory: the outbox has the
limits. The reason is in `reason`, for heartbeats, and in the log once for each new reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from shmcam.mqtt.outbox import Outbox, Outgoing
from shmcam.mqtt.settings import MqttSettings
from shmcam.mqtt.topics import OFFLINE, ONLINE, Topics
from shmcam.network.connection_errors import reason_of
from shmcam.runtime.timers import Backoff

log = logging.getLogger(__name__)

ANSWER_S = 10.0
"""A broker that confirms nothing for so long counts as gone."""
KEEPALIVE_S = 30
"""The broker publishes our last will after one and a half of these without a sign of us (MQTT 3.1.2.10)."""
IN_FLIGHT_MAX = 16
"""Events sent before the first of them is confirmed; mosquitto takes 20."""
INCOMING_MAX = 256
PACKET_BYTES_MAX = 268_435_460
"""The longest packet of MQTT (2.1.4), for a broker without a limit of its own."""
PUBLISH_EXTRA_BYTES = 16
"""The most that a PUBLISH has beside topic, payload and correlation: header 5, lengths 2 and 3, id 2, properties 4."""
GOODBYE_S = 1.0

TOO_LARGE = "Packet too large"

HINTS = {
    TOO_LARGE: "make images smaller with mjpeg_server.width, or allow more at the broker",
    "Bad user name or password": "check mqtt.username and mqtt.password",
    "Not authorized": "check mqtt.username and mqtt.password, and what the broker allows them",
    "Unsupported protocol": "the broker does not speak MQTT 5; mosquitto does since 1.6",
}
"""Reasons of the broker (MQTT 5) and what to do about them."""

SHORT_S, SHORT_COUNT = 15.0, 2
"""After so many connections in a row that ended so soon it is likely that two clients take each other's place."""


def open_tls(settings: MqttSettings, folder: Path) -> ssl.SSLContext | None:
    """Returns the TLS context; None without tls. Relative paths start in `folder`. Raises: OSError (SSLError too)."""
    if not settings.tls:
        return None
    context = ssl.create_default_context(cafile=str(folder / settings.tls_ca) if settings.tls_ca else None)
    if settings.tls_cert:
        context.load_cert_chain(folder / settings.tls_cert, folder / settings.tls_key)
    return context


class BrokerClient(aiomqtt.Client):
    """The client, which also keeps what aiomqtt drops of the broker's answers to CONNECT and PUBLISH."""

    packet_bytes_max = PACKET_BYTES_MAX
    """The longest packet that the broker takes; beyond it ends the connection (MQTT 5, 3.2.2.3.6)."""

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self.packet_bytes_max = getattr(properties, "MaximumPacketSize", PACKET_BYTES_MAX)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    refusal = ""
    """Why the broker did not take a message, such as Not authorized; of the last one that it did not take."""
    _refusals = 0

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        if reason_code.is_failure:
            self.refusal, self._refusals = str(reason_code), self._refusals + 1
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def take_refusal(self) -> bool:
        """Tells, once for each, whether the broker answered to a message with QoS 1 that it does not take it."""
        self._refusals, were = max(0, self._refusals - 1), self._refusals
        return were > 0


def open_client(
    settings: MqttSettings,
    folder: Path,
    identifier: str,
    will: aiomqtt.Will | None = None,
    *,
    incoming_max: int = INCOMING_MAX,
) -> BrokerClient:
    """Returns a client for the broker of [mqtt], not connected yet. Raises: OSError for unusable certificates."""
    client = BrokerClient(
        settings.host,
        settings.port_in_use,
        username=settings.username or None,
        password=settings.password or None,
        identifier=identifier,
        protocol=aiomqtt.ProtocolVersion.V5,
        will=will,
        timeout=ANSWER_S,
        keepalive=KEEPALIVE_S,
        max_queued_incoming_messages=incoming_max,
        tls_context=open_tls(settings, folder),
        logger=log.getChild("client"),
    )
    client.pending_calls_threshold = 2 * IN_FLIGHT_MAX  # it warns beyond ten
    return client


def explain(problem: BaseException) -> str:
    """Returns why there is no connection, in one line, with what to do about it."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    if isinstance(problem.__cause__, aiomqtt.MqttError):  # the broker's own word, below "Disconnected during …"
        problem = problem.__cause__
    below = problem.__context__
    is_quoted = isinstance(below, OSError) and str(problem) in (str(below), "Operation timed out")  # by aiomqtt
    text = reason_of(below if below is not None and is_quoted else problem)
    if text == "Disconnected during message iteration":
        text = "it has ended the connection"
    hint = next((hint for word, hint in HINTS.items() if word in text), "")
    return f"{text}{f'; {hint}' if hint else ''}"


class BrokerLink:
    """The connection of one device; see the module."""

    def __init__(
        self,
        settings: MqttSettings,
        folder: Path,
        topics: Topics,
        outbox: Outbox,
        on_message: Callable[[aiomqtt.Message], None],
    ) -> None:
        """`on_message` takes each message; it must not raise for what a stranger may send."""
        self.reason = "connecting"
        """Why there is no connection, or what the broker does not take; empty: all is well."""
        self.is_connected = False
        """True while the broker takes messages."""
        self.connections = 0
        """Connections since the start."""
        self._settings, self._folder, self._topics = settings, folder, topics
        self._outbox, self._on_message = outbox, on_message
        self._identifier = f"shmcam-{topics.device}"
        self._client: BrokerClient | None = None
        self._refused: list[str] = []
        """What this connection has not got, in words: subscriptions, and leave to publish."""
        self._untaken: dict[str, str] = {}
        """Topics whose last message the broker did not take, and why."""
        self._left_out: Outgoing | None = None
        """The last message that was too long; None: the next one on its topic was not."""
        self._connected_s = 0.0
        self._short_lived = 0
        """Connections in a row that ended soon."""
        self._is_leaving = False
        self._to_send = asyncio.Event()
        self._is_known = asyncio.Event()

    def takes(self, message: Outgoing) -> bool:
        """Tells whether a message is short enough for the broker."""
        return self._client is None or packet_bytes_of(message) <= self._client.packet_bytes_max

    def wake(self) -> None:
        """Has new messages of the outbox sent."""
        self._to_send.set()

    def note_known(self) -> None:
        """Notes that the outbox has everything that is wanted, so that what else is retained is old."""
        self._is_known.set()

    async def run(self) -> None:
        """Keeps a connection for ever; ends by cancellation, or after `say_goodbye` with the connection."""
        backoff = Backoff()
        while not self._is_leaving:  # a cancellation is lost where aiomqtt or a TaskGroup ends with another error
            try:
                will = aiomqtt.Will(self._topics.own("availability"), OFFLINE, qos=1, retain=True)
                client = open_client(self._settings, self._folder, self._identifier, will)
                async with client:
                    await self._exchange(client, backoff)
            except* (aiomqtt.MqttError, OSError, UnicodeError) as group:  # UnicodeError: mqtt.host = "a..b"
                self._note_failure(explain(group))
            finally:
                self._client, self.is_connected = None, False
            await asyncio.sleep(backoff.next_delay_s())

    async def say_goodbye(self) -> None:
        """Publishes that the device goes, as a clean end of the connection drops the last will; none follows."""
        self._is_leaving = True
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._client.publish(self._topics.own("availability"), OFFLINE, qos=1, retain=True)

    # ---- inside

    def _note_failure(self, reason: str) -> None:
        if self._client is not None:
            is_short = asyncio.get_running_loop().time() - self._connected_s < SHORT_S
            self._short_lived = self._short_lived + 1 if is_short else 0
            if self._client.refusal:  # mosquitto 2.0 ends the connection then
                reason = f"{_describe_refusal(self._client)}, and has ended the connection"
            elif self._short_lived >= SHORT_COUNT and TOO_LARGE not in reason:
                reason += f"; is another client called {self._identifier}? each machine needs its own mqtt.device"
        reason = f"{self._settings.host}:{self._settings.port_in_use}: {reason}"
        if reason != self.reason:
            log.warning("no broker: %s", reason)
        self.reason = reason

    async def _exchange(self, client: BrokerClient, backoff: Backoff) -> None:
        """Sends and receives until the connection ends. Raises: MqttError, in a group."""
        topics, settings = self._topics, self._settings
        wanted = [topics.birth] if settings.discovery else []
        if settings.commands != "none":
            wanted += [topics.command_for_all, topics.own("command"), topics.own("camera/+/+/set")]
        self._refused, self._untaken, self._left_out = [], {}, None
        if wanted:
            self._refused = _to_refusals(await subscribe(client, wanted, SubscribeOptions(qos=1)))
        self._outbox.begin_connection()
        self._outbox.set(topics.own("availability"), ONLINE)
        self._client, self.is_connected, self._connected_s = client, True, asyncio.get_running_loop().time()
        self._note_limits()
        self.connections += 1
        log.info("broker connected host=%s port=%d device=%s", settings.host, settings.port_in_use, topics.device)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(client))
            tasks.create_task(self._send(client))
            tasks.create_task(self._find_stale(client))
            tasks.create_task(_reset_later(backoff))

    async def _receive(self, client: BrokerClient) -> None:
        async for message in client.messages:
            self._on_message(message)

    async def _send(self, client: BrokerClient) -> None:
        while True:
            for reply in self._outbox.take_replies():
                await self._publish(client, reply)
            if state := self._outbox.take_retained():
                await self._publish(client, state)
            elif events := self._outbox.list_events(IN_FLIGHT_MAX):
                async with asyncio.TaskGroup() as tasks:
                    for event in events:
                        tasks.create_task(self._send_event(client, event))
            elif image := self._outbox.take_retained(qos=0):  # last: it may be long, and a slow line would end with it
                await self._publish(client, image)
            else:
                await self._to_send.wait()
                self._to_send.clear()

    async def _send_event(self, client: BrokerClient, event: Outgoing) -> None:
        if await self._publish(client, event):
            self._outbox.confirm(event)
        else:
            self._outbox.drop(event)

    async def _publish(self, client: BrokerClient, message: Outgoing) -> bool:
        """Publishes one message. Returns: False if the broker does not take it. Raises: MqttError."""
        before = self._left_out
        if not self.takes(message):
            if message.retain:  # a state, until it is shorter; an event or answer is over
                self._left_out = message
                self._note_limits(is_new=before is None or before.topic != message.topic)
            else:
                log.warning("%s", self._describe(message))
            return False
        await publish(client, message)
        if client.take_refusal():
            is_new = _describe_refusal(client) not in self._untaken.values()
            self._untaken[message.topic] = _describe_refusal(client)
            self._note_limits(is_new=is_new)
            return False
        if self._untaken.pop(message.topic, ""):
            self._note_limits(is_new=False)
        if before is not None and before.topic == message.topic:
            self._left_out = None
            self._note_limits()
        return True

    def _describe(self, message: Outgoing) -> str:
        limit = self._client.packet_bytes_max if self._client else PACKET_BYTES_MAX
        return f"{message.topic}: {packet_bytes_of(message)} bytes left out, the broker takes {limit}"

    def _note_limits(self, *, is_new: bool = True) -> None:
        """Puts what the broker does not take into the reason."""
        problems = [*self._refused, *dict.fromkeys(self._untaken.values())]
        if self._left_out is not None and self._client is not None:
            problems.append(f"{self._describe(self._left_out)}; make images smaller with mjpeg_server.width")
        self.reason = "; ".join(problems)
        if self.reason and is_new:
            log.warning("broker connected, but %s", self.reason)

    async def _find_stale(self, client: aiomqtt.Client) -> None:
        """Has the broker send what is retained of our cameras; `on_message` then removes what is not wanted.

        Our own messages do not come back (MQTT 5: no local).
        """
        await self._is_known.wait()
        options = SubscribeOptions(qos=0, noLocal=True)
        if refused := await subscribe(client, self._topics.may_be_stale, options):
            self._refused += _to_refusals(refused)
            self._note_limits()


def _describe_refusal(client: BrokerClient) -> str:
    return f"the broker does not take what we publish ({client.refusal}); check what it allows mqtt.username"


def _to_refusals(topics: list[str]) -> list[str]:
    return [f"the broker refuses {', '.join(topics)}"] if topics else []


def packet_bytes_of(message: Outgoing) -> int:
    """Returns how long the packet of a message is at most."""
    correlation_bytes = len(message.correlation or b"")
    return PUBLISH_EXTRA_BYTES + len(message.topic.encode()) + len(message.payload) + correlation_bytes


async def subscribe(client: aiomqtt.Client, topics: Sequence[str], options: SubscribeOptions) -> list[str]:
    """Subscribes to topics. Returns: those that the broker refuses, with its reason. Raises: MqttError."""
    codes = await client.subscribe([(topic, options) for topic in topics])
    return [
        f"{topic} ({code})"
        for topic, code in zip(topics, codes, strict=False)
        if isinstance(code, ReasonCode) and code.is_failure
    ]


async def publish(client: aiomqtt.Client, message: Outgoing) -> None:
    """Publishes one message; with QoS 1 it returns when the broker has confirmed it. Raises: MqttError."""
    properties = None
    if message.correlation is not None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = message.correlation
    await client.publish(message.topic, message.payload, message.qos, message.retain, properties)


async def _reset_later(backoff: Backoff) -> None:
    """Forgives earlier failures once a connection holds: two clients of one name end each other's at once."""
    await asyncio.sleep(SHORT_S)
    backoff.reset()
