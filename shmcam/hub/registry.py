"""The registry of connected peers with their last messages, and the state of cameras and programs. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shmcam.control.messages import (
    JSON,
    RETAINED,
    Event,
    Heartbeat,
    Hello,
    ModeRequested,
    MotionBegan,
    Preview,
    ProcessDown,
    ProcessUp,
    RecordingStarted,
    wire_name,
)


@dataclass
class Peer:
    """One connection."""

    number: int
    """Never used twice while the hub lives."""
    trusted: bool = True
    """False: a TCP connection; only the commands of `router.TCP_COMMANDS`, no events."""
    hello: Hello | None = None
    """The hello of a process of ours; None for other peers, or before it came."""
    since_ns: int = 0
    """It gets the events announced later than this monotonic time: its start, or that of its connection."""
    topics: frozenset[str] = frozenset()
    heartbeat: Heartbeat | None = None
    """The last heartbeat."""
    last_seen_s: float = 0.0
    """Time of the last heartbeat or of the hello."""
    standing: dict[tuple[str, str], Event] = field(default_factory=dict)
    """Its own last event of each kind (messages.RETAINED) and camera."""
    previews: dict[str, Preview] = field(default_factory=dict)
    """The preview requests of this peer, by camera."""
    preview_sent_s: dict[str, float] = field(default_factory=dict)
    """Time of the last preview_frame, by camera."""

    @property
    def program(self) -> str:
        """Supervisord's name of the process, or "" if it is no process of ours."""
        return self.hello.program if self.hello else ""


class Registry:
    """The hub's memory of peers, events and programs; it ends with the hub."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self._configured = cameras
        self.peers: dict[int, Peer] = {}
        self.latest: dict[tuple[str, str], Event] = {}
        """Last event of each kind (messages.RETAINED) and camera."""
        self.programs: dict[str, ProcessUp | ProcessDown] = {}
        """Last event of the watchdog about each program."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """The first configured camera, further ones with a program in supervisord, and those of connected processes."""
        states, first = self.program_states, self._configured[:1]
        supervised = [c for c in self._configured[1:] if not states or any(name.endswith(f"-{c}") for name in states)]
        connected = (peer.hello.camera for peer in self.peers.values() if peer.hello and peer.hello.camera)
        return tuple(dict.fromkeys([*first, *supervised, *connected]))

    @property
    def program_states(self) -> dict[str, str]:
        """Supervisord's state of each program, by the watchdog's last heartbeat; empty: not known."""
        programs = self._watchdog_figure("programs")
        return {str(name): str(state) for name, state in programs.items()} if isinstance(programs, dict) else {}

    @property
    def service_bytes(self) -> int:
        """What all programs and supervisord take, pages that they share counted once, no rings; 0: not known."""
        taken = self._watchdog_figure("service_bytes")
        return taken if isinstance(taken, int) else 0

    def _watchdog_figure(self, name: str) -> JSON:
        beats = (p.heartbeat for p in self.peers.values() if p.hello and p.hello.role == "watchdog" and p.heartbeat)
        return next((beat.figures.get(name) for beat in beats), None)

    def remember(self, event: Event, peer: Peer | None = None) -> None:
        """Keeps an event of a peer that describes a state until the next of its kind."""
        name = wire_name(event)
        if name in RETAINED:
            key = RETAINED[name], str(getattr(event, "camera", ""))
            self.latest[key] = event
            if peer is not None:
                peer.standing[key] = event
        if isinstance(event, ProcessUp | ProcessDown):
            self.programs[event.program] = event

    def remove(self, number: int) -> Peer | None:
        """Removes a peer. What it said last gives way to what another process still says of the same camera.

        So a second capture that found the camera taken, and ended, leaves no lost camera behind. Nobody says any more
        of a recorder that was killed that it has stopped.
        """
        peer = self.peers.pop(number, None)
        for key, event in peer.standing.items() if peer else ():
            others = [other.standing[key] for other in self.processes() if key in other.standing]
            if self.latest.get(key) is event and others:
                self.latest[key] = others[-1]
            elif self.latest.get(key) is event and isinstance(event, RecordingStarted):
                del self.latest[key]
        return peer

    def find_process(self, role: str, camera: str) -> Peer | None:
        """Returns the newest process of this role and camera."""
        found = [p for p in self.processes() if p.hello and (p.hello.role, p.hello.camera) == (role, camera)]
        return found[-1] if found else None

    def processes(self) -> Iterator[Peer]:
        """Yields the peers that said hello, oldest first."""
        return (peer for peer in self.peers.values() if peer.hello is not None)

    def is_recipient(self, hello: Hello, event: Event) -> bool:
        """Returns whether a process acts on a standing event: a capture on its mode, a recorder on motion."""
        events: dict[str, type[ModeRequested | MotionBegan]] = {"capture": ModeRequested, "recorder": MotionBegan}
        wanted = events.get(hello.role)
        return wanted is not None and isinstance(event, wanted) and event.camera == (hello.camera or self.cameras[0])

    def owners(self, command: str, camera: str | None) -> list[Peer]:
        """Returns the processes that answer a command.

        `camera` None: one process; a name: the process of that camera; "": one process of each camera. Of two that
        qualify the newer one counts: the older is a dead connection that the hub has not noticed yet.
        """
        peers = [peer for peer in self.processes() if peer.hello and command in peer.hello.commands]
        if camera is None:
            return peers[-1:]
        by_camera = {peer.hello.camera or self.cameras[0]: peer for peer in peers if peer.hello}
        return list(by_camera.values()) if not camera else [by_camera[c] for c in (camera,) if c in by_camera]

    def is_connected(self, role: str, camera: str) -> bool:
        """Returns whether a process of this role (and camera, if not "") is connected."""
        return any(p.hello and p.hello.role == role and camera in {"", p.hello.camera} for p in self.processes())

    def subscribers(self, topic: str) -> list[Peer]:
        """Returns the peers that subscribed to a topic."""
        return [peer for peer in self.peers.values() if topic in peer.topics]

    def program_of(self, role: str, camera: str) -> str:
        """Returns a process's name: recorder, or recorder-cam1 for a further camera."""
        return role if camera in {"", self.cameras[0]} else f"{role}-{camera}"

    def supervisor_name_of(self, role: str, camera: str) -> str:
        """Returns the name for supervisorctl: recorder, or cam1:recorder-cam1 (each further camera is a group)."""
        program = self.program_of(role, camera)
        return program if program == role else f"{camera}:{program}"
