"""The mqtt process's day: the hub's status and events to the outbox, messages from the broker to the hub.

Everything that is decided is decided elsewhere (camera_state, discovery, commands_from_broker, health); here are the
clocks and the waiting. With the hub dead the cameras are shown as not available; with the broker dead events wait in
the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import Any

import aiomqtt
from msgspec.structs import asdict, replace

from shmcam.config.settings import Settings
from shmcam.control.call import acall, call
from shmcam.control.client import ControlClient
from shmcam.control.messages import (
    JSON,
    Command,
    Event,
    MotionBegan,
    Record,
    Reply,
    ShortStream,
    Status,
    error,
    topics_of,
    wire_name,
)
from shmcam.mqtt.broker_connection import BrokerLink
from shmcam.mqtt.camera_state import EDGES, CameraState, CameraStates
from shmcam.mqtt.commands_from_broker import (
    BrokerCommand,
    RefusedCommandError,
    at_sensor_time,
    command_of_entity,
    parse_command,
    reply_payload_of,
)
from shmcam.mqtt.discovery import CameraFacts, device_payload_of, is_our_payload
from shmcam.mqtt.health import MachineFigures, health_of, measure_machine
from shmcam.mqtt.outbox import STRAYS_MAX, Outbox, Outgoing
from shmcam.mqtt.settings import MqttSettings
from shmcam.mqtt.topics import OFFLINE, ONLINE, Topics
from shmcam.runtime.clock import read_clock_error_us, to_iso, utc_offset_ns
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

HUB_ANSWER_S = 3.0
FORGET_S = 60.0
"""A camera that the hub has not named for so long is removed; a hub that restarts names all in seconds."""
SILENCE_S = 10.0
"""A hub that has not answered for so long leaves the cameras unavailable; supervisord restarts it within 2 s."""
BEAT_S = 0.5
COMMANDS_MAX = 32
"""Commands carried out at once; further ones are refused."""
RECORD_LEAD_S = 2.0
"""The recorder is told so long before the instant: it acts on the right frame, but cannot take one back."""
BIRTH_SPREAD_S = 2.0
"""After a start of Home Assistant the devices announce themselves within so long, not all in one instant."""
IMAGE_BYTES_MAX = 8 * 1024 * 1024
IMAGE_S = 4.0
"""The longest wait for a picture; supervisord allows 5 s for the stop."""


class MqttLoop:
    """The objects of the process, and what happens between them."""

    def __init__(
        self, settings: Settings, own: MqttSettings, topics: Topics, control: ControlClient, stop: Stop
    ) -> None:
        self._settings, self._own, self._topics = settings, own, topics
        self._control, self._stop = control, stop
        self._cameras = CameraStates(FORGET_S)
        self._outbox = Outbox(own.queue)
        self._broker = BrokerLink(own, settings.folder, topics, self._outbox, self._take_message)
        self._published_events = topics_of(own.events)
        self._run_id, self._event_number = secrets.token_hex(4), 0
        self._machine = MachineFigures()
        self._tasks: set[asyncio.Task[None]] = set()
        self._images_wanted: set[str] = set()
        self._image_wanted = asyncio.Event()
        self._refresh_wanted = asyncio.Event()
        self._answered_s = time.monotonic()
        self._status: dict[str, Any] = {}
        self._commands = 0
        self._image_problem = ""
        self._has_too_many_strays = False

    async def run(self) -> None:
        """Works until stop is requested, also by a part of it that fails."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._stop.fileno(), stopped.set)
        loop.add_reader(self._control.fileno(), self._read_events)
        works = [
            self._broker.run(),
            self._refresh_forever(),
            self._report_health_forever(),
            self._send_heartbeats(),
            *([self._take_images_forever()] if self._own.image_s else []),
        ]
        for work in works:
            self._create_task(work)
        log.info("ready device=%s broker=%s:%d", self._topics.device, self._own.host, self._own.port_in_use)
        await stopped.wait()
        for descriptor in (self._stop.fileno(), self._control.fileno()):
            loop.remove_reader(descriptor)
        await self._broker.say_goodbye()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=1.0)
        log.info("stopped events=%d lost=%d waiting=%d", self._outbox.published, self._outbox.lost, len(self._outbox))

    # ---- from the hub

    def _read_events(self) -> None:
        for request in self._control.receive():
            if isinstance(request.message, Event):
                self._note_event(request.message)

    def _note_event(self, event: Event) -> None:
        name = wire_name(event)
        if camera := self._cameras.note_event(event, time.monotonic()):
            self._announce(camera)
        if isinstance(event, MotionBegan) and self._own.image_s:
            self._images_wanted.add(event.camera)
            self._image_wanted.set()
        if name in self._published_events:
            self._event_number += 1
            value = {
                "device": self._topics.device,
                "event": name,
                "id": f"{self._run_id}-{self._event_number}",
                "utc": to_iso(time.time_ns()),
                "data": asdict(event),
            }
            self._outbox.add_event(self._topics.event(name), _to_json(value))
        self._broker.wake()

    async def _refresh_forever(self) -> None:
        while True:
            reply = await acall(self._settings.socket_path, Status(), HUB_ANSWER_S)
            now_s = time.monotonic()
            if reply.ok:
                self._answered_s, self._status = now_s, reply.data
                for gone in self._cameras.note_status(reply.data, now_s):
                    self._forget_camera(gone)
            elif now_s - self._answered_s >= SILENCE_S:
                self._status = {}
                self._cameras.note_silence()
            for camera in self._cameras.by_name.values():
                self._announce(camera)
            if reply.ok:
                self._broker.note_known()
            self._broker.wake()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._own.state_s):
                    await self._refresh_wanted.wait()
            self._refresh_wanted.clear()

    def _announce(self, camera: CameraState) -> None:
        """Puts the topics of one camera into the outbox; what did not change is not sent again."""
        topics, name = self._topics, camera.name
        if self._own.discovery:
            facts = CameraFacts(
                name,
                camera.model,
                self._machine.version,
                self._own.page_url,
                is_controlled=self._own.commands != "none",
                has_image=self._own.image_s > 0,
            )
            self._outbox.set(topics.discovery(name), _to_json(device_payload_of(facts, topics)))
        self._outbox.set(topics.camera(name, "availability"), ONLINE if camera.is_online else OFFLINE)
        values = {key: value for key, value in camera.values.items() if key != "online"}
        self._outbox.set(topics.camera(name, "state"), _to_json({**values, **self._machine.to_state()}))

    def _forget_camera(self, name: str) -> None:
        log.info("camera removed at the broker camera=%s", name)
        topics = self._topics
        for topic in (
            topics.discovery(name),
            *(topics.camera(name, leaf) for leaf in ("availability", "state", "image")),
        ):
            if self._outbox.holds(topic):
                self._outbox.remove(topic)

    async def _report_health_forever(self) -> None:
        while True:
            self._machine = await asyncio.to_thread(measure_machine, self._settings)
            health = health_of(self._topics.device, self._status, self._machine, time.time_ns())
            self._outbox.set(self._topics.own("health"), _to_json(health))
            self._broker.wake()
            await asyncio.sleep(self._own.health_s if self._status else 1.0)

    async def _take_images_forever(self) -> None:
        while True:
            cameras = self._images_wanted or {
                camera.name for camera in self._cameras.by_name.values() if camera.is_online
            }
            self._images_wanted = set()
            for name in cameras if self._broker.is_connected else ():
                jpeg = await asyncio.to_thread(self._take_image, name)
                if jpeg:
                    self._outbox.set(self._topics.camera(name, "image"), jpeg, qos=0)
                    self._broker.wake()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._own.image_s if cameras and self._broker.is_connected else 1.0):
                    await self._image_wanted.wait()
            self._image_wanted.clear()

    def _take_image(self, camera: str) -> bytes:
        """Returns the newest picture as the streamer encodes it for viewers; empty: there is none, or a huge one."""
        stream = bytearray()
        reply = call(
            self._settings.socket_path,
            ShortStream(count=1, camera=camera),
            IMAGE_S,
            lambda piece: stream.extend(piece) if len(stream) < IMAGE_BYTES_MAX else None,
        )
        size = int.from_bytes(stream[:4], "big")
        problem = "" if reply.ok and reply.data.get("sent") else reply.text
        if size > IMAGE_BYTES_MAX - 4:
            problem = f"{camera}: a picture of {size} bytes, limit {IMAGE_BYTES_MAX}; set mjpeg_server.width"
        if problem != self._image_problem and problem:
            log.info("no picture for the broker: %s", problem)
        self._image_problem = problem
        return b"" if problem else bytes(stream[4 : 4 + size])

    async def _send_heartbeats(self) -> None:
        while True:
            clock_error_us = read_clock_error_us()
            self._control.beat(
                "running" if self._broker.is_connected else "waiting",
                self._broker.reason,
                connected=self._broker.is_connected,
                device=self._topics.device,
                queued=len(self._outbox),
                published=self._outbox.published,
                unpublished=self._outbox.lost,
                commands=self._commands,
                connections=self._broker.connections,
                clock_synchronized=clock_error_us is not None,
                **({} if clock_error_us is None else {"clock_error_us": clock_error_us}),
            )
            await asyncio.sleep(BEAT_S)

    # ---- from the broker

    def _take_message(self, message: aiomqtt.Message) -> None:
        topic, payload = str(message.topic), message.payload if isinstance(message.payload, bytes) else b""
        topics = self._topics
        if topic == topics.birth:
            if payload == ONLINE and not message.retain:
                asyncio.get_running_loop().call_later(secrets.randbelow(1000) / 1000 * BIRTH_SPREAD_S, self._renew)
        elif topic == topics.command_for_all or topic == topics.own("command"):
            if message.retain:
                log.warning("retained command ignored topic=%s: it would be carried out at each start", topic)
            else:
                self._take_command(message, payload)
        elif entity := topics.entity_of(topic):
            if not message.retain:
                self._take_entity_command(*entity, payload)
        elif message.retain and payload and not self._outbox.holds(topic):
            self._remove_stale(topic, payload)

    def _renew(self) -> None:
        log.info("Home Assistant has started; announcing again")
        self._outbox.renew()
        self._broker.wake()

    def _remove_stale(self, topic: str, payload: bytes) -> None:
        """Removes what an earlier run of ours retained for a camera that is no longer there, and nothing else."""
        if not topic.startswith(self._topics.own("camera/")):
            try:
                if not is_our_payload(json.loads(payload)):
                    return
            except (ValueError, RecursionError):
                return
        if self._outbox.remove(topic):
            log.info("old topic removed topic=%s", topic)
            self._broker.wake()
        elif not self._has_too_many_strays:
            self._has_too_many_strays = True
            log.warning("more old topics than %d cannot be ours; the others stay at the broker", STRAYS_MAX)

    def _take_command(self, message: aiomqtt.Message, payload: bytes) -> None:
        wanted = str(getattr(message.properties, "ResponseTopic", "") or self._topics.own("reply"))
        reply_to = wanted if self._topics.is_reply(wanted) else self._topics.own("reply")
        correlation = getattr(message.properties, "CorrelationData", None)
        send = functools.partial(self._send_reply, reply_to, correlation)
        try:
            command = parse_command(
                payload, access=self._own.commands, device=self._topics.device, now_utc_ns=time.time_ns()
            )
        except RefusedCommandError as problem:
            send(error(str(problem), "refused"))
            return
        if command is not None and self._count_command(send):
            self._create_task(self._carry_out(command, send))

    def _take_entity_command(self, camera: str, entity: str, payload: bytes) -> None:
        send = functools.partial(self._send_reply, self._topics.own("reply"), None)
        try:
            command = command_of_entity(camera, entity, payload, self._own.commands)
        except RefusedCommandError as problem:
            send(error(str(problem), "refused"))
            return
        if self._count_command(send):
            self._create_task(self._carry_out(BrokerCommand(command), send))

    def _count_command(self, send: Any) -> bool:
        """Tells whether there is room for one more command; else refuses it."""
        running = sum(task.get_name() == "MqttLoop._carry_out" for task in self._tasks)
        if running >= COMMANDS_MAX:
            send(error(f"{COMMANDS_MAX} commands run already", "busy"))
            return False
        self._commands += 1
        return True

    async def _carry_out(self, order: BrokerCommand, send: Any) -> None:
        """Sends a command to the hub, at its instant if it has one, and answers."""
        command: Command = order.command
        more: dict[str, JSON] = {}
        if order.at_utc_ns:
            lead_ns = round(RECORD_LEAD_S * 1e9) if isinstance(command, Record) else 0
            while (left_ns := order.at_utc_ns - lead_ns - time.time_ns()) > 0:  # noqa: ASYNC110 - the wall clock may be set
                await asyncio.sleep(min(left_ns / 1e9, 1.0))
            command = at_sensor_time(command, max(1, order.at_utc_ns - utc_offset_ns()))
            more = {"at_utc_ns": order.at_utc_ns}
        reply = await acall(self._settings.socket_path, command)
        log.info("command done command=%s status=%s", wire_name(command), reply.status)
        send(reply, ident=order.id, **more)
        self._refresh_wanted.set()

    def _send_reply(
        self, topic: str, correlation: bytes | None, reply: Reply, ident: JSON = None, **more: JSON
    ) -> None:
        more["clock_error_us"] = read_clock_error_us()
        payload = reply_payload_of(reply, self._topics.device, ident, **more)
        answer = Outgoing(topic, payload, correlation=correlation)
        if not self._broker.takes(answer):
            failure = error(
                f"the answer has {len(payload)} bytes, more than the broker takes; ask for less", "too_long"
            )
            answer = replace(answer, payload=reply_payload_of(failure, self._topics.device, ident, **more))
        self._outbox.add_reply(answer)
        self._broker.wake()

    # ---- tasks

    def _create_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as a task; if it fails, the process ends, and supervisord starts it again."""
        task = asyncio.get_running_loop().create_task(work, name=getattr(work, "__qualname__", None))
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=problem)
            self._stop.fail()


def events_wanted(own: MqttSettings) -> tuple[str, ...]:
    """Returns the events that the hub is to send us."""
    return tuple(sorted({*topics_of(own.events), *EDGES}))


def _to_json(value: Any) -> bytes:
    return json.dumps(value, default=str, separators=(",", ":")).encode()
