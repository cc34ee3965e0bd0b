"""The hub's sockets: carries out what `shmcam.hub.router` decides. One asyncio thread, one worker for slow answers."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shmcam.control.messages import Command, Event, Hello, Reply
from shmcam.control.settings import NetworkSettings
from shmcam.hub.access import RateLimit
from shmcam.hub.connection import PeerConnection
from shmcam.hub.own_commands import OwnCommands
from shmcam.hub.router import Action, Close, Do, Router, Send
from shmcam.hub.unix_socket import UnixPlace
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 128
"""Unix connections at once: far below the 1024 descriptors supervisord gives us (running out is a log bomb)."""

TCP_CONNECTIONS_MAX = 16
TCP_RETRY_S = 2.0
TICK_S = 0.5


class Server:
    """One hub on its sockets."""

    def __init__(self, hub: Router, desk: OwnCommands, network: NetworkSettings) -> None:
        self.hub = hub
        self._desk = desk
        self._network = network
        self._rate = RateLimit(network.rate_per_s)
        self._connections: dict[int, PeerConnection] = {}
        self._next = 1
        self._tcp_server: asyncio.Server | None = None
        self._tcp_next_s = 0.0
        self._tcp_told = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, place: UnixPlace, stop: Stop) -> None:
        """Answer until stop is requested. *Raises* OSError where the sockets cannot be opened."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        loop.add_reader(stop.fileno(), stopped.set)
        await self._open_tcp()
        await place.open(self._unix)
        log.info("ready socket=%s trigger_port=%s", place.path, self._network.trigger_port or "off")
        try:
            while not stopped.is_set():
                await self._tick(place)
                await _either(stopped, TICK_S)
        finally:
            loop.remove_reader(stop.fileno())
            place.close()
            if self._tcp_server:
                self._tcp_server.close()
            for connection in list(self._connections.values()):
                connection.close("hub stops")
            self._worker.shutdown(wait=True)
            log.info(
                "stopped connections=%d lost_events=%d", self._next - 1, sum(c.lost for c in self._connections.values())
            )

    async def _open_tcp(self) -> None:
        """Open the trigger port, if there is to be one; a taken port is told once and tried again, like a camera."""
        port, now_s = self._network.trigger_port, time.monotonic()
        if not port or self._tcp_server or now_s < self._tcp_next_s:
            return
        self._tcp_next_s = now_s + TCP_RETRY_S
        try:
            self._tcp_server = await asyncio.get_running_loop().create_server(self._tcp, self._network.bind, port)
        except OSError as problem:
            if not self._tcp_told:
                log.error("trigger port %s:%d cannot be opened, trying on: %s", self._network.bind, port, problem)
            self._tcp_told = True
        else:
            log.info("trigger port open address=%s:%d", self._network.bind, port)

    async def _tick(self, place: UnixPlace) -> None:
        now_s = time.monotonic()
        self.execute(self.hub.tick(now_s))
        for connection in list(self._connections.values()):
            connection.tick(now_s)
        await place.reopen_if_gone(self._unix)
        await self._open_tcp()

    def _unix(self) -> PeerConnection:
        return self._connection(trusted=True)

    def _tcp(self) -> PeerConnection:
        return self._connection(trusted=False)

    def _connection(self, *, trusted: bool) -> PeerConnection:
        number, self._next = self._next, self._next + 1
        token = "" if trusted else self._network.token
        return PeerConnection(self, number, self.hub.roster.cameras, trusted=trusted, token=token)

    # ---- from connections

    def opened(self, connection: PeerConnection) -> bool:
        """Take a new connection in. Returns False if there are too many."""
        limit = CONNECTIONS_MAX if connection.trusted else TCP_CONNECTIONS_MAX
        if sum(c.trusted == connection.trusted for c in self._connections.values()) >= limit:
            return False
        self._connections[connection.number] = connection
        self.hub.opened(connection.number, trusted=connection.trusted)
        return True

    def closed(self, connection: PeerConnection) -> None:
        """Forget a connection."""
        if self._connections.pop(connection.number, None):
            peer = self.hub.roster.peers.get(connection.number)
            if peer and peer.hello:
                log.info("left program=%s pid=%d", peer.program, peer.hello.pid)
            self.execute(self.hub.closed(connection.number))

    def received(self, connection: PeerConnection, decoded: Any) -> None:
        """Let the hub decide about one message, and do it."""
        now_s = time.monotonic()
        if not connection.trusted and not self._rate.allows(connection.address, now_s):
            connection.refuse(f"more than {self._network.rate_per_s:g} commands a second; slow down")
            return
        self.execute(self.hub.received(connection.number, decoded, now_s))
        message = getattr(decoded, "message", None)
        if isinstance(message, Hello):
            self._welcome(connection)

    def _welcome(self, connection: PeerConnection) -> None:
        """Tell a process what was set since it read config.toml."""
        peer = self.hub.roster.peers.get(connection.number)
        if peer and peer.hello:
            connection.is_process()
            log.info("joined program=%s pid=%d credentials=%s", peer.program, peer.hello.pid, connection.credentials)
            for event in self._desk.configuration.live_changes():
                connection.send(event, None)

    def is_busy(self, number: int) -> bool:
        """Tell whether a connection waits for an answer."""
        return self.hub.errands.of(number) > 0

    def listens(self, number: int) -> bool:
        """Tell whether a connection wants events, so that it stays although it says nothing more."""
        peer = self.hub.roster.peers.get(number)
        return bool(peer and (peer.topics or peer.previews))

    # ---- doing

    def execute(self, actions: list[Action]) -> None:
        """Carry out what the hub decided."""
        for action in actions:
            if isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Close):
                if connection := self._connections.get(action.peer):
                    connection.close(action.why)
            else:
                self._do(action)

    def _send(self, action: Send) -> None:
        encoded: dict[str, bytes] = {}
        for number in action.peers:
            if connection := self._connections.get(number):
                connection.send(action.message, action.id, encoded)

    def _do(self, action: Do) -> None:
        if not isinstance(action.command, self._desk.slow):
            self._done(action.ticket, *self._desk.answer(action.command))
            return
        task = asyncio.get_running_loop().create_task(self._slowly(action.ticket, action.command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _slowly(self, ticket: int, command: Command) -> None:
        loop = asyncio.get_running_loop()
        self._done(ticket, *await loop.run_in_executor(self._worker, self._desk.answer, command))

    def _done(self, ticket: int, reply: Reply, events: list[Event]) -> None:
        for event in events:
            self.execute(self.hub.announce(event))
        self.execute(self.hub.answered(ticket, reply))


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
