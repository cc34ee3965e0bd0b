"""The recorder's loop: obeys commands, announces what the writer has done, and takes frames while they are needed.

The loop never waits for a disk: the writer thread does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from recorder.clips.writer import ClipWriter
from recorder.commands import RecordCommands
from recorder.frame_pipeline import FramePipeline
from recorder.status import Heartbeats, event_of
from shmcam.control.client import ControlClient
from shmcam.control.messages import SettingChanged
from shmcam.runtime.stop import Stop

WAIT_S = 0.2
"""The longest time for which one pass waits for a frame, or for what a command that is under way waits for."""
IDLE_S = 0.5
"""The longest time for which one pass waits for a command while nothing is recorded."""
RING_S = 0.05
"""Seconds between two tries to open a ring that does not exist yet: its first frames are needed, too."""


class RecorderLoop:
    """The loop of one camera's recorder."""

    def __init__(
        self, control: ControlClient, commands: RecordCommands, writer: ClipWriter, heartbeats: Heartbeats, stop: Stop
    ) -> None:
        self.changed: deque[SettingChanged] = deque(maxlen=64)
        """Changed settings of this camera, for the wiring to take over."""
        self._control, self._commands, self._writer = control, commands, writer
        self._heartbeats, self._stop = heartbeats, stop

    def run(self, pipeline: FramePipeline) -> Iterator[None]:
        """Works until stop is requested. Yields once per pass, so that the wiring can do its own part."""
        waits = self._control.delegate(self._obey)
        while not self._stop.requested:
            self._obey()
            self.announce()
            self._heartbeats.beat(busy=pipeline.is_busy)
            yield
            if not pipeline.needs_frames:
                pipeline.pause()
                self._control.wait(WAIT_S if self._commands.are_under_way else IDLE_S)
            elif not pipeline.attach():
                pipeline.expire()
                self._control.wait(RING_S)
            else:
                pipeline.take(WAIT_S, waits)
        pipeline.drain()  # what the encoder holds still belongs into the clip

    def serve(self) -> bool:
        """Obeys, answers and sends heartbeats while the writer's queue is full. Returns: False if the loop must end."""
        self._obey()
        self.announce()
        self._heartbeats.beat(busy=True)
        return not self._stop.requested

    def announce(self) -> None:
        """Announces what the writer has done since the last call, and answers the requests that waited for it."""
        while not self._writer.notices.empty():
            notice = self._writer.notices.get()
            self._commands.answer(notice)
            if (event := event_of(self._commands.camera, notice)) is not None:
                self._control.announce(event)
        self._commands.answer_overdue()

    def _obey(self) -> None:
        for request in self._control.receive():
            if isinstance(request.message, SettingChanged):
                if request.message.camera in ("", self._commands.camera):
                    self.changed.append(request.message)
            else:
                self._commands.obey(request)
