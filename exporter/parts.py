"""What the exporter's loop works with, and the commands it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from control.client import ControlClient
from control.client import Request as Asked
from control.messages import Reply
from exporter.disks import Disks
from exporter.follow import Follower
from exporter.jobs import Jobs
from exporter.settings import ExportSettings
from exporter.studio import Studio
from exporter.timer import Timer
from library import Catalogue
from service.settings import Settings

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
class Parts:
    """What the loop works with; `__main__` opens and closes them."""

    settings: Settings
    control: ControlClient
    studio: Studio
    catalogue: Catalogue
    saver: Jobs
    """Carries out whatever reads the ring: it must not wait behind anything long."""
    errands: Jobs
    """Long work on files: archive, check, rebuild."""
    disks: Disks
    """Those that pictures and recordings go to; looked at as an errand."""
    followers: dict[str, Follower] = field(default_factory=dict)
    """What goes on all day, per camera."""
    later: list[tuple[int, Callable[[], Reply], Asked]] = field(default_factory=list)
    """pastStacks whose span has not ended yet, with the instant when it will have."""
    timers: dict[str, Timer] = field(default_factory=dict)
    """Auto-save, per camera."""
    places: Timer = field(default_factory=Timer)
    """Looks at the disks, and for folders of the library that come back."""

    @property
    def own(self) -> ExportSettings:
        """[export] of this moment."""
        return self.settings.table(ExportSettings)
