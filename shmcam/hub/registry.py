"""Who is connected to the hub, what each said last, and what is known of cameras and programs. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shmcam.control.messages import (
    RETAINED,
    Event,
    Heartbeat,
    Hello,
    ModeRequested,
    MotionBegan,
    Preview,
    ProcessDown,
    ProcessUp,
    wire_name,
)


@dataclass
class Peer:
    """One connection."""

    number: int
    """Never used twice while the hub lives."""
    trusted: bool = True
    """False: came over TCP; only the commands of `hub.TCP_COMMANDS`, no events."""
    hello: Hello | None = None
    """Set once the peer said it is one of our processes."""
    topics: frozenset[str] = frozenset()
    beat: Heartbeat | None = None
    beat_s: float = 0.0
    """When the last heartbeat (or the hello) came."""
    previews: dict[str, Preview] = field(default_factory=dict)
    """Cameras it wants preview_frame messages of."""
    preview_sent_s: dict[str, float] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """Supervisord's name of it, or "" if it is no process of ours."""
        return self.hello.program if self.hello else ""


class Registry:
    """Everything the hub remembers; nothing here outlives it."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self._configured = cameras
        self.peers: dict[int, Peer] = {}
        self.latest: dict[tuple[str, str], Event] = {}
        """Last event of each kind of messages.RETAINED and camera."""
        self.programs: dict[str, ProcessUp | ProcessDown] = {}
        """Last word of the watchdog about each program."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """As configured when the hub began, less those supervisord has no program of, and those of any process here."""
        states, first = self.states, self._configured[:1]
        there = [c for c in self._configured[1:] if not states or any(name.endswith(f"-{c}") for name in states)]
        found = (peer.hello.camera for peer in self.peers.values() if peer.hello and peer.hello.camera)
        return tuple(dict.fromkeys([*first, *there, *found]))

    @property
    def states(self) -> dict[str, str]:
        """Supervisord's state of each program, as the watchdog last told it in its heartbeat; empty: not known."""
        beats = (p.beat for p in self.peers.values() if p.hello and p.hello.role == "watchdog" and p.beat)
        told = next((beat.figures.get("programs") for beat in beats), None)
        return {str(name): str(state) for name, state in told.items()} if isinstance(told, dict) else {}

    def remember(self, event: Event) -> None:
        """Keep what tells how things are until further notice."""
        name = wire_name(event)
        if name in RETAINED:
            self.latest[RETAINED[name], str(getattr(event, "camera", ""))] = event
        if isinstance(event, ProcessUp | ProcessDown):
            self.programs[event.program] = event

    def processes(self) -> Iterator[Peer]:
        """Yield the connections that said hello, oldest first."""
        return (peer for peer in self.peers.values() if peer.hello is not None)

    def concerns(self, hello: Hello, event: Event) -> bool:
        """Tell whether a process that has just come has to know: the mode for a camera, motion for a recorder."""
        kinds: dict[str, type[ModeRequested | MotionBegan]] = {"capture": ModeRequested, "recorder": MotionBegan}
        kind = kinds.get(hello.role)
        return kind is not None and isinstance(event, kind) and event.camera == (hello.camera or self.cameras[0])

    def pids(self, topic: str) -> frozenset[int]:
        """Return which processes asked for a topic, as far as they told their pid."""
        return frozenset(peer.hello.pid for peer in self.subscribers(topic) if peer.hello and peer.hello.pid)

    def owners(self, command: str, camera: str | None) -> list[Peer]:
        """Return who answers a command: one process, or (camera given) that of the camera, or ("") one of each camera.

        Where two say they do, the newer one counts: the older is a connection about to be found dead.
        """
        found = [peer for peer in self.processes() if peer.hello and command in peer.hello.commands]
        if camera is None:
            return found[-1:]
        by_camera = {peer.hello.camera or self.cameras[0]: peer for peer in found if peer.hello}
        return list(by_camera.values()) if not camera else [by_camera[c] for c in (camera,) if c in by_camera]

    def is_there(self, role: str, camera: str) -> bool:
        """Tell whether a process of this role (and camera, if not "") is connected."""
        return any(p.hello and p.hello.role == role and camera in {"", p.hello.camera} for p in self.processes())

    def subscribers(self, topic: str) -> list[Peer]:
        """Return who asked for a topic."""
        return [peer for peer in self.peers.values() if topic in peer.topics]

    def program_of(self, role: str, camera: str) -> str:
        """Return a process's name: recorder, or recorder-cam1 for a further camera."""
        return role if camera in {"", self.cameras[0]} else f"{role}-{camera}"

    def supervised(self, role: str, camera: str) -> str:
        """Return the name to give supervisorctl: recorder, or cam1:recorder-cam1 (each further camera is a group)."""
        program = self.program_of(role, camera)
        return program if program == role else f"{camera}:{program}"
