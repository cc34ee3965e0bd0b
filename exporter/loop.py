"""What the exporter does all day: take commands, hand them to its workers, save by the clock, keep telling how it does.

Nothing here waits for a disk: the control loop answers and beats while a worker writes.

What the exporter's loop works with, and the commands it answers.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from exporter import replies
from exporter.commands import archive, library, timelapse
from exporter.commands.pictures import PictureCommands
from exporter.continuous.follower import CameraFollower
from exporter.disk_monitor import DiskMonitor
from exporter.frames import span_of
from exporter.job_queue import JobQueue
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
    Reply,
    Save,
    SettingChanged,
    Snapshot,
    Timelapse,
    Unprotect,
    error,
)
from shmcam.library import Catalogue
from shmcam.runtime.clock import now_ns, to_utc_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Interval

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
    """What the loop works with; `__main__` opens and closes them."""

    settings: Settings
    control: ControlClient
    pictures: PictureCommands
    catalogue: Catalogue
    saver: JobQueue
    """Carries out whatever reads the ring: it must not wait behind anything long."""
    errands: JobQueue
    """Long work on files: archive, check, rebuild."""
    disks: DiskMonitor
    """Those that pictures and recordings go to; looked at as an errand."""
    followers: dict[str, CameraFollower] = field(default_factory=dict)
    """What goes on all day, per camera."""
    later: list[tuple[int, Callable[[], Reply], Request]] = field(default_factory=list)
    """pastStacks whose span has not ended yet, with the instant when it will have."""
    timers: dict[str, Interval] = field(default_factory=dict)
    """Auto-save, per camera."""
    places: Interval = field(default_factory=Interval)
    """Looks at the disks, and for folders of the library that come back."""

    @property
    def own(self) -> ExportSettings:
        """[export] of this moment."""
        return self.settings.table(ExportSettings)


log = logging.getLogger(__name__)

PLACES_LOOK_S = 15.0
"""Seconds between looks at the disks, and whether a folder of the library that was empty has its files back."""
TURN_S = 0.2
"""Longest wait between two looks at the clock."""


def run(parts: Exporter, stop: Stop) -> None:
    """Until stop is requested."""
    parts.errands.submit(lambda: library.reconcile(parts.catalogue))
    parts.errands.submit(lambda: parts.disks.look(parts.settings))
    while not stop.requested:
        parts.control.wait(TURN_S)
        for request in parts.control.receive():
            take(request, parts, now_ns())
        ripe(parts, now_ns())
        auto_save(parts, now_ns())
        look_at_places(parts, now_ns())
        parts.pictures.let_go_if_retired()
        beat(parts)
    log.info("stopped saved=%d failed=%d refused=%d", parts.saver.done, parts.saver.failed, parts.saver.refused)


def take(request: Request, parts: Exporter, now: int) -> None:
    """One command or event."""
    pictures, message, announce, utc = parts.pictures, request.message, parts.control.announce, to_utc_ns(now)
    match message:
        case Save():
            parts.saver.submit(lambda: pictures.save(message, now), request)
        case Snapshot():
            parts.saver.submit(lambda: pictures.snapshot(message, now), request)
        case PastStack():
            _later(request, message, parts, now)
        case Timelapse(action="build"):
            parts.errands.submit(
                lambda: timelapse.build(message, parts.settings, parts.catalogue, announce, utc), request
            )
        case Timelapse():
            request.reply(timelapse.steer(message, parts.followers))
        case Archive():
            parts.errands.submit(
                lambda: archive.build_archive(message, parts.settings, parts.catalogue, announce, utc), request
            )
        case Archives():
            parts.errands.submit(
                lambda: archive.answer_archives(message, parts.settings, parts.catalogue, announce), request
            )
        case Library(action="check" | "rebuild" as action):
            parts.errands.submit(lambda: library.check_or_rebuild(parts.catalogue, action), request)
        case Clips() | Pictures() | Library() | Protect() | Unprotect() | Delete():
            request.reply(_from_shelf(message, parts, now))
        case SettingChanged():
            parts.settings = apply_change(parts.settings, message.key, message.new, message.camera)


def ripe(parts: Exporter, now: int) -> None:
    """Hand over the pastStacks whose span has ended."""
    due = [one for one in parts.later if one[0] <= now]
    parts.later = [one for one in parts.later if one[0] > now]
    for _, work, request in due:
        parts.saver.submit(work, request)


def auto_save(parts: Exporter, now: int) -> None:
    """Save a picture of each camera whose interval has passed."""
    for camera in parts.settings.cameras:
        interval_s = parts.settings.table(ExportSettings, camera).auto_save_interval_s
        if parts.timers.setdefault(camera, Interval()).take_due(now, interval_s):
            wish = Save(camera=camera)
            parts.saver.submit(lambda wish=wish: parts.pictures.save(wish, now, "auto"))  # type: ignore[misc]


def look_at_places(parts: Exporter, now: int) -> None:
    """Notice a disk that others fill; have the library reconciled when it can be written, or a disk is there, again."""
    if not parts.places.take_due(now, PLACES_LOOK_S) or parts.errands.waiting:
        return
    parts.errands.submit(lambda: parts.disks.look(parts.settings))
    if parts.catalogue.missed.is_set():
        parts.errands.submit(lambda: library.reconcile_reopened(parts.catalogue))
    elif parts.catalogue.away:
        parts.errands.submit(lambda: library.reconcile_returned(parts.catalogue))


def beat(parts: Exporter) -> None:
    """Tell how we do."""
    saver = parts.saver
    trouble = next((one.trouble for one in parts.followers.values() if one.trouble), parts.disks.closed)
    parts.control.beat(
        "saving" if saver.busy_s else "running",
        trouble,
        saved=saver.done,
        failed=saver.failed + parts.errands.failed,
        refused=saver.refused + parts.errands.refused,
        waiting=saver.waiting + len(parts.later),
        busy_s=round(saver.busy_s, 1),
        films={name: one.frames for name, one in parts.followers.items() if one.frames},
    )


def _later(request: Request, command: PastStack, parts: Exporter, now: int) -> None:
    """A pastStack whose span lies partly ahead waits here, not in the worker."""
    own = parts.settings.table(ExportSettings, command.camera or parts.settings.cameras[0])
    _, end_ns = span_of(command, own, now)
    if len(parts.later) >= parts.own.queue:
        request.reply(error(f"busy: {len(parts.later)} commands wait for the end of their span", "busy"))
        return
    parts.later.append((end_ns, lambda: parts.pictures.past_stack(command, now), request))


def _from_shelf(command: Clips | Pictures | Library | Protect | Unprotect | Delete, parts: Exporter, now: int) -> Reply:
    try:
        return library.answer_command(command, parts.catalogue, to_utc_ns(now))
    except ValueError as problem:
        return replies.reply_refused(problem)
    except (OSError, sqlite3.Error) as problem:
        log.warning("library failed reason=%s", problem)
        return error(f"library: {problem}", "failed")
