"""The table [upload] of config.toml: where saved files are copied to, when, and how fast."""

from typing import Annotated, Literal

from shmcam.config.optional_program import Need, OptionalProgram
from shmcam.config.schema import Section, setting
from shmcam.runtime.timers import HOURS

REMOTE = r"([\w.+@]([\w.+@ -]*[\w.+@-])?:|/)[^\x00-\x1f]*"
"""A remote of rclone's configuration, or a local folder. Not `:backend,key=value:` and the like: their secrets would
be read in the list of processes, in logs, and in the library."""


class UploadSettings(OptionalProgram, frozen=True):
    """[upload]: copies of saved files elsewhere, with rclone."""

    remote: Annotated[
        str,
        setting(
            "where to: NAME:FOLDER of a remote that `rclone config` made, such as nas:shmcam/porch, or a local folder",
            pattern=rf"^({REMOTE})?\Z",
            form="NAME:FOLDER or /FOLDER",
            max_length=500,
        ),
    ] = ""
    rclone_config: Annotated[str, setting("rclone.conf, which has the passwords; empty: rclone's own place for it")] = (
        ""
    )
    groups: Annotated[tuple[Literal["clips", "pictures", "films", "archives"], ...], setting("what is copied")] = (
        "clips",
        "pictures",
        "films",
        "archives",
    )
    only_triggered: Annotated[
        bool, setting("only files that an event or a command caused (motion, record, save …)", apply="live")
    ] = False
    max_kb_s: Annotated[int, setting("speed at most; 0: no limit", unit="kB/s", ge=0, le=10_000_000, apply="live")] = 0
    hours: Annotated[
        str,
        setting(
            "only at this time of the local clock, such as 22:00-06:00; empty: always",
            pattern=rf"^({HOURS})?\Z",
            form="HH:MM-HH:MM",
            apply="live",
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Refuses to run without a remote. Raises: ValueError."""
        if self.enable and not self.remote:
            raise ValueError("enable = true needs remote, such as nas:shmcam/porch (`rclone config` makes one)")

    def list_needs(self) -> tuple[Need, ...]:
        """Returns rclone."""
        return (Need.of_command("rclone", "rclone"),)


TABLES: dict[str, type[Section]] = {"upload": UploadSettings}
