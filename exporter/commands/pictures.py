"""Answers save, snapshot and pastStack, and makes auto-saves, in the thread that reads the rings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from exporter import replies
from exporter.continuous.long_exposure import LongExposure
from exporter.pictures.save import PictureSaver, SaveOptions, tell_saved
from exporter.ring_frames import (
    LONG,
    CameraFrames,
    Candidate,
    RingContents,
    choose_frames,
    count_overwritten,
    method_of,
    period_ns_of,
    select_around,
    select_span,
    span_of,
)
from exporter.settings import ExportSettings
from exporter.stacking.dark_frames import NO_DARK, DarkChoice
from exporter.stacking.stack import SEPARATE, stack_frames
from shm_ring import Flags, Frame, FrameMeta
from shmcam.config.errors import explain_unknown_camera
from shmcam.config.settings import Settings
from shmcam.control.messages import PastStack, Reply, Save, Snapshot, error
from shmcam.library import file_names
from shmcam.library.entry import Entry

NEW_FRAME_WAIT_S = 10.0
"""The longest wait for the next frame: two exposures of the longest night mode, and a margin."""
SYNC_WAIT_S = 2.0
"""snapshot: the longest wait for each camera's next frame."""
RING_IS_EMPTY = "no frames in the ring; is capture running? (shmcam processes capture)"


class PictureCommands:
    """Answers commands from the rings of all cameras; one method per command."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        cameras: Mapping[str, CameraFrames],
        saver: PictureSaver,
        find_session_folder: Callable[[str], Path | None] = lambda _camera: None,
    ) -> None:
        """`settings` returns the present settings: they change at run time.

        `find_session_folder` returns the folder of the session that a camera records now.
        """
        self._find_session_folder = find_session_folder
        self._settings = settings
        self._cameras = cameras
        self._saver = saver
        self.long_exposures: dict[str, LongExposure] = {}
        """The running virtual long exposures, by camera."""

    def save(self, command: Save, received_ns: int, trigger: str = "save") -> Reply:
        """Saves one frame: the newest when the command came, an older one, or the next. Raises: OSError, ValueError."""
        camera = self._camera_of(command.camera)
        own = self._own(camera)
        received_ns = self._to_frame_time(camera, received_ns)
        target_ns = received_ns - round(command.seconds_ago * 1e9)
        contents: RingContents | None = None
        if not own.auto_save_use_ring and not command.seconds_ago:
            camera.wait_for_frame_after(received_ns, NEW_FRAME_WAIT_S)
            frame = camera.find_nearest(received_ns + 1)
            frame = frame if frame is not None and frame.captured_ns > received_ns else camera.find_at(1 << 62)
        else:
            camera = camera.reaching(target_ns)
            contents = camera.read_contents()
            frame = camera.find_at(target_ns)
        if frame is None:
            return replies.reply_no_frames(camera.name, RING_IS_EMPTY)
        name = file_names.name_picture(
            self._prefix_of(camera), command.label, frame.meta.captured_utc_ns, frame.frame_id
        )
        entries = self._saver.save_frame(camera, frame, name, SaveOptions(command.formats, command.label, trigger))
        return replies.reply_saved(entries, replies.SavedFrame(camera, frame, contents, received_ns, target_ns))

    def snapshot(self, command: Snapshot, received_ns: int) -> Reply:
        """Saves one frame of each camera, as close together as they are. Raises: OSError, ValueError."""
        cameras = [self._camera_of(name) for name in dict.fromkeys(command.cameras)] or list(self._cameras.values())
        came_ns = {camera: self._to_frame_time(camera, received_ns) for camera in cameras}
        for camera in cameras if not command.seconds_ago else ():
            camera.wait_for_frame_after(command.at_ns or came_ns[camera], SYNC_WAIT_S)
        # The first camera's frame sets the instant: then every other is at most half its frame time away.
        instant_ns: int | None = None
        saved: list[tuple[CameraFrames, Frame, replies.SavedFrame]] = []
        for own in cameras:
            target_ns = command.at_ns or came_ns[own] - round(command.seconds_ago * 1e9)
            is_timed_by_clock = came_ns[own] == received_ns
            wanted_ns = target_ns if instant_ns is None or not is_timed_by_clock else instant_ns
            camera = own.reaching(wanted_ns)
            contents = camera.read_contents()
            frame = camera.find_nearest(wanted_ns)
            if frame is not None:
                if is_timed_by_clock and instant_ns is None:
                    instant_ns = frame.captured_ns
                saved.append((camera, frame, replies.SavedFrame(camera, frame, contents, came_ns[own], target_ns)))
        if not saved:
            return replies.reply_no_frames(", ".join(camera.name for camera in cameras), RING_IS_EMPTY)
        entries: list[Entry] = []
        for camera, frame, _ in saved:
            name = file_names.name_snapshot(camera.name, command.label, frame.meta.captured_utc_ns)
            options = SaveOptions(
                command.formats, command.label, "snapshot", folder=self._find_session_folder(camera.name)
            )
            with tell_saved(entries):
                entries += self._saver.save_frame(camera, frame, name, options)
        missing = [camera.name for camera in cameras if all(camera.name != other.name for other, _, _ in saved)]
        return replies.reply_snapshot(entries, [frame for _, _, frame in saved], missing)

    def past_stack(self, command: PastStack, received_ns: int) -> Reply:
        """Saves or stack the frames around the moment of the command. Raises: OSError, ValueError."""
        camera = self._camera_of(command.camera)
        own = self._own(camera)
        start_ns, end_ns = span_of(command, own, received_ns)
        later_ns = self._to_frame_time(camera, end_ns) - end_ns
        received_ns, start_ns, end_ns = received_ns + later_ns, start_ns + later_ns, end_ns + later_ns
        if command.method == LONG:
            return self._save_long_exposure(camera, command, received_ns)
        camera = camera.reaching(start_ns)
        held = camera.list_span(-1 << 62, end_ns)
        method = method_of(command, own, held) if held else SEPARATE
        count = command.count or (0 if method == SEPARATE else own.stack_count)
        least = 0 if command.before_s >= 0 else 1 if method == SEPARATE else count
        candidates = select_span(held, start_ns, least)
        if not candidates:
            newest = camera.find_at(1 << 62)
            age = f"the newest is {(received_ns - newest.captured_ns) / 1e9:.1f}s old" if newest else RING_IS_EMPTY
            return replies.reply_no_frames(camera.name, f"none in the span of {(end_ns - start_ns) / 1e9:g}s; {age}")
        count = self._limit_copies(camera, count, own, method)
        if method != SEPARATE and own.stack_choice == "around" and command.before_s < 0 and count:
            chosen = select_around(held, start_ns, count)
        else:
            chosen = self._choose(camera, candidates, count, own.stack_choice)
        period = period_ns_of([candidate.meta for candidate in candidates])
        overwritten = count_overwritten(start_ns, candidates[0].meta, period)
        if method == SEPARATE:
            entries, metas, left_out = self._save_separately(camera, chosen, command)
            dark = NO_DARK
        else:
            entries, metas, left_out, dark = self._save_stack(camera, chosen, method, command)
        if not entries:
            return replies.reply_no_frames(
                camera.name, f"all {len(chosen)} frames were overwritten while they were read"
            )
        ages = [(meta.frame_id, (received_ns - meta.captured_ns) / 1e9) for meta in (metas[0], metas[-1])]
        overwritten += len(chosen) - len(metas) - left_out
        unsettled = sum(bool(one.meta.flags & Flags.SETTLING) and one not in chosen for one in candidates)
        summary = replies.StackSummary(
            *(camera.name, method, len(metas), len(candidates), overwritten, left_out, ages[0], ages[1], least, dark),
            unsettled=unsettled,
        )
        return replies.reply_past_stack(entries, summary, self._window_of(camera, metas, start_ns, received_ns))

    def release_if_retired(self) -> None:
        """Releases the memory of retired rings; from any thread."""
        for camera in self._cameras.values():
            camera.release_if_retired()

    def _save_long_exposure(self, camera: CameraFrames, command: PastStack, received_ns: int) -> Reply:
        exposure = self.long_exposures.get(camera.name)
        result = None if exposure is None else exposure.read_stack()
        if exposure is None or result is None:
            text = f"{camera.name}: no virtual long exposure; set export.long_exposure_s (needs a restart)"
            return error(text, "not_possible")
        more = {"stack": {"method": LONG, "count": result.count, "aligned": False}}
        saved = self._saver.save_stack(camera, result, more, SaveOptions(command.formats, command.label, "pastStack"))
        first, last = ((meta.frame_id, (received_ns - meta.captured_ns) / 1e9) for meta in result.metas)
        summary = replies.StackSummary(camera.name, LONG, result.count, result.count, 0, 0, first, last, 0, saved.dark)
        window = self._window_of(camera, result.metas, result.metas[0].captured_ns, received_ns)
        return replies.reply_past_stack(saved.entries, summary, window)

    def _window_of(
        self, camera: CameraFrames, metas: Sequence[FrameMeta], start_ns: int, received_ns: int
    ) -> replies.StackWindow:
        threshold = self._settings().value(f"cameras.{camera.name}.night.bright_threshold")
        utc_ns = metas[0].captured_utc_ns, metas[-1].captured_utc_ns
        return replies.StackWindow(camera.stream, *utc_ns, (received_ns - start_ns) / 1e9, threshold)

    def _camera_of(self, name: str) -> CameraFrames:
        if name and name not in self._cameras:
            raise ValueError(explain_unknown_camera(name[:32], self._cameras))
        return self._cameras[name] if name else next(iter(self._cameras.values()))

    def _to_frame_time(self, camera: CameraFrames, now_ns: int) -> int:
        """Returns the present instant in the time of the camera's frames: that of the newest, if the clock is not."""
        contents = camera.read_contents() if self._settings().has_foreign_times(camera.name) else None
        return now_ns if contents is None else contents.last.captured_ns

    def _own(self, camera: CameraFrames) -> ExportSettings:
        return self._settings().table(ExportSettings, camera.name)

    def _prefix_of(self, camera: CameraFrames) -> str:
        """Returns the camera's name for file names; empty where there is only one camera."""
        return camera.name if len(self._cameras) > 1 else ""

    def _limit_copies(self, camera: CameraFrames, count: int, own: ExportSettings, method: str) -> int:
        """Returns how many frames may be used: never more copies at once than memory allows."""
        if method not in (SEPARATE, "median"):
            return count
        reader = camera.open_reader()
        size = reader.payload_bytes if reader is not None else 1
        max_copies = max(1, own.memory_mb * 1_000_000 // size)
        return min(count or max_copies, max_copies)

    def _choose(self, camera: CameraFrames, candidates: list[Candidate], count: int, how: str) -> list[Candidate]:
        def sharpness(frame_id: int) -> float | None:
            score = camera.find_score(frame_id)
            return None if score is None else score.sharpness

        return choose_frames(candidates, count, how, sharpness)

    def _save_separately(
        self, camera: CameraFrames, chosen: list[Candidate], command: PastStack
    ) -> tuple[list[Entry], list[FrameMeta], int]:
        """Copies all frames before it encodes the first: the ring does not wait."""
        entries: list[Entry] = []
        copies = list(camera.copy_frames(chosen))
        for frame in copies:
            name = file_names.name_picture(
                self._prefix_of(camera), command.label, frame.meta.captured_utc_ns, frame.frame_id
            )
            with tell_saved(entries):
                entries += self._saver.save_frame(
                    camera, frame, name, SaveOptions(command.formats, command.label, "pastStack")
                )
        return entries, [frame.meta for frame in copies], 0

    def _save_stack(
        self, camera: CameraFrames, chosen: list[Candidate], method: str, command: PastStack
    ) -> tuple[list[Entry], list[FrameMeta], int, DarkChoice]:
        own = self._own(camera)
        align = command.align or own.stack_align
        result = stack_frames(camera.copy_frames(chosen), method, align=align)
        if result is None:
            return [], [], 0, NO_DARK
        more = {"stack": {"method": method, "count": len(result.metas), "aligned": align}}
        saved = self._saver.save_stack(camera, result, more, SaveOptions(command.formats, command.label, "pastStack"))
        return saved.entries, list(result.metas), result.left_out, saved.dark
