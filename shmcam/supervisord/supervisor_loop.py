"""supervisord's loop, with stops that are asked of all programs at once and a first restart without a pause."""

from __future__ import annotations

import time
from contextlib import suppress

from supervisor import events
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from shmcam.supervisord.first_camera_group import ProcessGroups, find_first_camera
from shmcam.supervisord.fork_options import ForkOptions

RETRIES_S = (0.0, 0.25, 2.0, 4.0, 8.0)
"""Pauses before a program that ended within startsecs is started again. supervisord's own are 1, 2, 3, 4, 5 s: as many
in the same time, but a process that was killed soon after its start is back at once."""


class PromptSupervisor(Supervisor):  # type: ignore[misc]  # supervisor has no annotations
    """A supervisord that neither waits for its next second nor for one program before it stops the next."""

    def __init__(self, options: ForkOptions) -> None:
        super().__init__(options)
        self._first_camera = find_first_camera(options.configroot.supervisord.environment)

    def runforever(self) -> None:
        """Works until a stop; begins after supervisord has cleared the subscriptions and made the groups."""
        self.process_groups: ProcessGroups = ProcessGroups(self.process_groups, self._first_camera)
        events.subscribe(events.ProcessStateBackoffEvent, self._shorten_pause)
        events.subscribe(events.SupervisorStoppingEvent, self._say_stopping)
        super().runforever()

    def ordered_stop_groups_phase_1(self) -> None:
        """Asks every group to stop: each process is crash-only, so none needs another one for its end."""
        for group in self.stop_groups or ():
            group.stop_all()

    def _shorten_pause(self, event: events.ProcessStateBackoffEvent) -> None:
        process = event.process
        if process.backoff <= len(RETRIES_S):
            pause_s = RETRIES_S[process.backoff - 1]
            process.delay = time.time() + pause_s
            self.options.poller.look_again_in(pause_s)

    def _say_stopping(self, _: events.SupervisorStoppingEvent) -> None:
        with suppress(OSError, UnicodeError):  # the terminal may be gone
            print("restarting …" if self.options.mood == SupervisorStates.RESTARTING else "stopping …", flush=True)
