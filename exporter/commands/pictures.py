"""What save, snapshot, pastStack and auto-save do. Runs in the worker thread; one method is one command."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporter import replies
from exporter.continuous.long_exposure import LongExposure
from exporter.frames import (
    LONG,
    CameraFrames,
    Candidate,
    RingContents,
    already_gone,
    chosen,
    method_of,
    period_ns,
    span,
)
from exporter.pictures import names
from exporter.pictures.save import PictureSaver, SaveOptions
from exporter.settings import ExportSettings
from exporter.stacking.stack import SEPARATE, stacked
from shm_ring import Frame, FrameMeta
from shmcam.config.settings import Settings
from shmcam.control.messages import PastStack, Reply, Save, Snapshot, error
from shmcam.library.entry import Entry

FRESH_S = 10.0
"""Longest wait for a frame that is not there yet: two exposures of the longest night mode, and some."""
SYNC_WAIT_S = 2.0
"""snapshot: longest wait for each camera's next frame."""
NOTHING_YET = "no frames in the ring; is capture running? (supervisorctl status capture)"


class PictureCommands:
    """Answers commands from the rings of all cameras."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        cameras: Mapping[str, CameraFrames],
        keeper: PictureSaver,
    ) -> None:
        """`settings` gives those of this moment: they change while we run."""
        self._settings = settings
        self._cameras = cameras
        self._keeper = keeper
        self.exposures: dict[str, LongExposure] = {}
        """The virtual long exposures that run, by camera."""

    def save(self, command: Save, asked_ns: int, trigger: str = "save") -> Reply:
        """Save one frame: the newest when the command came, an older one, or the next. Raises: OSError, ValueError."""
        camera = self._camera(command.camera)
        own = self._own(camera)
        wanted_ns = asked_ns - round(command.seconds_ago * 1e9)
        held: RingContents | None = None
        if not own.auto_save_use_ring and not command.seconds_ago:
            camera.wait_past(asked_ns, FRESH_S)
            frame = camera.nearest(asked_ns + 1)
            frame = frame if frame is not None and frame.captured_ns > asked_ns else camera.at(1 << 62)
        else:
            held = camera.held()
            frame = camera.at(wanted_ns)
        if frame is None:
            return replies.no_frames(camera.name, NOTHING_YET)
        name = names.picture(self._prefix(camera), command.label, frame.meta.captured_utc_ns, frame.frame_id, "")
        entries = self._keeper.keep_frame(camera, frame, name, SaveOptions(command.formats, command.label, trigger))
        return replies.saved(entries, replies.SavedFrame(camera.name, frame.meta, held, asked_ns, wanted_ns))

    def snapshot(self, command: Snapshot, asked_ns: int) -> Reply:
        """Save one frame of each camera, as close together as they are. Raises: OSError, ValueError."""
        wanted = [self._camera(name) for name in command.cameras] or list(self._cameras.values())
        wanted_ns = asked_ns - round(command.seconds_ago * 1e9)
        for camera in wanted if not command.seconds_ago else ():
            camera.wait_past(asked_ns, SYNC_WAIT_S)
        # The first camera's frame sets the instant: then no other is more than half its frame time away.
        instant_ns: int | None = None
        shots: list[tuple[CameraFrames, Frame, replies.SavedFrame]] = []
        for camera in wanted:
            held = camera.held()
            frame = camera.nearest(wanted_ns if instant_ns is None else instant_ns)
            if frame is not None:
                instant_ns = frame.captured_ns if instant_ns is None else instant_ns
                shots.append((camera, frame, replies.SavedFrame(camera.name, frame.meta, held, asked_ns, wanted_ns)))
        if not shots:
            return replies.no_frames(", ".join(camera.name for camera in wanted), NOTHING_YET)
        entries = []
        for camera, frame, _ in shots:
            name = names.snapshot(camera.name, command.label, frame.meta.captured_utc_ns, "")
            entries += self._keeper.keep_frame(
                camera, frame, name, SaveOptions(command.formats, command.label, "snapshot")
            )
        missing = [camera.name for camera in wanted if all(camera is not one for one, _, _ in shots)]
        return replies.snapshot(entries, [shot for _, _, shot in shots], missing)

    def past_stack(self, command: PastStack, asked_ns: int) -> Reply:
        """Save or stack the frames around the moment of the command. Raises: OSError, ValueError."""
        camera = self._camera(command.camera)
        own = self._own(camera)
        start_ns, end_ns = span(command, own, asked_ns)
        if command.method == LONG:
            return self._long_exposure(camera, command, asked_ns)
        held = camera.span(start_ns, end_ns)
        if not held:
            newest = camera.at(1 << 62)
            age = f"the newest is {(asked_ns - newest.captured_ns) / 1e9:.1f}s old" if newest else NOTHING_YET
            return replies.no_frames(camera.name, f"none in the span of {(end_ns - start_ns) / 1e9:g}s; {age}")
        method = method_of(command, own, held)
        take = self._choose(camera, held, command.count or own.stack_count, own, method)
        period = period_ns([one.meta for one in held])
        gone = already_gone(start_ns, held[0].meta, period)
        if method == SEPARATE:
            entries, metas, left_out = self._separate(camera, take, command)
        else:
            entries, metas, left_out = self._stack(camera, take, method, command)
        if not entries:
            return replies.no_frames(camera.name, f"all {len(take)} frames were overwritten while they were read")
        ages = [(meta.frame_id, (asked_ns - meta.captured_ns) / 1e9) for meta in (metas[0], metas[-1])]
        gone += len(take) - len(metas) - left_out
        taken = replies.StackSummary(camera.name, method, len(metas), len(held), gone, left_out, ages[0], ages[1])
        return replies.past_stack(entries, taken)

    def let_go_if_retired(self) -> None:
        """Give the memory of ended rings back; from any thread."""
        for camera in self._cameras.values():
            camera.let_go_if_retired()

    # ---- inside

    def _long_exposure(self, camera: CameraFrames, command: PastStack, asked_ns: int) -> Reply:
        running = self.exposures.get(camera.name)
        result = None if running is None else running.result()
        if running is None or result is None:
            text = f"{camera.name}: no virtual long exposure; set export.long_exposure_s (needs a restart)"
            return error(text, "not_possible")
        more = {"stack": {"method": LONG, "count": result.count, "aligned": False}}
        entries = self._keeper.keep_stack(
            camera, result, more, SaveOptions(command.formats, command.label, "pastStack")
        )
        first, last = ((meta.frame_id, (asked_ns - meta.captured_ns) / 1e9) for meta in result.metas)
        taken = replies.StackSummary(camera.name, LONG, result.count, result.count, 0, 0, first, last)
        return replies.past_stack(entries, taken)

    def _camera(self, name: str) -> CameraFrames:
        if name and name not in self._cameras:
            raise ValueError(f"no camera {name[:32]}; known: {', '.join(self._cameras)}")
        return self._cameras[name] if name else next(iter(self._cameras.values()))

    def _own(self, camera: CameraFrames) -> ExportSettings:
        return self._settings().table(ExportSettings, camera.name)

    def _prefix(self, camera: CameraFrames) -> str:
        """The camera's name in file names, where there are several."""
        return camera.name if len(self._cameras) > 1 else ""

    def _choose(
        self, camera: CameraFrames, held: list[Candidate], count: int, own: ExportSettings, method: str
    ) -> list[Candidate]:
        """The frames to take; never more copies at once than memory allows."""
        if method in (SEPARATE, "median"):
            reader = camera.reader()
            size = reader.payload_bytes if reader is not None else 1
            most = max(1, own.memory_mb * 1_000_000 // size)
            count = min(count or most, most)

        def sharpness(frame_id: int) -> float | None:
            score = camera.score(frame_id)
            return None if score is None else score.sharpness

        return chosen(held, count, own.stack_choice, sharpness)

    def _separate(
        self, camera: CameraFrames, take: list[Candidate], command: PastStack
    ) -> tuple[list[Entry], list[FrameMeta], int]:
        """Copy first, encode afterwards: the ring does not wait."""
        entries: list[Entry] = []
        copies = list(camera.copies(take))
        for frame in copies:
            name = names.picture(self._prefix(camera), command.label, frame.meta.captured_utc_ns, frame.frame_id, "")
            entries += self._keeper.keep_frame(
                camera, frame, name, SaveOptions(command.formats, command.label, "pastStack")
            )
        return entries, [frame.meta for frame in copies], 0

    def _stack(
        self, camera: CameraFrames, take: list[Candidate], method: str, command: PastStack
    ) -> tuple[list[Entry], list[FrameMeta], int]:
        own = self._own(camera)
        align = command.align or own.stack_align
        result = stacked(camera.copies(take), method, align=align)
        if result is None:
            return [], [], 0
        more = {"stack": {"method": method, "count": len(result.metas), "aligned": align}}
        entries = self._keeper.keep_stack(
            camera, result, more, SaveOptions(command.formats, command.label, "pastStack")
        )
        return entries, list(result.metas), result.left_out
