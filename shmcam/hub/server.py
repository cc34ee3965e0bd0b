"""Serves the hub's sockets and carries out the router's actions: one asyncio thread, one worker for slow commands."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from shmcam.control.codec import Decoded, Received
from shmcam.control.messages import Chunk, Event, Hello, Reply
from shmcam.control.settings import NetworkSettings
from shmcam.hub.connection import PeerConnection
from shmcam.hub.own_commands import Answer, OwnCommands
from shmcam.hub.router import Action, Close, Router, RunCommand, Send
from shmcam.hub.trigger_port_access import LogLimit, RateLimit
from shmcam.hub.unix_socket import UnixListener
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 128
"""Unix connections at once: far below the 1024 descriptors supervisord gives us (running out is a log bomb)."""

RESERVED_CONNECTIONS = 32
"""Further ones for processes of ours, which must find a place when they are started again: with twelve cameras there
are 53 of them."""

TCP_CONNECTIONS_MAX = 16
"""TCP connections at once."""

TCP_CONNECTIONS_PER_PEER_MAX = 8
"""TCP connections at once from one address."""

TCP_RETRY_S = 2.0
"""Pause before the next try to open the trigger port."""

TICK_S = 0.5
"""Time between two checks of deadlines, slow peers and the socket file."""


class Server:
    """One hub on its sockets."""

    def __init__(self, router: Router, own_commands: OwnCommands, network: NetworkSettings) -> None:
        self._router = router
        self._own_commands = own_commands
        self._network = network
        self._rate_limit = RateLimit(network.rate_per_s)
        self._wrong_token_log = LogLimit()
        self._connections: dict[int, PeerConnection] = {}
        self._next_number = 1
        self._tcp_server: asyncio.Server | None = None
        self._tcp_retry_s = 0.0
        self._is_tcp_error_logged = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="own-commands")

    async def serve(self, listener: UnixListener, stop: Stop) -> None:
        """Serves until stop is requested. Raises: OSError if the sockets cannot be opened."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        loop.add_reader(stop.fileno(), stopped.set)
        await self._open_tcp()
        await listener.open(self._make_unix_connection)
        log.info("ready socket=%s trigger_port=%s", listener.path, self._network.trigger_port or "off")
        try:
            while not stopped.is_set():
                await self._tick(listener)
                await _wait_for(stopped, TICK_S)
        finally:
            loop.remove_reader(stop.fileno())
            listener.close()
            if self._tcp_server:
                self._tcp_server.close()
            for connection in list(self._connections.values()):
                connection.close("hub stops")
            self._worker.shutdown(wait=True)
            lost_events = sum(c.lost_count for c in self._connections.values())
            log.info("stopped connections=%d lost_events=%d", self._next_number - 1, lost_events)

    async def _open_tcp(self) -> None:
        """Opens the trigger port, if there is one; a taken port is logged once and tried again, like a camera."""
        port, now_s = self._network.trigger_port, time.monotonic()
        if not port or self._tcp_server or now_s < self._tcp_retry_s:
            return
        self._tcp_retry_s = now_s + TCP_RETRY_S
        make, bind = self._make_tcp_connection, self._network.address
        try:
            self._tcp_server = await asyncio.get_running_loop().create_server(make, bind, port)
        except OSError as problem:
            if not self._is_tcp_error_logged:
                log.error("trigger port %s:%d cannot be opened, trying on: %s", bind or "*", port, problem)
            self._is_tcp_error_logged = True
        else:
            log.info("trigger port open address=%s:%d", bind or "*", port)
            if self._network.trusted and not self._network.token:
                log.warning("trigger port: network.trusted lets everybody on the network in, also to change settings")

    async def _tick(self, listener: UnixListener) -> None:
        now_s = time.monotonic()
        self.execute(self._router.tick(now_s))
        for connection in list(self._connections.values()):
            connection.tick(now_s)
        await listener.reopen_if_gone(self._make_unix_connection)
        await self._open_tcp()

    def _make_unix_connection(self) -> PeerConnection:
        return self._make_connection(trusted=True)

    def _make_tcp_connection(self) -> PeerConnection:
        return self._make_connection(trusted=False)

    def _make_connection(self, *, trusted: bool) -> PeerConnection:
        number, self._next_number = self._next_number, self._next_number + 1
        return PeerConnection(
            number,
            self._router,
            on_open=self._add_connection,
            on_close=self._remove_connection,
            on_message=self._take_message,
            on_wrong_token=self._log_wrong_token,
            on_drained=self._release_chunks,
            trusted=trusted,
            token="" if trusted else self._network.token,
        )

    # ---- connections call these

    def _add_connection(self, connection: PeerConnection) -> bool:
        """Adds a new connection, if necessary in place of an idle one. Returns False if there are too many."""
        if not (self._has_unix_place(connection) if connection.trusted else self._has_tcp_place(connection)):
            return False
        self._connections[connection.number] = connection
        self._router.add_peer(connection.number, time.monotonic(), trusted=connection.trusted)
        return True

    def _has_unix_place(self, newcomer: PeerConnection) -> bool:
        """Returns whether there is a place; one of the last is given for a moment, as it may be a process of ours."""
        connections = [c for c in self._connections.values() if c.trusted]
        newcomer.is_provisional = len(connections) >= CONNECTIONS_MAX and not self._make_room(connections)
        return not newcomer.is_provisional or len(connections) < CONNECTIONS_MAX + RESERVED_CONNECTIONS

    def _has_tcp_place(self, newcomer: PeerConnection) -> bool:
        connections = [c for c in self._connections.values() if not c.trusted]
        of_peer = [c for c in connections if c.peer_key == newcomer.peer_key]
        if len(of_peer) >= TCP_CONNECTIONS_PER_PEER_MAX:
            return self._make_room(of_peer)
        return len(connections) < TCP_CONNECTIONS_MAX or self._make_room(connections)

    def _make_room(self, connections: list[PeerConnection]) -> bool:
        """Closes the connection that nobody would miss and that was heard of longest ago. Returns False if none is."""
        candidates = [c for c in connections if c.may_make_room]
        idle = min(candidates, key=lambda c: (not c.is_gone, c.last_heard_s), default=None)
        if idle is None:
            return False
        self._remove_connection(idle)
        idle.refuse("closed to make room for another connection")
        return True

    def _log_wrong_token(self, connection: PeerConnection) -> None:
        if (omitted := self._wrong_token_log.admit(time.monotonic())) is not None:
            more = f" ({omitted} more were not logged)" if omitted else ""
            log.warning("trigger port: wrong token from %s%s", connection.address, more)

    def _remove_connection(self, connection: PeerConnection) -> None:
        if self._connections.pop(connection.number, None):
            peer = self._router.registry.peers.get(connection.number)
            if peer and peer.hello:
                log.info("left program=%s pid=%d", peer.program, peer.hello.pid)
            self.execute(self._router.remove_peer(connection.number, now_ns()))

    def _take_message(self, connection: PeerConnection, decoded: Decoded) -> None:
        """Routes one message and carries out the actions."""
        now_s = time.monotonic()
        is_limited = not (connection.trusted or self._network.trusted)
        if is_limited and not self._rate_limit.admit(connection.peer_key, now_s):
            connection.refuse(f"more than {self._network.rate_per_s:g} commands a second; slow down")
            return
        self.execute(self._router.route(connection.number, decoded, now_s))
        if isinstance(decoded, Received) and isinstance(decoded.message, Hello):
            self._send_live_settings(connection)

    def _send_live_settings(self, connection: PeerConnection) -> None:
        """Sends a new process the settings that changed since it read config.toml."""
        peer = self._router.registry.peers.get(connection.number)
        if peer and peer.hello:
            connection.treat_as_process()
            log.info("joined program=%s pid=%d credentials=%s", peer.program, peer.hello.pid, connection.credentials)
            for event in self._own_commands.live_settings.events_for_new_process():
                connection.send(event, None)

    # ---- actions

    def execute(self, actions: list[Action]) -> None:
        """Carries out the router's actions."""
        for action in actions:
            if isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Close):
                if connection := self._connections.get(action.peer):
                    connection.close(action.why)
            else:
                self._run_command(action)

    def _release_chunks(self, connection: PeerConnection) -> None:
        """Lets chunks for a connection come again that has read those before."""
        self.execute(self._router.hold_chunks(connection.number, wait=False))

    def _send(self, action: Send) -> None:
        encoded: dict[str, bytes] = {}
        for number in action.peers:
            if connection := self._connections.get(number):
                connection.send(action.message, action.id, encoded, action.event_id)
                if connection.is_behind and isinstance(action.message, Chunk):
                    self.execute(self._router.hold_chunks(number, wait=True))

    def _run_command(self, action: RunCommand) -> None:
        if not isinstance(action.command, self._own_commands.slow):
            self._finish_command(action.number, *self._own_commands.answer(action.command))
            return
        loop = asyncio.get_running_loop()

        def finish(answered: Future[Answer]) -> None:
            loop.call_soon_threadsafe(self._finish_command, action.number, *answered.result())

        self._worker.submit(self._own_commands.answer, action.command).add_done_callback(finish)

    def _finish_command(self, number: int, reply: Reply, events: list[Event]) -> None:
        """Sends a reply, then the events: each process has them before any later command, and nobody waits for all."""
        self.execute(self._router.add_own_reply(number, reply))
        for event in events:
            self.execute(self._router.announce(event))


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
