"""CONTRACT 2: every control message. Commands are imperative, events past tense; no other module declares messages.

On the wire a message is a map: its wire name under "message", its fields beside it, and "id" where an answer is wanted.
A message is a frozen struct; each field says in its annotation what it means, its unit and its range, and `build`
enforces that. The wire name of a message is its class name in snake_case, so there is one name to remember.

What must change together: a new command needs its row in `shmcam.control.command_table`, which says how the command is
written and which process answers it; a new event needs its group in TOPIC_GROUPS, and its kind in RETAINED if it
describes a state. The first line of a command's docstring is the text that `help` shows.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import msgspec
from msgspec import field
from msgspec.structs import FieldInfo, asdict, fields

from shmcam.config.settings import FORMER_LABEL, FORMER_LONG_NAME, LABEL, LONG_NAME
from shmcam.runtime.clock import now_ns

JSON: TypeAlias = Any
"""Anything json.dumps takes: str, int, float, bool, None, lists of these, dicts from str to these."""

MESSAGE_BYTES_MAX = 64 * 1024
"""Longest message of a connection that did not say hello: any command fits, a flood does not."""

PROCESS_BYTES_MAX = 16 * MESSAGE_BYTES_MAX
"""Longest message from a process that said hello, or from the hub: 400 log lines twice, 2,000 rows with paths."""

CHUNK_BYTES_MAX = 48 * 1024
"""Largest payload of a Chunk or PreviewFrame: in base64, for the JSON dialect, it still fits the limit above."""

NS_MAX = (1 << 63) - 1
"""Latest time in ns: clocks and rings have 64 bits with a sign."""

INTEGER_MAX = (1 << 64) - 1
"""Largest integer of msgpack, which would send a larger one as text."""

MessageT = TypeVar("MessageT", bound="Message")


def describe(text: str, *, unit: str = "", **limits: Any) -> msgspec.Meta:
    """Returns a field's meaning, its unit and its limits (ge, le, pattern, max_length of msgspec.Meta)."""
    return msgspec.Meta(description=text, extra={"unit": unit}, **limits)


Camera = Annotated[str, describe("camera, such as cam0; empty: see the command", pattern=rf"^({LABEL})?$")]
Label = Annotated[str, describe("label for file names", pattern=rf"^({LABEL})?$")]
Instant = Annotated[str, describe("ISO 8601 time, or an age such as 90s, 15m, 2h, 3d; empty: no limit", max_length=40)]
RowCount = Annotated[int, describe("rows", ge=1, le=200)]
RowNumber = Annotated[int, describe("row number as listed by clips or pictures", ge=1)]
Cursor = Annotated[str, describe('the next page: "next" of the answer before', max_length=40)]
Kind = Annotated[str, describe("picture, stack, timelapse, keogram …; empty: all", max_length=32)]
Words = tuple[Annotated[str, msgspec.Meta(max_length=64)], ...]


class Message(msgspec.Struct, frozen=True):
    """A message on the control socket."""


class Command(Message, frozen=True):
    """A request to one process, which always answers with one Reply."""


class Event(Message, frozen=True):
    """A thing that happened; the hub sends it to the subscribers of its name. Events have no answer."""


EventId = tuple[int, int]
"""A random number for the process that announced an event, and its monotonic time in ns, which rises each time.

Heartbeats and preview pictures have none. A process sends its last events to each new connection once more, and a hub
its own to each process that connects; whoever has seen an id of the same or a later time drops the event. So each
event arrives once, although the hub is killed at any instant.
"""


class Reply(Message, frozen=True):
    """The one answer to a command."""

    ok: bool = True
    """False: the command changed nothing, or not everything it should."""
    status: str = "ok"
    """One word for programs, such as recording_started or no_frames (the JSON dialect's "status")."""
    text: str = ""
    """The text that the text dialect prints; an error starts with "ERROR: "."""
    data: dict[str, JSON] = field(default_factory=dict)
    """The same answer for programs (the JSON dialect's "data")."""


class Chunk(Message, frozen=True):
    """A piece of a binary answer, sent before its Reply; text connections get the bytes as they are."""

    data: bytes
    """At most CHUNK_BYTES_MAX bytes."""
    end: bool = False
    """True in the last one."""


class ChunkFlow(Message, frozen=True):
    """Asks who sends the chunks of an answer to wait, or to go on: its requester is slower. With the command's id."""

    wait: Annotated[bool, describe("true: send none until this comes with false")]


class Part(Message, frozen=True):
    """A piece of a message that is too long for one map; the pieces follow each other and together are its JSON."""

    data: Annotated[bytes, describe("JSON, or a piece of it", max_length=CHUNK_BYTES_MAX)]
    end: Annotated[bool, describe("true in the last one")]


def error(text: str, status: str = "error", **data: JSON) -> Reply:
    """Returns a failed Reply whose text starts with "ERROR: "."""
    return Reply(ok=False, status=status, text=f"ERROR: {text}", data={"message": text, **data})


def wire_name(message: Message | type[Message]) -> str:
    """Returns the snake_case name of a message class: NightBegan → night_began."""
    return _to_wire_name((message if isinstance(message, type) else type(message)).__name__)


@cache
def _to_wire_name(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def build(message: type[MessageT], values: dict[str, Any], *, text: bool = False) -> MessageT:
    """Makes a message from untrusted values; with text=True numbers may be strings.

    Raises: ValueError with the field, the expectation and the value.
    """
    names = message.__struct_fields__
    if unknown := [name for name in values if name not in names]:
        raise ValueError(
            f"{wire_name(message)} has no field {str(unknown[0])[:40]!r}; it has: {', '.join(names) or 'none'}"
        )
    try:
        built = msgspec.convert(values, message, strict=not text)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise ValueError(f"{wire_name(message)}: {_to_plain_text(message, str(problem))}") from problem
    if isinstance(built, Command):
        for name, value in asdict(built).items():
            if isinstance(value, int) and value > INTEGER_MAX:
                raise ValueError(f"{wire_name(message)}: {name}: number out of range")
    return built


@cache
def fields_of(message: type[Message]) -> dict[str, FieldInfo]:
    """Returns the fields of a message by name."""
    return {one.name: one for one in fields(message)}


def type_of(message_field: FieldInfo) -> Any:
    """Returns a field's type without its meaning and limits."""
    kind = message_field.type
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def choices(message_field: FieldInfo) -> str:
    """Returns "start|stop|status" for a field of fixed words, else an empty string."""
    kind = type_of(message_field)
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else ""


_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a map",
    "null": "nothing",
}
"""msgspec's names of types, as a person calls them."""


def to_plain_words(text: str) -> str:
    """Returns a problem of msgspec without regular expressions and names of types."""
    text = re.sub(r"`str` matching regex (.*)", lambda match: _describe_pattern(match[1]), text)
    return re.sub(r"`([a-z]+)`", lambda match: _WORDS.get(match[1], match[1]), text).replace("`", "")


def _describe_pattern(pattern: str) -> str:
    """Returns a pattern of a name in words; all patterns of messages are names of a limited length."""
    lengths = [int(length) for length in re.findall(r"\{\d+,(\d+)\}", pattern)]
    has_first = LABEL in pattern or LONG_NAME in pattern  # these have one character before the counted ones
    most = f", at most {max(lengths) + has_first}" if lengths else ""
    return f"letters, digits, _ and -{most}{', the first a letter or digit' if has_first else ''}"


def _to_plain_text(message: type[Message], problem: str) -> str:
    """Turns msgspec's "Expected `int` >= 1 - at `$.count`" into "count: expected int >= 1"."""
    what, _, where = problem.partition(" - at ")
    name = where.strip("`").removeprefix("$.")
    sentence = to_plain_words(what[:1].lower() + what[1:]).removeprefix("object ")
    if (message_field := fields_of(message).get(name)) and (words := choices(message_field)):
        sentence = f"expected {words}, got{sentence.rpartition('value')[2]}"
    return f"{name}: {sentence}" if name else sentence


# ---- commands: requests to one process


class Save(Command, frozen=True):
    """Save one full-resolution frame."""

    camera: Camera = ""
    formats: Annotated[Words, describe("jpg, png, npy, tiff; empty: export.formats")] = ()
    label: Label = ""
    seconds_ago: Annotated[float, describe("age of the wanted frame; 0: the newest", unit="s", ge=0, le=3600)] = 0.0


class Snapshot(Command, frozen=True):
    """Save one frame of each camera, all of the same instant."""

    cameras: Annotated[Words, describe("camera names; empty: all")] = ()
    formats: Annotated[Words, describe("as in save")] = ()
    label: Label = ""
    seconds_ago: Annotated[float, describe("age of the wanted instant; 0: now", unit="s", ge=0, le=3600)] = 0.0
    at_ns: Annotated[int, describe("the wanted instant, sensor clock; 0: seconds_ago", ge=0, le=NS_MAX)] = 0


class PastStack(Command, frozen=True):
    """Save or stack the frames around this moment, from the ring."""

    camera: Camera = ""
    formats: Annotated[Words, describe("as in save")] = ()
    method: Annotated[
        str, describe("mean, median, sigma, max, min, trimmed, separate, long; empty: as configured", max_length=16)
    ] = ""
    before_s: Annotated[float, describe("span before now; -1: export.save_before_s", unit="s", ge=-1, le=3600)] = -1.0
    after_s: Annotated[float, describe("span after now; -1: export.save_after_s", unit="s", ge=-1, le=3600)] = -1.0
    count: Annotated[int, describe("at most so many frames; 0: export.stack_count", ge=0, le=100_000)] = 0
    align: Annotated[bool, describe("align the frames first")] = False
    label: Label = ""


class NightLevel(Command, frozen=True):
    """Tell brightness, thresholds and day or night."""

    camera: Camera = ""


class Night(Command, frozen=True):
    """Force night mode on or off, or let the analyzer decide."""

    action: Annotated[Literal["on", "off", "auto", "status"], describe("what to do")] = "status"
    camera: Camera = ""


class Keogram(Command, frozen=True):
    """Save the keogram and brightness strip of the day so far."""

    camera: Camera = ""


class Record(Command, frozen=True):
    """Start, stop or show recording."""

    action: Annotated[
        Literal["start", "stop", "status", "trigger"], describe("trigger: a clip with pre- and post-roll")
    ] = "status"
    camera: Camera = ""
    duration_s: Annotated[float, describe("stop by itself after this; 0: until told", unit="s", ge=0, le=604_800)] = 0.0
    label: Label = ""
    protect: Annotated[bool, describe("never deleted by retention")] = False
    at_ns: Annotated[
        int,
        describe("sensor clock; by default when the hub got it, so all cameras act on one instant", ge=0, le=NS_MAX),
    ] = field(default_factory=now_ns)


class Watch(Command, frozen=True):
    """Keep packets coming in the h264 ring; whoever shows live video asks again before the time is over."""

    camera: Camera = ""
    seconds: Annotated[float, describe("how long somebody watches; 0: no longer", unit="s", ge=0, le=60)] = 10.0
    key: Annotated[bool, describe("make the next frame a key frame, because a viewer waits for one")] = False


class Detect(Command, frozen=True):
    """List every camera this machine can see, in use or not."""

    camera: Camera = ""


class Archive(Command, frozen=True):
    """Copy clips and pictures of a time span into an experiment folder with a manifest."""

    name: Annotated[str, describe("folder name", pattern=rf"^{LONG_NAME}$")]
    since: Instant = ""
    until: Instant = ""
    cameras: Annotated[Words, describe("camera names; empty: all")] = ()
    label: Annotated[str, describe("only files with this label", pattern=rf"^({FORMER_LABEL})?$")] = ""
    session: Annotated[str, describe("only files of this session's folder", pattern=rf"^({FORMER_LONG_NAME})?$")] = ""


class Archives(Command, frozen=True):
    """List, verify or delete archives."""

    action: Annotated[Literal["list", "verify", "delete"], describe("what to do")] = "list"
    name: Annotated[str, describe("archive name; list: empty", pattern=rf"^({FORMER_LONG_NAME})?$")] = ""


class Clips(Command, frozen=True):
    """List recorded clips, newest first."""

    camera: Camera = ""
    since: Instant = ""
    until: Instant = ""
    limit: RowCount = 20
    cursor: Cursor = ""


class Pictures(Command, frozen=True):
    """List saved pictures, stacks and timelapses, newest first."""

    camera: Camera = ""
    since: Instant = ""
    until: Instant = ""
    kind: Kind = ""
    limit: RowCount = 20
    cursor: Cursor = ""


class Library(Command, frozen=True):
    """Search what is saved, show one row or the timeline, check the library against the disk, or rebuild it."""

    action: Annotated[Literal["list", "show", "timeline", "check", "rebuild"], describe("what to do")] = "list"
    number: Annotated[int, describe("row number as listed; 0: none", ge=0)] = 0
    text: Annotated[str, describe("words in kind, camera, trigger, label or file name", max_length=100)] = ""
    label: Annotated[str, describe("the whole label", max_length=32)] = ""
    camera: Camera = ""
    since: Instant = ""
    until: Instant = ""
    group: Annotated[Literal["", "clips", "pictures", "films", "archives"], describe("group of kinds")] = ""
    kind: Kind = ""
    trigger: Annotated[str, describe("its event or command: motion, night, save …", max_length=32)] = ""
    min_mb: Annotated[float, describe("least size", unit="MB", ge=0, le=1e9)] = 0.0
    max_mb: Annotated[float, describe("greatest size; 0: no limit", unit="MB", ge=0, le=1e9)] = 0.0
    order: Annotated[
        Literal["newest", "oldest", "latest", "earliest", "largest", "smallest", "longest"],
        describe("newest and oldest: by adding; latest and earliest: by time"),
    ] = "newest"
    limit: RowCount = 20
    cursor: Cursor = ""
    step_s: Annotated[int, describe("length of a cell of the timeline", unit="s", ge=1, le=86_400)] = 3600


class Protect(Command, frozen=True):
    """Keep a picture or clip for ever: retention never deletes it."""

    number: RowNumber


class Unprotect(Command, frozen=True):
    """Give a picture or clip back to retention."""

    number: RowNumber


class Delete(Command, frozen=True):
    """Delete a picture or clip and its row."""

    number: RowNumber


class Timelapse(Command, frozen=True):
    """Start, stop or show the running timelapse, or build one from saved pictures."""

    action: Annotated[Literal["start", "stop", "status", "build"], describe("what to do")] = "status"
    camera: Camera = ""
    since: Instant = ""
    until: Instant = ""
    fps: Annotated[float, describe("frame rate of the film", unit="1/s", gt=0, le=120)] = 25.0
    label: Label = ""


class ShortStream(Command, frozen=True):
    """Send n frames as JPEG on this connection, each after its length."""

    count: Annotated[int, describe("frames", ge=1, le=10_000)] = 10
    when: Annotated[Literal["last", "live"], describe("the last frames, at once, or the next ones")] = "last"
    camera: Camera = ""
    quality: Annotated[int, describe("JPEG quality; 0: as configured", ge=0, le=100)] = 0
    exposure: Annotated[Literal["live", "long"], describe("single frames, or the virtual long exposure")] = "live"


class Preview(Command, frozen=True):
    """Switch preview_frame messages on this connection on or off (the hub tells the streamer)."""

    camera: Camera = ""
    enabled: Annotated[bool, describe("on or off")] = True
    fps: Annotated[float, describe("at most", unit="1/s", gt=0, le=30)] = 10.0
    width: Annotated[int, describe("picture width", unit="px", ge=16, le=1920)] = 320


class Viewers(Command, frozen=True):
    """List who is watching."""


class Status(Command, frozen=True):
    """Tell what every process is doing."""


class Health(Command, frozen=True):
    """Tell memory, swap and state of every process."""


class Cameras(Command, frozen=True):
    """List the configured cameras and what they deliver."""


class Version(Command, frozen=True):
    """Tell the versions of shmcam and of what it runs on."""


class Ping(Command, frozen=True):
    """Ask the hub whether it is there."""


class Help(Command, frozen=True):
    """List the commands, or explain one."""

    word: Annotated[str, describe("a command; empty: all", max_length=64)] = ""


class Set(Command, frozen=True):
    """Change settings of the running service, all of them or none."""

    changes: Annotated[dict[str, JSON], describe("key → value, such as night.dark_threshold → 35", max_length=64)] = (
        field(default_factory=dict)
    )
    save: Annotated[bool, describe("also write them to config.toml")] = False


class Get(Command, frozen=True):
    """Show one setting, or all whose key begins so."""

    key: Annotated[str, describe("a key such as night.dark_threshold, or a table such as night", max_length=100)] = ""


class DumpConfig(Command, frozen=True):
    """Show the whole configuration in use."""

    format: Annotated[Literal["json", "toml"], describe("how")] = "json"


class OverwriteConfig(Command, frozen=True):
    """Write the changed settings into config.toml, keeping comments and order."""


class Subscribe(Command, frozen=True):
    """Get events on this connection until it closes."""

    topics: Annotated[Words, describe("events or groups (night, motion, recording, process …); empty: all")] = ()


class Unsubscribe(Command, frozen=True):
    """Stop getting events."""

    topics: Annotated[Words, describe("as subscribed; empty: all")] = ()


class Logs(Command, frozen=True):
    """Show the last log lines of one process, or of all merged by time."""

    process: Annotated[str, describe("program name such as capture; empty: all", pattern=r"^[a-z0-9_-]{0,48}$")] = ""
    lines: Annotated[int, describe("how many", ge=1, le=400)] = 20


class Quit(Command, frozen=True):
    """End this connection."""


# ---- events: sent to their subscribers; JSON and text show the time at which the hub passed them on

CapturedNs = Annotated[int, describe("sensor clock", unit="ns", ge=0)]
FrameId = Annotated[int, describe("frame the event is about; -1: none", ge=-1)]
Path = Annotated[str, describe("absolute path of the file", max_length=1024)]


class Hello(Event, frozen=True):
    """First message of a process: who it is and what it answers."""

    role: Annotated[str, describe("program family, such as analyzer", pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    camera: Camera = ""
    pid: Annotated[int, describe("process number", ge=0)] = 0
    program: Annotated[str, describe("supervisord's name for it; empty: not under supervisord", max_length=64)] = ""
    commands: Annotated[tuple[str, ...], describe("wire names of the commands it answers", max_length=64)] = ()
    subscribe: Annotated[tuple[str, ...], describe("events it wants", max_length=64)] = ()
    since_ns: Annotated[int, describe("monotonic time from which on it wants events: its start", unit="ns", ge=0)] = 0


class Heartbeat(Event, frozen=True):
    """Sent once a second by a process whose loop turns."""

    role: Annotated[str, describe("program family", max_length=32)]
    camera: Camera = ""
    pid: Annotated[int, describe("process number", ge=0)] = 0
    state: Annotated[str, describe("starting, running, waiting, paused, idle, recording …", max_length=32)] = "running"
    reason: Annotated[str, describe("why it is not simply running; empty: nothing to say", max_length=300)] = ""
    fps: Annotated[float, describe("frames handled a second; -1: does not handle frames", unit="1/s", ge=-1)] = -1.0
    lag: Annotated[int, describe("frames behind the writer; -1: does not read frames", ge=-1)] = -1
    laps: Annotated[int, describe("frames lost because the writer came round", ge=0)] = 0
    rss_bytes: Annotated[int, describe("resident memory without shared memory", unit="B", ge=0)] = 0
    swap_bytes: Annotated[int, describe("swapped out", unit="B", ge=0)] = 0
    lost: Annotated[int, describe("messages this process could not send", ge=0)] = 0
    figures: Annotated[dict[str, JSON], describe("whatever else the process counts", max_length=64)] = field(
        default_factory=dict
    )


class SettingChanged(Event, frozen=True):
    """A live setting has a new value."""

    key: Annotated[str, describe("such as night.dark_threshold", max_length=100)]
    old: Annotated[JSON, describe("value before")] = None
    new: Annotated[JSON, describe("value now")] = None
    camera: Camera = ""


class ModeRequested(Event, frozen=True):
    """The analyzer wants the camera in another mode; capture obeys."""

    camera: Camera
    mode: Annotated[str, describe("video, still or slow_video", max_length=16)]
    exposure_us: Annotated[int, describe("0: as configured", unit="µs", ge=0)] = 0
    gain: Annotated[float, describe("0: as configured", ge=0)] = 0.0
    reason: Annotated[str, describe("the numbers behind it", max_length=300)] = ""


class ModeChanged(Event, frozen=True):
    """The camera runs in another mode."""

    camera: Camera
    old: Annotated[str, describe("mode before", max_length=16)]
    new: Annotated[str, describe("mode now", max_length=16)]
    changes: Annotated[dict[str, JSON], describe("control → [old, new]")] = field(default_factory=dict)


class NightBegan(Event, frozen=True):
    """It is night for this camera."""

    camera: Camera
    score: Annotated[float, describe("dark score on the video-mode scale", unit="mean luma 0-255")] = 0.0
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0
    reason: Annotated[str, describe("the numbers behind it", max_length=300)] = ""


class NightEnded(NightBegan, frozen=True):
    """It is day for this camera."""


class MotionBegan(Event, frozen=True):
    """Something moves."""

    camera: Camera
    score: Annotated[float, describe("motion score")] = 0.0
    box: Annotated[tuple[int, ...], describe("x, y, width, height; empty: unknown", unit="px", max_length=4)] = ()
    zone: Annotated[str, describe("name of the zone; empty: anywhere", max_length=32)] = ""
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0


class MotionEnded(MotionBegan, frozen=True):
    """Nothing moves any more."""

    duration_s: Annotated[float, describe("how long it moved", unit="s", ge=0)] = 0.0


class Saved(Event, frozen=True):
    """A picture is safely on disk."""

    camera: Camera
    path: Path
    kind: Annotated[str, describe("picture, stack, timelapse …, as in the library", max_length=32)] = "picture"
    trigger: Annotated[str, describe("what caused it, as in the library: save, snapshot, auto …", max_length=32)] = ""
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0


class StackSaved(Saved, frozen=True):
    """A stack of frames is safely on disk."""

    count: Annotated[int, describe("frames in it", ge=0)] = 0
    first: FrameId = -1
    last: FrameId = -1
    left_out: Annotated[int, describe("frames left out of it", ge=0)] = 0
    reason: Annotated[str, describe("why frames were left out; empty: none, or not known", max_length=300)] = ""


class ArchiveSaved(Event, frozen=True):
    """An archive is complete."""

    name: Annotated[str, describe("its name", max_length=32)]
    path: Path
    files: Annotated[int, describe("files in it", ge=0)] = 0


class Progressed(Event, frozen=True):
    """A long job came a step further."""

    task: Annotated[str, describe("what", max_length=64)]
    done: Annotated[int, describe("steps done", ge=0)]
    total: Annotated[int, describe("steps in all; 0: unknown", ge=0)] = 0


class RecordingStarted(Event, frozen=True):
    """A recording runs."""

    camera: Camera
    path: Path
    trigger: Annotated[str, describe("manual, auto, motion, night …", max_length=32)] = "manual"
    frame_id: FrameId = -1


class RecordingStopped(Event, frozen=True):
    """A recording ended."""

    camera: Camera
    path: Path
    frames: Annotated[int, describe("frames in it", ge=0)] = 0
    drops: Annotated[int, describe("frames missing", ge=0)] = 0
    reason: Annotated[str, describe("why", max_length=300)] = ""


class ClipClosed(RecordingStopped, frozen=True):
    """A clip is complete, playable and in the library."""

    duration_s: Annotated[float, describe("its length", unit="s", ge=0)] = 0.0
    bytes: Annotated[int, describe("its size", unit="B", ge=0)] = 0


class PreviewFrame(Event, frozen=True):
    """A small picture for whoever switched previews on; dropped rather than queued."""

    camera: Camera
    jpeg: Annotated[bytes, describe("JPEG, base64 in the JSON dialect", max_length=48 * 1024)]
    width: Annotated[int, describe("", unit="px", ge=0)] = 0
    height: Annotated[int, describe("", unit="px", ge=0)] = 0
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0


class CameraFound(Event, frozen=True):
    """A camera answers and delivers frames."""

    camera: Camera
    source: Annotated[str, describe("picamera2, v4l2, file, url or synthetic", max_length=32)] = ""
    model: Annotated[str, describe("sensor or device name", max_length=100)] = ""
    device_id: Annotated[str, describe("libcamera id, device node, path or URL without secrets", max_length=300)] = ""
    modes: Annotated[list[JSON], describe("sizes and rates it offers", max_length=64)] = field(default_factory=list)
    reason: Annotated[str, describe("why this source", max_length=300)] = ""


class CameraLost(Event, frozen=True):
    """A camera does not answer any more; capture keeps trying."""

    camera: Camera
    reason: Annotated[str, describe("what it said", max_length=300)] = ""


class ProcessUp(Event, frozen=True):
    """supervisord started a program and it stays up."""

    program: Annotated[str, describe("supervisord's name", max_length=64)]
    pid: Annotated[int, describe("process number", ge=0)] = 0


class ProcessDown(Event, frozen=True):
    """A program ended, was killed or was given up."""

    program: Annotated[str, describe("supervisord's name", max_length=64)]
    state: Annotated[str, describe("supervisord's state: EXITED, STOPPED, BACKOFF, FATAL", max_length=16)] = ""
    reason: Annotated[str, describe("what is known", max_length=300)] = ""


class ProcessStalled(Event, frozen=True):
    """A process gives no sign of life, or no new frames while it should."""

    program: Annotated[str, describe("supervisord's name", max_length=64)]
    silent_s: Annotated[float, describe("since its last sign of life", unit="s", ge=0)] = 0.0
    reason: Annotated[str, describe("what is missing", max_length=300)] = ""


class DiskLow(Event, frozen=True):
    """Free space fell below half of the reserve that retention keeps: somebody else fills the disk."""

    path: Path
    free_bytes: Annotated[int, describe("free space", unit="B", ge=0)] = 0
    need_bytes: Annotated[int, describe("the reserve", unit="B", ge=0)] = 0


class Deleted(Event, frozen=True, kw_only=True):
    """A saved file was deleted, by a command or to make room."""

    row: Annotated[int, describe("its number in the library")] = 0
    camera: Camera = ""
    path: Path
    kind: Annotated[str, describe("picture, clip, session …", max_length=32)] = ""
    trigger: Annotated[str, describe("what had caused the file: manual, motion, rolling …", max_length=32)] = ""
    bytes: Annotated[int, describe("its size", unit="B", ge=0)] = 0
    reason: Annotated[str, describe("command, limit, count or free space", max_length=32)] = ""


class Uploaded(Event, frozen=True, kw_only=True):
    """A copy of a saved file lies elsewhere, and its checksum was compared."""

    row: Annotated[int, describe("its number in the library")] = 0
    camera: Camera = ""
    path: Path
    kind: Annotated[str, describe("picture, clip, session …", max_length=32)] = ""
    trigger: Annotated[str, describe("what had caused the file: manual, motion, rolling …", max_length=32)] = ""
    bytes: Annotated[int, describe("its size", unit="B", ge=0)] = 0
    to: Annotated[str, describe("the place, such as nas:shmcam", max_length=500)] = ""


class MemoryHigh(Event, frozen=True):
    """Memory or swap passed a limit."""

    program: Annotated[str, describe("supervisord's name; empty: the whole machine", max_length=64)] = ""
    action: Annotated[str, describe("restart, slow, pause or resume", max_length=16)] = ""
    used: Annotated[float, describe("memory: MiB; swap: percent")] = 0.0
    limit: Annotated[float, describe("the limit it passed, same unit")] = 0.0


class Failed(Event, frozen=True):
    """Something went wrong that an owner should know."""

    what: Annotated[str, describe("one sentence", max_length=500)]
    program: Annotated[str, describe("who says so", max_length=64)] = ""
    camera: Camera = ""


class EventsLost(Event, frozen=True):
    """Events were dropped because the reader of the connection was too slow."""

    count: Annotated[int, describe("events dropped", ge=1)]


# ---- all of them by name


def _subclasses_of(base: type[MessageT]) -> dict[str, type[MessageT]]:
    """Returns every class below a base by wire name, in the order of this file."""
    by_name: dict[str, type[MessageT]] = {}
    for child in base.__subclasses__():
        by_name |= {wire_name(child): child, **_subclasses_of(child)}
    return by_name


EVENTS: dict[str, type[Event]] = _subclasses_of(Event)
"""Every event by wire name."""

MESSAGES: dict[str, type[Message]] = {
    **_subclasses_of(Command),
    **EVENTS,
    **{wire_name(one): one for one in (Reply, Chunk, ChunkFlow, Part)},
}
"""Every class whose wire name may stand under "message"."""

TOPIC_GROUPS: dict[str, tuple[str, ...]] = {
    "night": ("night_began", "night_ended", "mode_changed"),
    "motion": ("motion_began", "motion_ended"),
    "recording": ("recording_started", "recording_stopped", "clip_closed"),
    "clip": ("clip_closed",),
    "pictures": ("saved", "stack_saved", "archive_saved", "deleted"),
    "camera": ("camera_found", "camera_lost", "mode_changed"),
    "process": ("process_up", "process_down", "process_stalled"),
    "system": ("disk_low", "memory_high", "failed"),
    "all": tuple(sorted(set(EVENTS) - {"hello", "heartbeat", "preview_frame", "mode_requested"})),
}
"""Words for several events at once; "all" leaves out the events that come many times a second."""


RETAINED: dict[str, str] = {
    "mode_requested": "mode_requested",
    "mode_changed": "mode",
    "camera_found": "camera",
    "camera_lost": "camera",
    "night_began": "night",
    "night_ended": "night",
    "motion_began": "motion",
    "motion_ended": "motion",
    "recording_started": "recording",
    "recording_stopped": "recording",
}
"""The events that describe a state, with their kind: each holds until the next of its kind and camera.

The hub keeps the latest of each; a process that reconnects sends its own once more.
"""


def topics_of(words: tuple[str, ...]) -> frozenset[str]:
    """Returns the event names that topic words stand for; no words: all. Raises: ValueError with an unknown word."""
    topics: set[str] = set()
    for word in words or ("all",):
        if word not in TOPIC_GROUPS and word not in EVENTS:
            raise ValueError(f"no topic {word[:40]!r}; topics: {', '.join([*TOPIC_GROUPS, *sorted(EVENTS)])}")
        topics.update(TOPIC_GROUPS.get(word, (word,)))
    return frozenset(topics)
