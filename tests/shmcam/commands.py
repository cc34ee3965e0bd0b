"""Commands compared."""

from msgspec.structs import replace

from shmcam.control.messages import Command, Record


def untimed(command: Command) -> Command:
    """The command without the instant at which it was made."""
    return replace(command, at_ns=0) if isinstance(command, Record) else command
