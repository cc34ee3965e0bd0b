"""Where each message goes: commands to who answers them, answers back, events to who subscribed.

Pure: bytes, sockets and clocks are `shmcam.hub.server`'s; what the hub answers about files and settings is
`shmcam.hub.own_commands`'s. Each method takes what happened and returns what is to be done, as a list of actions.

What the hub decides is to be done; `shmcam.hub.server` does it.

`subscribe` and `unsubscribe`: which events a connection gets. No I/O.

preview_frame messages: who wants them, what the streamer has to make, who gets each picture. No I/O.

The streamer makes one stream of small pictures per camera, at the highest rate and width anyone asked for; the hub
thins it for those who asked for less.

What was announced in a hub's first seconds, for those who come back to it later than the sender. No I/O.

When a hub is killed its processes connect again within a second, one after the other. What the first of them had to
tell meanwhile must reach the last of them, too: a recorder must not miss that night began.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

from shmcam.control.codec import Decoded, Received
from shmcam.control.command_table import BY_NAME, CommandRow
from shmcam.control.help import explain
from shmcam.control.messages import (
    Chunk,
    Command,
    Event,
    EventsLost,
    Heartbeat,
    Hello,
    Help,
    Message,
    ModeRequested,
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
from shmcam.hub.pending import PendingCommand, PendingCommands
from shmcam.hub.registry import Peer, Registry


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to some peers."""

    peers: tuple[int, ...]
    message: Message
    id: Any = None


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection once everything sent to it is out."""

    peer: int
    why: str


@dataclass(frozen=True, slots=True)
class Do:
    """Work of the desk; its Reply goes to `Hub.answered` with this ticket."""

    ticket: int
    command: Command


Action = Send | Close | Do


def subscribed(peer: Peer, command: Subscribe) -> Reply:
    """Take topics on; the answer names all there are now, so that nobody waits for an event he never asked for."""
    try:
        peer.topics |= topics_of(command.topics)
    except ValueError as problem:
        return error(str(problem), "bad_arguments")
    shown = sorted(peer.topics)
    return Reply(status="subscribed", text=f"subscribed to {', '.join(shown)}", data={"topics": shown})


def unsubscribed(peer: Peer, command: Unsubscribe) -> Reply:
    """Drop topics; without any named, all of them."""
    try:
        peer.topics -= topics_of(command.topics) if command.topics else peer.topics
    except ValueError as problem:
        return error(str(problem), "bad_arguments")
    return Reply(status="unsubscribed", text="OK", data={"topics": sorted(peer.topics)})


EARLY = 0.75
"""A picture goes out if at least this part of a watcher's frame period is over: the streamer's pace jitters."""


def toggle_preview(roster: Registry, peer: Peer, command: Preview, ident: Any) -> list[Action]:
    """Switch previews of one camera for one connection."""
    camera = command.camera or roster.cameras[0]
    if camera not in roster.cameras:
        said = error(f"no camera {camera!r}; cameras: {', '.join(roster.cameras)}", "unknown_camera")
        return [Send((peer.number,), said, ident)]
    if command.enabled:
        peer.previews[camera] = command
    else:
        peer.previews.pop(camera, None)
    status = "preview_enabled" if command.enabled else "preview_disabled"
    reply = Reply(status=status, text=f"OK: {status} {camera}", data={"camera_id": camera, "enabled": command.enabled})
    return [Send((peer.number,), reply, ident), *request_previews(roster, [camera])]


def request_previews(roster: Registry, cameras: Iterable[str] = ()) -> list[Action]:
    """Tell the streamer what is wanted of these cameras (none given: of all that anyone watches)."""
    streamers = tuple(peer.number for peer in roster.owners("preview", None))
    wanted = set(cameras) or {camera for peer in roster.peers.values() for camera in peer.previews}
    asked = []
    for camera in sorted(wanted) if streamers else []:
        watching = [peer.previews[camera] for peer in roster.peers.values() if camera in peer.previews]
        fps = max((one.fps for one in watching), default=1.0)
        width = max((one.width for one in watching), default=320)
        asked.append(Send(streamers, Preview(camera=camera, enabled=bool(watching), fps=fps, width=width)))
    return list(asked)


def forward_preview(roster: Registry, frame: PreviewFrame, now_s: float) -> list[Action]:
    """Give one picture to each watcher whose turn it is."""
    to = []
    for peer in roster.peers.values():
        wanted = peer.previews.get(frame.camera)
        last_s = peer.preview_sent_s.get(frame.camera, -1e9)
        if "preview_frame" in peer.topics or (wanted and now_s - last_s >= EARLY / wanted.fps):
            peer.preview_sent_s[frame.camera] = now_s
            to.append(peer.number)
    return [Send(tuple(to), frame)] if to else []


EARLY_S = 3.0
"""Twice what all processes need to come back on a busy machine; counted from the first hello."""
EVENTS_MAX = 128
"""Of a flood in these seconds the newest are kept: half of what a process's inbox holds (client.QUEUE_MAX)."""


class ReplayBuffer:
    """The events of one hub's beginning."""

    def __init__(self) -> None:
        self._until_s = math.inf
        self._events: deque[tuple[Event, frozenset[int]]] = deque(maxlen=EVENTS_MAX)
        """Each with the pids it was passed on to: who only lost its connection hears nothing twice."""

    def note(self, event: Event, heard: frozenset[int], now_s: float) -> None:
        """Keep what is being passed on, if it is early; moving pictures and signs of life are worth nothing later."""
        if now_s < self._until_s and not isinstance(event, Heartbeat | PreviewFrame):
            self._events.append((event, heard))

    def missed(self, topics: Container[str], pid: int, now_s: float) -> list[Event]:
        """Events of these topics, oldest first, for a process that says hello only now."""
        self._until_s = min(self._until_s, now_s + EARLY_S)
        if now_s >= self._until_s:
            self._events.clear()
        return [event for event, heard in self._events if wire_name(event) in topics and pid not in heard]


TCP_COMMANDS = frozenset(
    "save snapshot past_stack record night_level short_stream status ping help quit".split()  # noqa: SIM905
)
"""What the trigger port accepts: pictures, recording and a look; nothing that changes settings or deletes."""

WAITING_MAX = 64
"""Answers one connection may be waiting for; the next command is refused."""


class Router:
    """Routing of one control socket."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self.roster = Registry(cameras)
        self.errands = PendingCommands()
        self._early = ReplayBuffer()
        self._own: dict[type[Command], Callable[[Peer, Any, Any], list[Action]]] = {
            Ping: lambda peer, _m, i: [Send((peer.number,), Reply(status="pong", text="pong"), i)],
            Help: lambda peer, m, i: [Send((peer.number,), explain(m.word), i)],
            Quit: lambda p, _m, i: [Send((p.number,), Reply(status="bye", text="bye"), i), Close(p.number, "quit")],
            Subscribe: lambda peer, m, i: [Send((peer.number,), subscribed(peer, m), i)],
            Unsubscribe: lambda peer, m, i: [Send((peer.number,), unsubscribed(peer, m), i)],
            Preview: lambda peer, m, i: toggle_preview(self.roster, peer, m, i),
        }

    def opened(self, number: int, *, trusted: bool = True) -> None:
        """Note a new connection; `trusted=False`: it came over TCP."""
        self.roster.peers[number] = Peer(number, trusted)

    def closed(self, number: int) -> list[Action]:
        """Note that a connection is gone; those who waited for its answers get an error."""
        peer = self.roster.peers.pop(number, None)
        if peer is None:
            return []
        self.errands.forget(number)
        done = self.errands.lost(number, "went away before it answered; supervisord starts it again")
        return [*map(_answer, done), *request_previews(self.roster, set(peer.previews))]

    def received(self, number: int, decoded: Decoded, now_s: float) -> list[Action]:
        """Take what one connection sent."""
        peer = self.roster.peers.get(number)
        if peer is None:
            return []
        if not isinstance(decoded, Received):
            refusal = Send((number,), decoded.reply, decoded.id)
            return [refusal, Close(number, decoded.reply.text)] if decoded.fatal else [refusal]
        message = decoded.message
        if isinstance(message, Command):
            return self._command(peer, message, decoded.id, now_s)
        if not peer.trusted or (peer.hello is None and not isinstance(message, Hello)):
            said = error(f"{wire_name(message)}: only a process that said hello may send this", "not_allowed")
            return [Send((number,), said, decoded.id)]
        if isinstance(message, Event):
            return self._event(peer, message, now_s, again=decoded.again)
        return self._returned(peer, message, decoded.id)

    def announce(self, event: Event, now_s: float = 0.0) -> list[Action]:
        """Tell an event of the hub's own, or pass one on."""
        if isinstance(event, PreviewFrame):
            return forward_preview(self.roster, event, now_s)
        to = {peer.number for peer in self.roster.subscribers(wire_name(event))}
        if isinstance(event, SettingChanged):
            to |= {peer.number for peer in self.roster.processes()}
        if isinstance(event, ModeRequested):
            to |= {p.number for p in self.roster.processes() if p.hello and self.roster.concerns(p.hello, event)}
        return [Send(tuple(sorted(to)), event)] if to else []

    def answered(self, ticket: int, reply: Reply) -> list[Action]:
        """Take the desk's answer."""
        done = self.errands.take(ticket, None, reply)
        return [_answer(done)] if done else []

    def tick(self, now_s: float) -> list[Action]:
        """Answer for owners that take too long; call it about once a second."""
        return [_answer(errand) for errand in self.errands.overdue(now_s)]

    # ---- commands

    def _command(self, peer: Peer, command: Command, ident: Any, now_s: float) -> list[Action]:
        row = BY_NAME[wire_name(command)]
        owners = [] if row.owner == "hub" else self._owners(row, command)
        if refusal := self._refusal(peer, row, command, owners):
            return [Send((peer.number,), refusal, ident)]
        if own := self._own.get(type(command)):
            return own(peer, command, ident)
        errand = self.errands.begin(peer.number, ident, row, now_s, owners)
        if errand is None:
            return [Send((peer.number,), error("too many commands are under way; try again", "busy"), ident)]
        if not owners:
            return [Do(errand.ticket, command)]
        return [Send(tuple(errand.waiting), command, errand.ticket)]

    def _refusal(self, peer: Peer, row: CommandRow, command: Command, owners: list[Peer]) -> Reply | None:
        if not peer.trusted and row.name not in TCP_COMMANDS:
            return error(f"{row.words[0]} is not for the trigger port", "not_allowed")
        if self.errands.of(peer.number) >= WAITING_MAX:
            return error(f"{WAITING_MAX} commands of this connection are under way; wait for answers", "busy")
        return self._nobody(row, command) if row.owner != "hub" and not owners else None

    def _owners(self, row: CommandRow, command: Command) -> list[Peer]:
        return self.roster.owners(row.name, str(getattr(command, "camera", "")) if row.per_camera else None)

    def _nobody(self, row: CommandRow, command: Command) -> Reply:
        """Say why nobody answers, and what would help."""
        camera = str(getattr(command, "camera", ""))
        if camera and camera not in self.roster.cameras:
            return error(f"no camera {camera!r}; cameras: {', '.join(self.roster.cameras)}", "unknown_camera")
        program = self.roster.supervised(row.owner, camera if row.per_camera else "")
        if self.roster.is_there(row.owner, camera):
            return error(f"{program} runs but does not answer {row.words[0]}", "not_answered")
        said = f"{program} is not connected, so nobody answers {row.words[0]}; try: supervisorctl start {program}"
        return error(said, "not_running", program=program)

    # ---- from processes

    def _returned(self, peer: Peer, message: Message, ident: Any) -> list[Action]:
        """Take a Reply or a Chunk for a command we passed on; a late one is nobody's any more."""
        if isinstance(message, Reply):
            done = self.errands.take(ident, peer.number, message)
            return [_answer(done)] if done else []
        errand = self.errands.find(ident, peer.number)
        return [Send((errand.asker,), message, errand.ident)] if errand and isinstance(message, Chunk) else []

    def _event(self, peer: Peer, event: Event, now_s: float, *, again: bool) -> list[Action]:
        if isinstance(event, Hello):
            return self._hello(peer, event, now_s)
        if isinstance(event, EventsLost):
            return []
        if isinstance(event, Heartbeat):
            peer.beat, peer.beat_s = event, now_s
        self.roster.remember(event)
        if again:
            return []
        self._early.note(event, self.roster.pids(wire_name(event)), now_s)
        return self.announce(event, now_s)

    def _hello(self, peer: Peer, hello: Hello, now_s: float) -> list[Action]:
        program = hello.program or self.roster.program_of(hello.role, hello.camera)
        peer.hello = dataclasses.replace(hello, program=program)
        peer.beat_s = now_s
        if hello.role == "capture":  # a new one may have begun in another mode, and an old one tells its own again
            self.roster.latest.pop(("mode", hello.camera or self.roster.cameras[0]), None)
        try:
            peer.topics |= topics_of(hello.subscribe) if hello.subscribe else frozenset()
        except ValueError as problem:
            return [Send((peer.number,), error(str(problem), "bad_arguments"))]
        actions: list[Action] = [Send((peer.number,), Reply(status="welcome", text="welcome"))]
        missed = self._early.missed(peer.topics, hello.pid, now_s)
        standing = (event for event in self.roster.latest.values() if self.roster.concerns(hello, event))
        missed += [event for event in standing if event not in missed]
        actions += [Send((peer.number,), event) for event in missed]
        return actions + (request_previews(self.roster) if hello.role == "streamer" else [])


def _answer(errand: PendingCommand) -> Send:
    return Send((errand.asker,), errand.answer(), errand.ident)
