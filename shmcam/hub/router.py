"""Routes each message: commands to their owners, answers back to the requester, events to their subscribers.

Pure: bytes, sockets and clocks belong to `shmcam.hub.server`, commands about files and settings to
`shmcam.hub.own_commands`. A method takes what happened and returns the actions that the server carries out.

Two routes have state of their own. The streamer makes one stream of small pictures per camera, at the highest rate and
width of all previews; the hub drops pictures for peers that want fewer. And the last events are kept: when a hub is
killed its processes connect again one after the other, and an event of the first must reach the last of them, too. A
recorder must not miss that night began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from shmcam.config.errors import explain_unknown_camera
from shmcam.control.codec import Decoded, Received, Refused
from shmcam.control.command_table import BY_NAME, CommandRow
from shmcam.control.event_deduplication import LastEvents, SeenEvents
from shmcam.control.help import explain
from shmcam.control.messages import (
    Chunk,
    ChunkFlow,
    Command,
    Event,
    EventId,
    EventsLost,
    Heartbeat,
    Hello,
    Help,
    Message,
    ModeRequested,
    MotionBegan,
    MotionEnded,
    Ping,
    Preview,
    PreviewFrame,
    Quit,
    Reply,
    SettingChanged,
    Subscribe,
    Unsubscribe,
    error,
    topics_of,
    wire_name,
)
from shmcam.hub.pending_commands import PendingCommand, PendingCommands
from shmcam.hub.registry import Peer, Registry

TCP_COMMANDS = frozenset(
    "save snapshot past_stack record night_level health short_stream status ping help quit".split()  # noqa: SIM905
)
"""The commands of the trigger port: pictures, recording and status; none that changes settings or deletes."""

TRUSTED_TCP_COMMANDS = TCP_COMMANDS | {"set", "get", "dump_config", "overwrite_config"}
"""With network.trusted: all commands of the user's former trigger server."""

PENDING_PER_CONNECTION_MAX = 64
"""Answers that one connection may wait for; beyond that the hub refuses its next command."""

PERIOD_SHARE_MIN = 0.75
"""A preview picture goes out after at least this share of the peer's frame period: the streamer's pace jitters."""

RECENT_EVENTS_MAX = 256
"""For who connects after the others: what one process keeps (OUT_MAX), half of a queue (client.QUEUE_MAX)."""


# ---- actions: what the server carries out


class Send(Struct, frozen=True):
    """Sends a message to some peers."""

    peers: tuple[int, ...]
    message: Message
    id: Any = None
    event_id: EventId | None = None


class Close(Struct, frozen=True):
    """Closes a connection after its unsent bytes are out."""

    peer: int
    why: str


class RunCommand(Struct, frozen=True):
    """Runs a command of the hub's own; its Reply goes to `Router.add_own_reply` with this number."""

    number: int
    command: Command


Action = Send | Close | RunCommand


# ---- subscriptions


def subscribe(peer: Peer, command: Subscribe) -> Reply:
    """Adds topics; the answer names all there are now, so that the peer knows which events will come."""
    try:
        peer.topics |= topics_of(command.topics)
    except ValueError as problem:
        return error(str(problem), "bad_arguments")
    topics = sorted(peer.topics)
    return Reply(status="subscribed", text=f"subscribed to {', '.join(topics)}", data={"topics": topics})


def unsubscribe(peer: Peer, command: Unsubscribe) -> Reply:
    """Drops the named topics; without a name, all of them."""
    try:
        peer.topics -= topics_of(command.topics) if command.topics else peer.topics
    except ValueError as problem:
        return error(str(problem), "bad_arguments")
    return Reply(status="unsubscribed", text="OK", data={"topics": sorted(peer.topics)})


# ---- previews


def toggle_preview(registry: Registry, peer: Peer, command: Preview, ident: Any) -> list[Action]:
    """Switches the previews of one camera on or off for one peer."""
    camera = command.camera or registry.cameras[0]
    if camera not in registry.cameras:
        refusal = error(explain_unknown_camera(camera, registry.cameras), "unknown_camera")
        return [Send((peer.number,), refusal, ident)]
    if command.enabled:
        peer.previews[camera] = command
    else:
        peer.previews.pop(camera, None)
    status = "preview_enabled" if command.enabled else "preview_disabled"
    reply = Reply(status=status, text=f"OK: {status} {camera}", data={"camera_id": camera, "enabled": command.enabled})
    return [Send((peer.number,), reply, ident), *request_previews(registry, [camera])]


def request_previews(registry: Registry, cameras: Iterable[str] = ()) -> list[Action]:
    """Sends the streamer the preview requests of these cameras (empty: of all cameras with previews), merged."""
    streamers = tuple(peer.number for peer in registry.owners("preview", None))
    wanted = set(cameras) or {camera for peer in registry.peers.values() for camera in peer.previews}
    actions: list[Action] = []
    for camera in sorted(wanted) if streamers else []:
        previews = [peer.previews[camera] for peer in registry.peers.values() if camera in peer.previews]
        fps = max((preview.fps for preview in previews), default=1.0)
        width = max((preview.width for preview in previews), default=320)
        actions.append(Send(streamers, Preview(camera=camera, enabled=bool(previews), fps=fps, width=width)))
    return actions


def forward_preview(registry: Registry, frame: PreviewFrame, now_s: float) -> list[Action]:
    """Sends one picture to each peer whose frame period is over."""
    numbers = []
    for peer in registry.peers.values():
        preview = peer.previews.get(frame.camera)
        last_s = peer.preview_sent_s.get(frame.camera, -1e9)
        if "preview_frame" in peer.topics or (preview and now_s - last_s >= PERIOD_SHARE_MIN / preview.fps):
            peer.preview_sent_s[frame.camera] = now_s
            numbers.append(peer.number)
    return [Send(tuple(numbers), frame)] if numbers else []


class Router:
    """The routes of one control socket."""

    def __init__(self, cameras: tuple[str, ...], tcp_commands: frozenset[str] = TCP_COMMANDS) -> None:
        self.registry = Registry(cameras)
        self._tcp_commands = tcp_commands
        self._pending = PendingCommands()
        self._recent = LastEvents(RECENT_EVENTS_MAX)
        self._seen = SeenEvents()
        self._handlers: dict[type[Command], Callable[[Peer, Any, Any], list[Action]]] = {
            Ping: lambda peer, _m, i: [Send((peer.number,), Reply(status="pong", text="pong"), i)],
            Help: lambda peer, m, i: [Send((peer.number,), explain(m.word), i)],
            Quit: lambda p, _m, i: [Send((p.number,), Reply(status="bye", text="bye"), i), Close(p.number, "quit")],
            Subscribe: lambda peer, m, i: [Send((peer.number,), subscribe(peer, m), i)],
            Unsubscribe: lambda peer, m, i: [Send((peer.number,), unsubscribe(peer, m), i)],
            Preview: lambda peer, m, i: toggle_preview(self.registry, peer, m, i),
        }

    def add_peer(self, number: int, now_s: float, *, trusted: bool = True) -> None:
        """Adds a new connection; `trusted=False`: it came over TCP."""
        self.registry.peers[number] = Peer(number, trusted, since_ns=int(now_s * 1e9))

    def remove_peer(self, number: int, now_ns: int = 0) -> list[Action]:
        """Removes a closed connection; the requesters of its outstanding answers get an error.

        `now_ns`: by the sensor's clock.
        """
        peer = self.registry.remove(number)
        if peer is None:
            return []
        self._pending.drop_requester(number)
        complete = self._pending.fail_owner(number, "went away before it answered; supervisord starts it again")
        return [
            *map(_send_reply, complete),
            *request_previews(self.registry, set(peer.previews)),
            *self._end_motion(peer, now_ns),
        ]

    def _end_motion(self, peer: Peer, now_ns: int) -> list[Action]:
        """Ends the motion that an analyzer saw which went away: the next one cannot know that it had begun."""
        actions: list[Action] = []
        for key, began in peer.standing.items():
            if type(began) is MotionBegan and self.registry.latest.get(key) is began:
                duration_s = max(0.0, (now_ns - began.captured_ns) / 1e9) if began.captured_ns else 0.0
                ended = MotionEnded(camera=began.camera, captured_ns=now_ns, duration_s=duration_s)
                self.registry.remember(ended)
                actions += self.announce(ended)
        return actions

    def is_busy(self, number: int) -> bool:
        """Returns whether a connection waits for an answer."""
        return self._pending.count_of(number) > 0

    def wants_events(self, number: int) -> bool:
        """Returns whether a connection wants events: it then stays open although it sends no more commands."""
        peer = self.registry.peers.get(number)
        return bool(peer and (peer.topics or peer.previews))

    def route(self, number: int, decoded: Decoded, now_s: float) -> list[Action]:
        """Routes one message of a connection."""
        peer = self.registry.peers.get(number)
        if peer is None:
            return []
        if not isinstance(decoded, Received):
            return self._refuse(peer, decoded)
        message = decoded.message
        if isinstance(message, Command):
            return self._route_command(peer, message, decoded.id, now_s)
        if not peer.trusted or (peer.hello is None and not isinstance(message, Hello)):
            reply = error(f"{wire_name(message)}: only a process that said hello may send this", "not_allowed")
            return [Send((number,), reply, decoded.id)]
        if isinstance(message, Event):
            return self._route_event(peer, message, now_s, decoded.event_id)
        return self._route_answer(peer, message, decoded.id)

    def announce(self, event: Event, now_s: float = 0.0, event_id: EventId | None = None) -> list[Action]:
        """Sends an event, the hub's own or a process's, to its recipients."""
        if isinstance(event, PreviewFrame):
            return forward_preview(self.registry, event, now_s)
        numbers = {peer.number for peer in self.registry.subscribers(wire_name(event))}
        if isinstance(event, SettingChanged):
            numbers |= {peer.number for peer in self.registry.processes()}
        if isinstance(event, ModeRequested):
            processes = self.registry.processes()
            numbers |= {p.number for p in processes if p.hello and self.registry.is_recipient(p.hello, event)}
        if event_id is not None:
            numbers = {number for number in numbers if self.registry.peers[number].since_ns < event_id[1]}
        return [Send(tuple(sorted(numbers)), event, event_id=event_id)] if numbers else []

    def add_own_reply(self, number: int, reply: Reply) -> list[Action]:
        """Takes the Reply of a RunCommand."""
        complete = self._pending.add_reply(number, None, reply)
        return [_send_reply(complete)] if complete else []

    def tick(self, now_s: float) -> list[Action]:
        """Answers for owners past their deadline; call it about once a second."""
        return [_send_reply(pending) for pending in self._pending.expire(now_s)]

    # ---- commands

    def _route_command(self, peer: Peer, command: Command, ident: Any, now_s: float) -> list[Action]:
        row = BY_NAME[wire_name(command)]
        owners = [] if row.owner == "hub" else self._owners(row, command)
        if refusal := self._refusal_of(peer, row, command, owners):
            return [Send((peer.number,), refusal, ident)]
        if handle := self._handlers.get(type(command)):
            return handle(peer, command, ident)
        pending = self._pending.begin(peer.number, ident, row, now_s, owners)
        if pending is None:
            return [Send((peer.number,), error("too many commands are under way; try again", "busy"), ident)]
        if not owners:
            return [RunCommand(pending.number, command)]
        return [Send(tuple(pending.owners), command, pending.number)]

    def _refusal_of(self, peer: Peer, row: CommandRow, command: Command, owners: list[Peer]) -> Reply | None:
        if not peer.trusted and row.name not in self._tcp_commands:
            text = f"{row.words[0]} is not for the trigger port (network.trusted = true in config.toml lets it in)"
            return error(text, "not_allowed")
        if self._pending.count_of(peer.number) >= PENDING_PER_CONNECTION_MAX:
            text = f"{PENDING_PER_CONNECTION_MAX} commands of this connection are under way; wait for answers"
            return error(text, "busy")
        return self._explain_no_owner(row, command) if row.owner != "hub" and not owners else None

    def _owners(self, row: CommandRow, command: Command) -> list[Peer]:
        return self.registry.owners(row.name, str(getattr(command, "camera", "")) if row.per_camera else None)

    def _explain_no_owner(self, row: CommandRow, command: Command) -> Reply:
        """Returns the Reply for a command without an owner: the reason and the remedy."""
        camera = str(getattr(command, "camera", ""))
        if camera and camera not in self.registry.cameras:
            return error(explain_unknown_camera(camera, self.registry.cameras), "unknown_camera")
        program = self.registry.supervisor_name_of(row.owner, camera if row.per_camera else "")
        if self.registry.is_connected(row.owner, camera):
            return error(f"{program} runs but does not answer {row.words[0]}", "not_answered")
        text = f"{program} is not connected, so nobody answers {row.words[0]}; try: shmcam start {program}"
        return error(text, "not_running", program=program)

    def _refuse(self, peer: Peer, refused: Refused) -> list[Action]:
        """Tells a peer what cannot be read; where that is an answer, who waits for it is told, too."""
        actions: list[Action] = [Send((peer.number,), refused.reply, None if refused.is_answer else refused.id)]
        if refused.fatal:
            actions.append(Close(peer.number, refused.reply.text))
        if refused.is_answer:
            text = f"{peer.program} gave an answer that cannot be read: {refused.reply.text.removeprefix('ERROR: ')}"
            if complete := self._pending.add_reply(refused.id, peer.number, error(text, "unsendable")):
                actions.append(_send_reply(complete))
        return actions

    # ---- from processes

    def _route_answer(self, peer: Peer, message: Message, ident: Any) -> list[Action]:
        """Routes a Reply or a Chunk to the requester; one that comes too late is dropped."""
        if isinstance(message, Reply):
            complete = self._pending.add_reply(ident, peer.number, message)
            return [_send_reply(complete)] if complete else []
        pending = self._pending.find(ident, peer.number)
        return [Send((pending.requester,), message, pending.ident)] if pending and isinstance(message, Chunk) else []

    def hold_chunks(self, requester: int, *, wait: bool) -> list[Action]:
        """Asks who sends chunks to a peer to wait until it has read those before, or to go on."""
        changed = self._pending.set_held(requester, is_held=wait)
        return [Send(tuple(one.owners), ChunkFlow(wait=wait), one.number) for one in changed]

    def _route_event(self, peer: Peer, event: Event, now_s: float, event_id: EventId | None) -> list[Action]:
        if isinstance(event, Hello):
            return self._welcome(peer, event, now_s)
        if isinstance(event, EventsLost):
            return []
        if isinstance(event, Heartbeat):
            peer.heartbeat, peer.last_seen_s = event, now_s
        self.registry.remember(event, peer)
        if event_id is not None:
            if not self._seen.add(event_id):
                return []
            self._recent.add(event_id, event)
        return self.announce(event, now_s, event_id)

    def _welcome(self, peer: Peer, hello: Hello, now_s: float) -> list[Action]:
        program = hello.program or self.registry.program_of(hello.role, hello.camera)
        peer.hello = replace(hello, program=program)
        peer.last_seen_s = now_s
        peer.since_ns = hello.since_ns or peer.since_ns
        if hello.role == "capture":  # a new one may have begun in another mode, and an old one sends its own again
            self.registry.latest.pop(("mode", hello.camera or self.registry.cameras[0]), None)
        try:
            peer.topics |= topics_of(hello.subscribe) if hello.subscribe else frozenset()
        except ValueError as problem:
            return [Send((peer.number,), error(str(problem), "bad_arguments"))]
        actions: list[Action] = [Send((peer.number,), Reply(status="welcome", text="welcome"))]
        recent = [item for item in self._recent.since(peer.since_ns) if wire_name(item[1]) in peer.topics]
        actions += [Send((peer.number,), event, event_id=event_id) for event_id, event in recent]
        standing = (event for event in self.registry.latest.values() if self.registry.is_recipient(hello, event))
        actions += [Send((peer.number,), event) for event in standing if all(event != sent for _, sent in recent)]
        return actions + (request_previews(self.registry) if hello.role == "streamer" else [])


def _send_reply(pending: PendingCommand) -> Send:
    return Send((pending.requester,), pending.merged_reply(), pending.ident)
