"""[control] and [network]: the watchdog's limits and the optional TCP trigger port."""

from typing import Annotated

from shmcam.config.schema import Section, setting
from shmcam.network.peer_address import is_loopback


class ControlSettings(Section, frozen=True):
    """[control]: the limits at which the watchdog reports and acts."""

    hang_report_s: Annotated[
        float, setting("a process or camera that is silent this long is reported", unit="s", ge=2, le=600)
    ] = 4.0
    hang_kill_s: Annotated[
        float, setting("… and killed, for supervisord to restart it, after this long", unit="s", ge=5, le=3600)
    ] = 20.0
    startup_s: Annotated[
        float,
        setting("a process that has not said a word so long after its start is killed too", unit="s", ge=5, le=3600),
    ] = 180.0
    fatal_retry_s: Annotated[
        float,
        setting("first pause before a program in FATAL is started again", unit="s", ge=1, le=3600),
    ] = 10.0
    fatal_retry_max_s: Annotated[float, setting("the pause doubles up to this", unit="s", ge=1, le=86_400)] = 300.0
    storm_restarts: Annotated[
        int, setting("so many unasked restarts of one program in storm_window_s are reported as a storm", ge=2, le=100)
    ] = 5
    storm_window_s: Annotated[float, setting("see storm_restarts", unit="s", ge=10, le=3600)] = 60.0
    memory_limit_mb: Annotated[
        int,
        setting("restart a process with more resident memory; 0: never", unit="MiB", ge=0, le=1_000_000, apply="live"),
    ] = 0


class NetworkSettings(Section, frozen=True):
    """[network]: commands over TCP, for machines that cannot reach the Unix socket."""

    trigger_port: Annotated[int, setting("TCP port for `nc host 9999`; 0: off", ge=0, le=65_535, apply="file")] = 0
    bind: Annotated[
        str, setting("address of the trigger port; anything but loopback needs a token", max_length=100)
    ] = "127.0.0.1"
    token: Annotated[
        str,
        setting(
            "what a trigger client must send first, as `token <this>`; 16 characters or more",
            secret=True,
            pattern=r"^(|[!-~]{16,200})$",
        ),
    ] = ""
    trusted: Annotated[
        bool,
        setting(
            "everybody on the network is trusted: the port is open to all of it without a token, also for set, "
            "dump_config and overwrite_config; a warning is logged at each start",
            apply="file",
        ),
    ] = False
    rate_per_s: Annotated[
        float,
        setting("commands a second one address may send; no limit if trusted", unit="1/s", gt=0, le=1000, apply="file"),
    ] = 10.0

    def __post_init__(self) -> None:
        """Refuses a port that the network can reach without a token."""
        if self.trigger_port and not (self.token or self.trusted or is_loopback(self.bind)):
            port = f"trigger_port = {self.trigger_port}"
            raise ValueError(f"bind = {self.bind!r} with {port} needs a token, or trusted = true on a trusted network")

    @property
    def address(self) -> str | None:
        """The address to listen on; None: all of this machine, as a trusted network may reach it."""
        return None if self.trusted and is_loopback(self.bind) else self.bind


TABLES: dict[str, type[Section]] = {"control": ControlSettings, "network": NetworkSettings}
