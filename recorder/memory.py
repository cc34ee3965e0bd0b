"""What a recorder remembers of itself over a restart, so that a recording goes on where it was interrupted.

The file is written when a session begins, rewritten when a file of it is closed, every ALIVE_S (so that it tells how
long ago the recorder still lived) and when the process is asked to stop, and removed when the session ends. Together
with the leftover video it tells the next recorder from which frame on it has to record; what is still in the ring by
then is not lost.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec

from recorder.names import Kind
from service.files import whole_file

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

RESUME_WITHIN_S = 120.0
"""A recording that was interrupted for longer is not taken up again by itself: nobody would expect it."""
ALIVE_S = 30.0
"""How often a recorder notes that it lives. The frames since the last closed file may not have reached the disk."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A session or an event that was on."""

    boot: str
    """The sensor's clock means nothing after another boot."""
    kind: Kind
    trigger: str
    utc_ns: int
    label: str
    protect: bool
    stop_ns: int
    """When it ends by itself at the latest; 1 << 62 for never."""
    last_ns: int
    """When the last frame that is certainly on disk was captured, or (before any) when it began."""
    alive_ns: int
    """When the recorder wrote this, by the sensor's clock."""
    end_ns: int = 0
    """When an event ends if nothing lasts."""
    lasting: dict[str, int] = field(default_factory=dict)
    """What of an event had begun and not ended, and when it began."""


def boot_id() -> str:
    """Identity of the running kernel's boot."""
    return BOOT_ID.read_text().strip()


class Memory:
    """The file of one camera, in the run folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def remember(self, state: Interrupted) -> None:
        """Keep it. Raises: OSError.

        Not synced: after a power cut there is nothing to resume (`boot`), and the loop waits for no disk.
        """
        with whole_file(self._path, replace=True, durable=False) as file:
            file.write(json.dumps(asdict(state)).encode())

    def forget(self) -> None:
        """Nothing is to be resumed."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:  # a disk that turned read-only: that the recording has ended is no reason to die
            log.warning("a restart would resume what has ended reason=%s", error)

    def recall(self, now_ns: int, last_recorded_ns: int) -> Interrupted | None:
        """What to resume; `last_recorded_ns` is what leftovers tell (0: nothing)."""
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=Interrupted)
        except (OSError, msgspec.DecodeError):
            return None
        last_ns = max(state.last_ns, last_recorded_ns)
        recent = 0 <= now_ns - max(last_ns, state.alive_ns) <= RESUME_WITHIN_S * 1e9
        if state.boot != boot_id() or not recent or last_ns >= state.stop_ns:
            return None
        return replace(state, last_ns=last_ns)
