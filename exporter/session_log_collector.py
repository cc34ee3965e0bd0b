"""Keeps `session.log` in the folder of each running session: all that processes and C libraries log meanwhile.

The recorder's events say which sessions run; a thread of its own appends what is new in the log folder, so that a slow
disk holds nobody up.
"""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass, field
from pathlib import Path

from shmcam.control.messages import ClipClosed, RecordingStarted, RecordingStopped
from shmcam.library.file_names import is_session_name
from shmcam.library.files import SESSION_LOG, SESSION_LOG_HEAD
from shmcam.runtime.atomic_files import open_to_append
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.log_tail import LogFollower, merge_tails
from shmcam.runtime.stop import Stop

log = logging.getLogger(__name__)

PERIOD_S = 0.5
"""Seconds between two looks into the logs."""
AFTER_S = 2.0
"""A session's log goes on so long after its last recording: the next file of it, and the words about the end."""
LINES_BEFORE = 20
"""Lines from before the session that its log begins with."""
BYTES_MAX = 20_000_000
"""The size of one session's log; then it ends with a line that says so."""


@dataclass
class RunningSession:
    """One session whose log is being written."""

    follower: LogFollower
    cameras: set[str] = field(default_factory=set)
    ended_s: float = 0.0
    """When its last recording ended, monotonic; 0: it runs."""
    bytes: int = 0
    lost: int = 0
    """The lines that its disk has refused since the last one it took."""


class SessionLogs:
    """The logs of all running sessions."""

    def __init__(self, log_folder: Path, stop: Stop) -> None:
        self._log_folder, self._stop = log_folder, stop
        self._events: queue.SimpleQueue[RecordingStarted | RecordingStopped] = queue.SimpleQueue()
        self._sessions: dict[Path, RunningSession] = {}
        self._folders: dict[str, Path] = {}
        self.thread = Worker("session-log", self._run, stop)

    def note(self, event: RecordingStarted | RecordingStopped) -> None:
        """Takes an event of the recorder; from the exporter's loop."""
        folder = Path(event.path).parent
        if isinstance(event, ClipClosed) or not is_session_name(folder.name):
            return
        if isinstance(event, RecordingStarted):
            self._folders[event.camera] = folder
        elif self._folders.get(event.camera) == folder:
            del self._folders[event.camera]
        self._events.put(event)

    def find_folder(self, camera: str) -> Path | None:
        """Returns the folder of the session that a camera, or else any camera, records now; from any thread."""
        folders = dict(self._folders)
        return folders.get(camera) or next(iter(folders.values()), None)

    # ---- the thread

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self._take_events()
            self._write_all()
        self._write_all()

    def _take_events(self) -> None:
        while not self._events.empty():
            event = self._events.get()
            folder = Path(event.path).parent
            if isinstance(event, RecordingStarted):
                for before in self._sessions.keys() - {folder}:  # its recorder may have been killed there
                    self._end(before, event.camera)
                session = self._sessions.get(folder) or self._begin(folder)
                session.cameras.add(event.camera)
                session.ended_s = 0.0
            else:
                self._end(folder, event.camera)

    def _end(self, folder: Path, camera: str) -> None:
        """Notes that a camera records into a folder no longer."""
        session = self._sessions.get(folder)
        if session is not None and camera in session.cameras:
            session.cameras.remove(camera)
            session.ended_s = 0.0 if session.cameras else time.monotonic()

    def _begin(self, folder: Path) -> RunningSession:
        session = self._sessions[folder] = RunningSession(LogFollower(self._log_folder, ""))
        lines = merge_tails(self._log_folder, "", LINES_BEFORE) or []
        self._append(folder, session, lines)
        return session

    def _write_all(self) -> None:
        for folder, session in list(self._sessions.items()):
            self._append(folder, session, list(session.follower.read_new()))
            if session.ended_s and time.monotonic() - session.ended_s > AFTER_S:
                del self._sessions[folder]

    def _append(self, folder: Path, session: RunningSession, lines: list[str]) -> None:
        if not lines or session.bytes > BYTES_MAX:
            return
        if session.lost:
            lines = [f"session.log: {session.lost} lines are missing here, they could not be written", *lines]
        data = "".join(f"{line}\n" for line in lines).encode()
        if session.bytes + len(data) > BYTES_MAX:
            data = f"session.log ends here: {BYTES_MAX} bytes; the rest is in {self._log_folder}\n".encode()
            session.bytes = BYTES_MAX
        try:
            with open_to_append(folder / SESSION_LOG) as file:
                head = b"" if file.tell() else f"{SESSION_LOG_HEAD}\n".encode()  # it was removed meanwhile, too
                file.write(head + data)
        except OSError as problem:
            if not session.lost:
                log.warning("session.log cannot be written folder=%s reason=%s", folder, problem)
            session.lost += len(lines) - bool(session.lost)
            return
        session.bytes, session.lost = session.bytes + len(data), 0
