"""The recorder process: encodes the ring's frames to H.264, for files and for live video."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from recorder.clips.clip import ClipFormat, ClipLimits
from recorder.clips.finish import Finisher
from recorder.clips.recovery import adopt_leftovers, read_closed_until
from recorder.clips.storage import Storage
from recorder.clips.writer import ClipWriter
from recorder.commands import RecordCommands
from recorder.encoding.session import EncoderSession
from recorder.frame_pipeline import FramePipeline
from recorder.live_packets import LivePackets
from recorder.loop import RecorderLoop
from recorder.resume import EventMarks, Resume, ResumeFile
from recorder.settings import RecorderSettings
from recorder.status import Heartbeats
from recorder.triggers import Triggers
from recorder.upscaled_preroll import SmallPreroll
from shm_ring import LiveRing, RingBusy, RingCursor
from shm_ring.ownership import WriterLock, WriterRecord, lock_path_of
from shmcam.config.settings import apply_change
from shmcam.control.client import ControlClient
from shmcam.control.messages import Deleted
from shmcam.imaging.text_overlay import Overlay, overlay_of
from shmcam.library import Catalogue
from shmcam.runtime.startup import Process, startup

log = logging.getLogger("recorder")

CLOSE_S = 3.5
"""The longest time for the last clip, of the 5 s that supervisord allows (supervisord.conf, stopwaitsecs)."""

COMMANDS = ("record", "watch")
EVENTS = ("motion_began", "motion_ended", "night_began", "night_ended")


def main() -> int:
    """Records until stop is requested; an error propagates, is logged, and exits 1."""
    with startup("recorder") as process:
        run(process)
    return 0


def run(process: Process) -> None:
    """Wires one camera's recorder; construction order is reading order, the end undoes it in reverse."""
    settings, camera, stop = process.settings, process.camera, process.stop
    own = settings.table(RecorderSettings, camera)
    paths = settings.paths
    _set_niceness(own.nice)
    try:
        lock = WriterLock.take(lock_path_of(paths.run, camera, "recorder"), f"(none: recorder of {camera})")
    except RingBusy as problem:
        log.error("%s", problem)
        raise SystemExit(1) from None
    lock.remember(WriterRecord(os.getpid()))
    triggers = Triggers(ClipLimits.of(own))
    with (
        Catalogue.of(settings) as catalogue,
        ControlClient(
            "recorder", camera, socket_path=settings.socket_path, stop=stop, commands=COMMANDS, subscribe=EVENTS
        ) as control,
        LiveRing(settings.ring_name(camera), stop, waits_for_repair=True) as ring,
        LiveRing(settings.ring_name(camera, "lores"), stop) as small_ring,
    ):
        catalogue.on_deleted = lambda **fields: control.announce(Deleted(**fields))
        storage = Storage(settings, own, catalogue)
        writer = ClipWriter(camera, ClipFormat.of(own), storage, stop)
        marks = EventMarks(paths.run / f"{camera}.marks.json")
        finisher = Finisher(
            *(settings, own, camera),
            marks=marks,
            catalogue=catalogue,
            closed=writer.closed_clips,
            notices=writer.notices,
            stop=stop,
            make_room_again=storage.make_room_again,
        )
        live = LivePackets(settings.ring_name(camera, "h264"), paths.run, camera, own)
        cursor, encoder = RingCursor(ring), EncoderSession(own, make_overlay(own))

        has_foreign_times = settings.has_foreign_times(camera)

        def to_frame_time(clock_ns: int) -> int:
            return cursor.next_ns if has_foreign_times else clock_ns

        commands = RecordCommands(
            *(camera, own, triggers, writer, live),
            to_frame_time=to_frame_time,
            adopt_leftovers=finisher.adopt_leftovers,
            save_marks=lambda: marks.save(triggers.events),
        )
        heartbeats = Heartbeats(
            control=control, cursor=cursor, encoder=encoder, live=live, triggers=triggers, writer=writer
        )
        loop = RecorderLoop(control, commands, writer, heartbeats, stop)
        pipeline = FramePipeline(
            cursor=cursor,
            encoder=encoder,
            live=live,
            triggers=triggers,
            writer=writer,
            heartbeats=heartbeats,
            commands=commands,
            serve=loop.serve,
            preroll=SmallPreroll(small_ring),
        )
        resume = Resume(ResumeFile(paths.run / f"{camera}.recording.json"), marks, triggers, to_frame_time)
        adopted = [marks.apply_to(clip) for clip in adopt_leftovers(paths.recordings, camera, catalogue.owner)]
        writer.resumed_after = resume.begin(own, adopted, read_closed_until(paths.recordings, camera))
        writer.start()
        finisher.start()
        for clip in adopted:
            writer.closed_clips.put(clip)
        log.info("ready mode=%s auto_start=%s recordings=%s", own.mode, own.auto_start, paths.recordings)
        with close_at_end(writer, CLOSE_S):
            for _ in loop.run(pipeline):
                resume.save(commands.last)
                while loop.changed:
                    event = loop.changed.popleft()
                    settings = apply_change(settings, event.key, event.new, event.camera)
                    before, own = own, settings.table(RecorderSettings, camera)
                    storage.settings = finisher.settings = settings  # the library's limits
                    commands.settings = finisher.own = encoder.settings = own
                    writer.clip_format, triggers.limits = ClipFormat.of(own), ClipLimits.of(own)
                    if own.overlay != before.overlay:
                        encoder.set_overlay(make_overlay(own))
        loop.announce()
        resume.interrupt(commands.last)
        live.close()
        finisher.close(1.0)
        log.info("stopped encoded=%d lost=%d unwritten=%d", heartbeats.encoded, cursor.lost, writer.unwritten)
    lock.close()


@contextmanager
def close_at_end(writer: ClipWriter, timeout_s: float) -> Iterator[None]:
    """Ends the clip when the process ends, whatever the reason."""
    try:
        yield
    finally:
        if not writer.close("the recorder stops", timeout_s):
            log.warning("the disk did not take the last frames within %.0f s", timeout_s)


def make_overlay(own: RecorderSettings) -> Overlay | None:
    """Returns the overlay of [recorder.overlay]; None, which saves a copy of each frame, unless it is enabled."""
    return overlay_of(msgspec.structs.asdict(own.overlay)) if own.overlay.enable else None


def _set_niceness(nice: int) -> None:
    if nice:
        with suppress(PermissionError):  # only root may go below 0; 0 is fine where the streamer is nicer
            os.nice(nice)


if __name__ == "__main__":
    sys.exit(main())
