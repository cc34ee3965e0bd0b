"""Receives commands, submits them to the job queues, makes auto-saves, checks the disks and sends heartbeats.

Nothing here waits for a disk: the loop answers and sends heartbeats while a worker writes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from exporter import replies
from exporter.commands import archive, library, timelapse
from exporter.commands.pictures import PictureCommands
from exporter.continuous.follower import CameraFollower
from exporter.disk_monitor import DiskMonitor
from exporter.job_queue import JobQueue
from exporter.ring_frames import span_of
from exporter.session_log_collector import SessionLogs
from exporter.settings import ExportSettings
from shmcam.config.settings import Settings, apply_change
from shmcam.control.client import ControlClient, Request
from shmcam.control.messages import (
    Archive,
    Archives,
    Clips,
    Delete,
    Library,
    PastStack,
    Pictures,
    Protect,
    RecordingStarted,
    RecordingStopped,
    Reply,
    Save,
    SettingChanged,
    Snapshot,
    Timelapse,
    Unprotect,
    error,
)
from shmcam.library import Catalogue, LibraryError
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Interval

log = logging.getLogger(__name__)

DISK_CHECK_S = 15.0
"""Seconds between two checks of the disks, and of library folders whose disk was away."""
MAX_WAIT_S = 0.5
"""The longest wait for a message: a heartbeat follows it."""
COMMANDS = (
    "save",
    "snapshot",
    "past_stack",
    "timelapse",
    "clips",
    "pictures",
    "library",
    "protect",
    "unprotect",
    "delete",
    "archive",
    "archives",
)


@dataclass
class Exporter:
    """The objects that the loop works with; `__main__` opens and closes them."""

    settings: Settings
    control: ControlClient
    pictures: PictureCommands
    catalogue: Catalogue
    ring_jobs: JobQueue
    """The jobs that read a ring; they must not wait behind long work."""
    file_jobs: JobQueue
    """Long work on files: archive, check, rebuild."""
    disk_monitor: DiskMonitor
    """The disks of pictures and recordings; a file job checks them."""
    followers: dict[str, CameraFollower] = field(default_factory=dict)
    """The continuous work, by camera."""
    delayed: list[tuple[int, Callable[[], Reply], Request]] = field(default_factory=list)
    """The pastStacks whose span has not ended yet, with the instant of its end (sensor clock, ns)."""
    auto_save_timers: dict[str, Interval] = field(default_factory=dict)
    """The timer of auto-saves, by camera."""
    catalogues: tuple[Catalogue, ...] = ()
    """The library as each thread uses it: what is wrong with one is the exporter's trouble."""
    disk_timer: Interval = field(default_factory=Interval)
    """The timer of `check_disks`."""

    session_logs: SessionLogs | None = None
    """The log of each running session."""

    @property
    def own(self) -> ExportSettings:
        """The present [export] table."""
        return self.settings.table(ExportSettings)


def run(exporter: Exporter, stop: Stop) -> None:
    """Runs until stop is requested."""
    exporter.file_jobs.submit(lambda: library.reconcile(exporter.catalogue))
    exporter.file_jobs.submit(lambda: exporter.disk_monitor.check(exporter.settings))

    changes: deque[Request] = deque()

    def handle_messages() -> None:
        """Handles what came; while the loop waits it is the connection's thread that does, which sends all answers."""
        for request in exporter.control.receive():
            if isinstance(request.message, Protect | Unprotect | Delete):
                changes.append(request)  # it may wait for who holds the library, and answers of others may not
            else:
                handle_message(request, exporter, now_ns())

    exporter.control.delegate(handle_messages)
    while not stop.requested:
        exporter.control.wait(find_wait_s(exporter, now_ns()))
        handle_messages()
        while changes:
            handle_message(changes.popleft(), exporter, now_ns())
        submit_due_past_stacks(exporter, now_ns())
        auto_save(exporter, now_ns())
        check_disks(exporter, now_ns())
        exporter.pictures.release_if_retired()
        send_heartbeat(exporter)
    log.info(
        "stopped saved=%d failed=%d refused=%d",
        exporter.ring_jobs.done,
        exporter.ring_jobs.failed,
        exporter.ring_jobs.refused,
    )


def find_wait_s(exporter: Exporter, now: int) -> float:
    """Returns the time for which nothing is due, at most MAX_WAIT_S."""
    due_ns = [end_ns for end_ns, _, _ in exporter.delayed]
    due_ns += [timer.next_ns for timer in exporter.auto_save_timers.values() if timer.is_on]
    return max(0.0, min([MAX_WAIT_S, *((each - now) / 1e9 for each in due_ns)]))


def handle_message(request: Request, exporter: Exporter, now: int) -> None:
    """Handles one command or event."""
    pictures, message, announce, utc = exporter.pictures, request.message, exporter.control.announce, to_utc_ns(now)
    match message:
        case Save():
            exporter.ring_jobs.submit(lambda: pictures.save(message, now), request)
        case Snapshot():
            exporter.ring_jobs.submit(lambda: pictures.snapshot(message, now), request)
        case PastStack():
            _delay_past_stack(request, message, exporter, now)
        case Timelapse(action="build"):
            exporter.file_jobs.submit(
                lambda: timelapse.build_timelapse(message, exporter.settings, exporter.catalogue, announce, utc),
                request,
            )
        case Timelapse():
            request.reply(timelapse.answer_timelapse(message, exporter.followers))
        case Archive():
            exporter.file_jobs.submit(
                lambda: archive.build_archive(message, exporter.settings, exporter.catalogue, announce, utc), request
            )
        case Archives() if message.action != "list" or message.name:
            exporter.file_jobs.submit(
                lambda: archive.verify_or_delete(message, exporter.settings, exporter.catalogue, announce), request
            )
        case Library(action="check" | "rebuild" as action):
            exporter.file_jobs.submit(lambda: library.check_or_rebuild(exporter.catalogue, action), request)
        case Archives() | Clips() | Pictures() | Library() | Protect() | Unprotect() | Delete():
            request.reply(_answer_library_command(message, exporter, now))
        case RecordingStarted() | RecordingStopped() if exporter.session_logs is not None:
            exporter.session_logs.note(message)
        case SettingChanged():
            exporter.settings = apply_change(exporter.settings, message.key, message.new, message.camera)


def submit_due_past_stacks(exporter: Exporter, now: int) -> None:
    """Submits the pastStacks whose span has ended."""
    due = [job for job in exporter.delayed if job[0] <= now]
    exporter.delayed = [job for job in exporter.delayed if job[0] > now]
    for _, work, request in due:
        exporter.ring_jobs.submit(work, request)


def auto_save(exporter: Exporter, now: int) -> None:
    """Submits a save for each camera whose auto-save interval has passed."""
    for camera in exporter.settings.cameras:
        own = exporter.settings.table(ExportSettings, camera)
        if exporter.auto_save_timers.setdefault(camera, Interval()).take_due(now, own.auto_save_interval_s):
            command = Save(camera=camera, formats=own.auto_save_formats)
            exporter.ring_jobs.submit(lambda command=command: exporter.pictures.save(command, now, "auto"))  # type: ignore[misc]


def check_disks(exporter: Exporter, now: int) -> None:
    """Submits a check of the disks, and one of the library: rows may be missing."""
    if not exporter.disk_timer.take_due(now, DISK_CHECK_S) or exporter.file_jobs.waiting:
        return
    exporter.file_jobs.submit(lambda: exporter.disk_monitor.check(exporter.settings))
    for catalogue in exporter.catalogues:
        if catalogue.trouble:  # it ends here, also while nothing is saved
            exporter.file_jobs.submit(lambda catalogue=catalogue: library.make_room_again(catalogue, exporter.settings))  # type: ignore[misc]
    exporter.file_jobs.submit(lambda: library.reconcile_if_needed(exporter.catalogue))


def send_heartbeat(exporter: Exporter) -> None:
    """Sends the heartbeat with trouble and counts."""
    jobs = exporter.ring_jobs
    followers = exporter.followers
    monitor = exporter.disk_monitor
    retention = next((catalogue.trouble for catalogue in exporter.catalogues if catalogue.trouble), "")
    troubles = (
        *(follower.trouble for follower in followers.values()),
        *(follower.long_exposure.trouble for follower in followers.values() if follower.long_exposure is not None),
        *(monitor.folder_trouble, monitor.library_trouble, retention),
    )
    trouble = next(filter(None, troubles), "")
    exporter.control.beat(
        "saving" if jobs.busy_s else "running",
        trouble,
        saved=jobs.done,
        failed=jobs.failed + exporter.file_jobs.failed,
        refused=jobs.refused + exporter.file_jobs.refused,
        waiting=jobs.waiting + len(exporter.delayed),
        busy_s=round(jobs.busy_s, 1),
        retention=retention,
        films={name: follower.frames for name, follower in followers.items() if follower.frames},
        startrails={name: state for name, follower in followers.items() if (state := follower.startrails_state)},
    )


def _delay_past_stack(request: Request, command: PastStack, exporter: Exporter, now: int) -> None:
    """Delays a pastStack to the end of its span here, so that it does not occupy the worker."""
    own = exporter.settings.table(ExportSettings, command.camera or exporter.settings.cameras[0])
    _, end_ns = span_of(command, own, now)
    if len(exporter.delayed) >= exporter.own.queue:
        request.reply(error(f"busy: {len(exporter.delayed)} commands wait for the end of their span", "busy"))
        return
    exporter.delayed.append((end_ns, lambda: exporter.pictures.past_stack(command, now), request))


def _answer_library_command(
    command: Archives | Clips | Pictures | Library | Protect | Unprotect | Delete, exporter: Exporter, now: int
) -> Reply:
    try:
        if isinstance(command, Archives):
            return archive.list_archives(exporter.settings, exporter.catalogue)
        if isinstance(command, Clips | Pictures | Library) and command.camera:
            exporter.catalogue.check_cameras([command.camera], exporter.settings.cameras)
        return library.answer_command(command, exporter.catalogue, to_utc_ns(now))
    except (ValueError, LibraryError) as problem:
        return replies.reply_refused(problem)
    except OSError as problem:
        log.warning("library failed reason=%s", problem)
        return error(f"library: {problem}", "failed")
