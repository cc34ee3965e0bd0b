"""Every command: what one process can be asked to do. Imperative; the table of words is in `control.table`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from control.wire import JSON, Camera, Command, Instant, Label, Words, said
from service.clock import now_ns
from service.settings import LABEL


@dataclass(frozen=True, kw_only=True)
class Save(Command):
    """Save one full-resolution frame."""

    camera: Camera = ""
    formats: Annotated[Words, said("jpg, png, npy, tiff; empty: export.formats")] = ()
    label: Label = ""
    seconds_ago: Annotated[float, said("age of the wanted frame; 0: the newest", unit="s", ge=0, le=3600)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Snapshot(Command):
    """Save one frame of each camera, all of the same instant."""

    cameras: Annotated[Words, said("camera names; empty: all")] = ()
    formats: Annotated[Words, said("as in save")] = ()
    label: Label = ""
    seconds_ago: Annotated[float, said("age of the wanted instant; 0: now", unit="s", ge=0, le=3600)] = 0.0


@dataclass(frozen=True, kw_only=True)
class PastStack(Command):
    """Save or stack the frames around this moment, from the ring."""

    camera: Camera = ""
    formats: Annotated[Words, said("as in save")] = ()
    method: Annotated[
        str, said("mean, median, sigma, max, min, trimmed, separate, long; empty: as configured", max_length=16)
    ] = ""
    before_s: Annotated[float, said("span before now; -1: export.save_before_s", unit="s", ge=-1, le=3600)] = -1.0
    after_s: Annotated[float, said("span after now; -1: export.save_after_s", unit="s", ge=-1, le=3600)] = -1.0
    count: Annotated[int, said("at most so many frames; 0: export.stack_count", ge=0, le=100_000)] = 0
    align: Annotated[bool, said("align the frames first")] = False
    label: Label = ""


@dataclass(frozen=True, kw_only=True)
class NightLevel(Command):
    """Tell brightness, thresholds and day or night."""

    camera: Camera = ""


@dataclass(frozen=True, kw_only=True)
class Night(Command):
    """Force night mode on or off, or let the analyzer decide."""

    action: Annotated[Literal["on", "off", "auto", "status"], said("what to do")] = "status"
    camera: Camera = ""


@dataclass(frozen=True, kw_only=True)
class Keogram(Command):
    """Save the keogram and brightness strip of the day so far."""

    camera: Camera = ""


@dataclass(frozen=True, kw_only=True)
class Record(Command):
    """Start, stop or show recording."""

    action: Annotated[
        Literal["start", "stop", "status", "trigger"], said("trigger: a clip with pre- and post-roll")
    ] = "status"
    camera: Camera = ""
    duration_s: Annotated[float, said("stop by itself after this; 0: until told", unit="s", ge=0, le=604_800)] = 0.0
    label: Label = ""
    protect: Annotated[bool, said("never deleted by retention")] = False
    at_ns: Annotated[
        int, said("sensor clock; by default when the hub got it, so all cameras act on one instant", ge=0)
    ] = field(default_factory=now_ns, compare=False)


@dataclass(frozen=True, kw_only=True)
class Watch(Command):
    """Keep packets coming in the h264 ring; whoever shows live video asks again before the time is over."""

    camera: Camera = ""
    seconds: Annotated[float, said("how long somebody watches; 0: no longer", unit="s", ge=0, le=60)] = 10.0


@dataclass(frozen=True, kw_only=True)
class Detect(Command):
    """List every camera this machine can see, in use or not."""

    camera: Camera = ""


@dataclass(frozen=True, kw_only=True)
class Archive(Command):
    """Copy clips and pictures of a time span into an experiment folder with a manifest."""

    name: Annotated[str, said("folder name", pattern=rf"^{LABEL}$")]
    since: Instant = ""
    until: Instant = ""
    cameras: Annotated[Words, said("camera names; empty: all")] = ()


@dataclass(frozen=True, kw_only=True)
class Archives(Command):
    """List, verify or delete archives."""

    action: Annotated[Literal["list", "verify", "delete"], said("what to do")] = "list"
    name: Annotated[str, said("archive name; list: empty", pattern=rf"^({LABEL})?$")] = ""


@dataclass(frozen=True, kw_only=True)
class Clips(Command):
    """List recorded clips, newest first."""

    camera: Camera = ""
    since: Instant = ""
    until: Instant = ""
    limit: Annotated[int, said("rows", ge=1, le=200)] = 20


@dataclass(frozen=True, kw_only=True)
class Pictures(Command):
    """List saved pictures, stacks and timelapses, newest first."""

    camera: Camera = ""
    since: Instant = ""
    until: Instant = ""
    kind: Annotated[str, said("picture, stack, timelapse, keogram …; empty: all", max_length=32)] = ""
    limit: Annotated[int, said("rows", ge=1, le=200)] = 20


@dataclass(frozen=True, kw_only=True)
class Library(Command):
    """Show one row, check the library against the disk, or rebuild it."""

    action: Annotated[Literal["list", "show", "check", "rebuild"], said("what to do")] = "list"
    number: Annotated[int, said("row number as listed; 0: none", ge=0)] = 0
    limit: Annotated[int, said("rows", ge=1, le=200)] = 20


@dataclass(frozen=True, kw_only=True)
class Protect(Command):
    """Keep a picture or clip for ever: retention never deletes it."""

    number: Annotated[int, said("row number as listed by clips or pictures", ge=1)]


@dataclass(frozen=True, kw_only=True)
class Unprotect(Command):
    """Give a picture or clip back to retention."""

    number: Annotated[int, said("row number as listed by clips or pictures", ge=1)]


@dataclass(frozen=True, kw_only=True)
class Delete(Command):
    """Delete a picture or clip and its row."""

    number: Annotated[int, said("row number as listed by clips or pictures", ge=1)]


@dataclass(frozen=True, kw_only=True)
class Timelapse(Command):
    """Start, stop or show the running timelapse, or build one from saved pictures."""

    action: Annotated[Literal["start", "stop", "status", "build"], said("what to do")] = "status"
    camera: Camera = ""
    since: Instant = ""
    until: Instant = ""
    fps: Annotated[float, said("frame rate of the film", unit="1/s", gt=0, le=120)] = 25.0
    label: Label = ""


@dataclass(frozen=True, kw_only=True)
class ShortStream(Command):
    """Send n frames as JPEG on this connection, each after its length."""

    count: Annotated[int, said("frames", ge=1, le=10_000)] = 10
    camera: Camera = ""
    quality: Annotated[int, said("JPEG quality; 0: as configured", ge=0, le=100)] = 0
    exposure: Annotated[Literal["live", "long"], said("single frames, or the virtual long exposure")] = "live"


@dataclass(frozen=True, kw_only=True)
class Preview(Command):
    """Switch preview_frame messages on this connection on or off (the hub tells the streamer)."""

    camera: Camera = ""
    enabled: Annotated[bool, said("on or off")] = True
    fps: Annotated[float, said("at most", unit="1/s", gt=0, le=30)] = 10.0
    width: Annotated[int, said("picture width", unit="px", ge=16, le=1920)] = 320


@dataclass(frozen=True, kw_only=True)
class Viewers(Command):
    """List who is watching."""


@dataclass(frozen=True, kw_only=True)
class Status(Command):
    """Tell what every process is doing."""


@dataclass(frozen=True, kw_only=True)
class Health(Command):
    """Tell memory, swap and state of every process."""


@dataclass(frozen=True, kw_only=True)
class Cameras(Command):
    """List the configured cameras and what they deliver."""


@dataclass(frozen=True, kw_only=True)
class Version(Command):
    """Tell the versions of shmcam and of what it runs on."""


@dataclass(frozen=True, kw_only=True)
class Ping(Command):
    """Ask the hub whether it is there."""


@dataclass(frozen=True, kw_only=True)
class Help(Command):
    """List the commands, or explain one."""

    word: Annotated[str, said("a command; empty: all", max_length=64)] = ""


@dataclass(frozen=True, kw_only=True)
class Set(Command):
    """Change settings of the running service, all of them or none."""

    changes: Annotated[dict[str, JSON], said("key → value, such as night.dark_threshold → 35", max_length=64)] = field(
        default_factory=dict
    )
    save: Annotated[bool, said("also write them to config.toml")] = False


@dataclass(frozen=True, kw_only=True)
class Get(Command):
    """Show one setting, or all whose key begins so."""

    key: Annotated[str, said("a key such as night.dark_threshold, or a table such as night", max_length=100)] = ""


@dataclass(frozen=True, kw_only=True)
class DumpConfig(Command):
    """Show the whole configuration in use."""

    format: Annotated[Literal["toml", "json"], said("how")] = "toml"


@dataclass(frozen=True, kw_only=True)
class OverwriteConfig(Command):
    """Write the changed settings into config.toml, keeping comments and order."""


@dataclass(frozen=True, kw_only=True)
class Subscribe(Command):
    """Get events on this connection until it closes."""

    topics: Annotated[Words, said("events or groups (night, motion, recording, process …); empty: all")] = ()


@dataclass(frozen=True, kw_only=True)
class Unsubscribe(Command):
    """Stop getting events."""

    topics: Annotated[Words, said("as subscribed; empty: all")] = ()


@dataclass(frozen=True, kw_only=True)
class Logs(Command):
    """Show the last log lines of one process, or of all merged by time."""

    process: Annotated[str, said("program name such as capture; empty: all", pattern=r"^[a-z0-9_-]{0,48}$")] = ""
    lines: Annotated[int, said("how many", ge=1, le=400)] = 20


@dataclass(frozen=True, kw_only=True)
class Quit(Command):
    """End this connection."""
