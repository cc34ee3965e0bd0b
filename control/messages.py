"""CONTRACT 2: every control message, and the table of commands, in one import.

Commands (imperative) are declared in `control.commands`, events (past tense) in `control.events`, what they are made of
in `control.wire`, and how commands are written and who answers them in `control.table`. On the wire a message is a map:
its wire name under "message", its fields beside it, and "id" where an answer is wanted.
"""

from __future__ import annotations

from control import commands, events
from control.commands import (
    Archive,
    Archives,
    Cameras,
    Clips,
    Delete,
    Detect,
    DumpConfig,
    Get,
    Health,
    Help,
    Keogram,
    Library,
    Logs,
    Night,
    NightLevel,
    OverwriteConfig,
    PastStack,
    Pictures,
    Ping,
    Preview,
    Protect,
    Quit,
    Record,
    Save,
    Set,
    ShortStream,
    Snapshot,
    Status,
    Subscribe,
    Timelapse,
    Unprotect,
    Unsubscribe,
    Version,
    Viewers,
    Watch,
)
from control.events import (
    ArchiveSaved,
    CameraFound,
    CameraLost,
    ClipClosed,
    DiskLow,
    EventsLost,
    Failed,
    Heartbeat,
    Hello,
    MemoryHigh,
    ModeChanged,
    ModeRequested,
    MotionBegan,
    MotionEnded,
    NightBegan,
    NightEnded,
    PreviewFrame,
    ProcessDown,
    ProcessStalled,
    ProcessUp,
    Progressed,
    RecordingStarted,
    RecordingStopped,
    Saved,
    SettingChanged,
    StackSaved,
)
from control.table import COMMANDS, CommandRow, find, suggestion
from control.wire import (
    CHUNK_BYTES_MAX,
    JSON,
    MESSAGE_BYTES_MAX,
    PROCESS_BYTES_MAX,
    Chunk,
    Command,
    Event,
    Message,
    Reply,
    build,
    error,
    values_of,
    wire_name,
)

__all__ = [
    "CHUNK_BYTES_MAX",
    "COMMANDS",
    "EVENTS",
    "JSON",
    "MESSAGES",
    "MESSAGE_BYTES_MAX",
    "PROCESS_BYTES_MAX",
    "RETAINED",
    "TOPIC_GROUPS",
    "Archive",
    "ArchiveSaved",
    "Archives",
    "CameraFound",
    "CameraLost",
    "Cameras",
    "Chunk",
    "ClipClosed",
    "Clips",
    "Command",
    "CommandRow",
    "Delete",
    "Detect",
    "DiskLow",
    "DumpConfig",
    "Event",
    "EventsLost",
    "Failed",
    "Get",
    "Health",
    "Heartbeat",
    "Hello",
    "Help",
    "Keogram",
    "Library",
    "Logs",
    "MemoryHigh",
    "Message",
    "ModeChanged",
    "ModeRequested",
    "MotionBegan",
    "MotionEnded",
    "Night",
    "NightBegan",
    "NightEnded",
    "NightLevel",
    "OverwriteConfig",
    "PastStack",
    "Pictures",
    "Ping",
    "Preview",
    "PreviewFrame",
    "ProcessDown",
    "ProcessStalled",
    "ProcessUp",
    "Progressed",
    "Protect",
    "Quit",
    "Record",
    "RecordingStarted",
    "RecordingStopped",
    "Reply",
    "Save",
    "Saved",
    "Set",
    "SettingChanged",
    "ShortStream",
    "Snapshot",
    "StackSaved",
    "Status",
    "Subscribe",
    "Timelapse",
    "Unprotect",
    "Unsubscribe",
    "Version",
    "Viewers",
    "Watch",
    "build",
    "error",
    "find",
    "suggestion",
    "topics_of",
    "values_of",
    "wire_name",
]  # fmt: skip

EVENTS: dict[str, type[Event]] = {
    wire_name(value): value
    for value in vars(events).values()
    if isinstance(value, type) and issubclass(value, Event) and value is not Event
}
"""Every event by wire name."""

MESSAGES: dict[str, type[Message]] = {
    **{row.name: row.message for row in COMMANDS},
    **EVENTS,
    "reply": Reply,
    "chunk": Chunk,
}
"""Everything that may stand under "message"."""

TOPIC_GROUPS: dict[str, tuple[str, ...]] = {
    "night": ("night_began", "night_ended", "mode_changed"),
    "motion": ("motion_began", "motion_ended"),
    "recording": ("recording_started", "recording_stopped", "clip_closed"),
    "clip": ("clip_closed",),
    "pictures": ("saved", "stack_saved", "archive_saved"),
    "camera": ("camera_found", "camera_lost", "mode_changed"),
    "process": ("process_up", "process_down", "process_stalled"),
    "system": ("disk_low", "memory_high", "failed"),
    "all": tuple(sorted(set(EVENTS) - {"hello", "heartbeat", "preview_frame", "mode_requested"})),
}
"""Words for several events at once; "all" leaves out what comes many times a second."""


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
"""Events that say how things are until the next of their kind: the hub keeps the latest per kind and camera, and a
process tells them again (marked "again", not passed on) when it reconnects."""


def topics_of(words: tuple[str, ...]) -> frozenset[str]:
    """Return the event names that topic words stand for; none: all. *Raises* ValueError naming an unknown one."""
    topics: set[str] = set()
    for word in words or ("all",):
        if word not in TOPIC_GROUPS and word not in EVENTS:
            raise ValueError(f"no topic {word[:40]!r}; topics: {', '.join([*TOPIC_GROUPS, *sorted(EVENTS)])}")
        topics.update(TOPIC_GROUPS.get(word, (word,)))
    return frozenset(topics)


if missing := {wire_name(v) for v in vars(commands).values() if isinstance(v, type) and issubclass(v, Command)} - {
    "command",
    *(row.name for row in COMMANDS),
}:
    raise AssertionError(f"commands without a row in COMMANDS: {sorted(missing)}")
