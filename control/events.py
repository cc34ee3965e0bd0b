"""Every event: what happened, told to whoever subscribed. Past tense; `at_utc` is added by the hub as it passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from control.wire import JSON, Camera, Event, said

CapturedNs = Annotated[int, said("sensor clock", unit="ns", ge=0)]
FrameId = Annotated[int, said("frame the event is about; -1: none", ge=-1)]
Path = Annotated[str, said("absolute path of the file", max_length=1024)]


@dataclass(frozen=True, kw_only=True)
class Hello(Event):
    """First message of a process: who it is and what it answers."""

    role: Annotated[str, said("program family, such as analyzer", pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    camera: Camera = ""
    pid: Annotated[int, said("process number", ge=0)] = 0
    program: Annotated[str, said("supervisord's name for it; empty: not under supervisord", max_length=64)] = ""
    commands: Annotated[tuple[str, ...], said("wire names of the commands it answers", max_length=64)] = ()
    subscribe: Annotated[tuple[str, ...], said("events it wants", max_length=64)] = ()


@dataclass(frozen=True, kw_only=True)
class Heartbeat(Event):
    """Sent once a second by a process whose loop turns."""

    role: Annotated[str, said("program family", max_length=32)]
    camera: Camera = ""
    pid: Annotated[int, said("process number", ge=0)] = 0
    state: Annotated[str, said("starting, running, waiting, paused, idle, recording …", max_length=32)] = "running"
    reason: Annotated[str, said("why it is not simply running; empty: nothing to say", max_length=300)] = ""
    fps: Annotated[float, said("frames handled a second; -1: does not handle frames", unit="1/s", ge=-1)] = -1.0
    lag: Annotated[int, said("frames behind the writer; -1: does not read frames", ge=-1)] = -1
    laps: Annotated[int, said("frames lost because the writer came round", ge=0)] = 0
    rss_bytes: Annotated[int, said("resident memory without shared memory", unit="B", ge=0)] = 0
    swap_bytes: Annotated[int, said("swapped out", unit="B", ge=0)] = 0
    lost: Annotated[int, said("messages this process could not send", ge=0)] = 0
    figures: Annotated[dict[str, JSON], said("whatever else the process counts", max_length=64)] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class SettingChanged(Event):
    """A live setting has a new value."""

    key: Annotated[str, said("such as night.dark_threshold", max_length=100)]
    old: Annotated[JSON, said("value before")] = None
    new: Annotated[JSON, said("value now")] = None
    camera: Camera = ""


@dataclass(frozen=True, kw_only=True)
class ModeRequested(Event):
    """The analyzer wants the camera in another mode; capture obeys."""

    camera: Camera
    mode: Annotated[str, said("video, still or slow_video", max_length=16)]
    exposure_us: Annotated[int, said("0: as configured", unit="µs", ge=0)] = 0
    gain: Annotated[float, said("0: as configured", ge=0)] = 0.0
    reason: Annotated[str, said("the numbers behind it", max_length=300)] = ""


@dataclass(frozen=True, kw_only=True)
class ModeChanged(Event):
    """The camera runs in another mode."""

    camera: Camera
    old: Annotated[str, said("mode before", max_length=16)]
    new: Annotated[str, said("mode now", max_length=16)]
    changes: Annotated[dict[str, JSON], said("control → [old, new]")] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NightBegan(Event):
    """It is night for this camera."""

    camera: Camera
    score: Annotated[float, said("dark score on the video-mode scale", unit="mean luma 0-255")] = 0.0
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0
    reason: Annotated[str, said("the numbers behind it", max_length=300)] = ""


@dataclass(frozen=True, kw_only=True)
class NightEnded(NightBegan):
    """It is day for this camera."""


@dataclass(frozen=True, kw_only=True)
class MotionBegan(Event):
    """Something moves."""

    camera: Camera
    score: Annotated[float, said("motion score")] = 0.0
    box: Annotated[tuple[int, ...], said("x, y, width, height; empty: unknown", unit="px", max_length=4)] = ()
    zone: Annotated[str, said("name of the zone; empty: anywhere", max_length=32)] = ""
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0


@dataclass(frozen=True, kw_only=True)
class MotionEnded(MotionBegan):
    """Nothing moves any more."""

    duration_s: Annotated[float, said("how long it moved", unit="s", ge=0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A picture is safely on disk."""

    camera: Camera
    path: Path
    kind: Annotated[str, said("picture, snapshot, auto, keogram, timelapse …", max_length=32)] = "picture"
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0


@dataclass(frozen=True, kw_only=True)
class StackSaved(Saved):
    """A stack of frames is safely on disk."""

    count: Annotated[int, said("frames in it", ge=0)] = 0
    first: FrameId = -1
    last: FrameId = -1


@dataclass(frozen=True, kw_only=True)
class ArchiveSaved(Event):
    """An archive is complete."""

    name: Annotated[str, said("its name", max_length=32)]
    path: Path
    files: Annotated[int, said("files in it", ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class Progressed(Event):
    """A long job came a step further."""

    task: Annotated[str, said("what", max_length=64)]
    done: Annotated[int, said("steps done", ge=0)]
    total: Annotated[int, said("steps in all; 0: unknown", ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class RecordingStarted(Event):
    """A recording runs."""

    camera: Camera
    path: Path
    trigger: Annotated[str, said("manual, auto, motion, night …", max_length=32)] = "manual"
    frame_id: FrameId = -1


@dataclass(frozen=True, kw_only=True)
class RecordingStopped(Event):
    """A recording ended."""

    camera: Camera
    path: Path
    frames: Annotated[int, said("frames in it", ge=0)] = 0
    drops: Annotated[int, said("frames missing", ge=0)] = 0
    reason: Annotated[str, said("why", max_length=300)] = ""


@dataclass(frozen=True, kw_only=True)
class ClipClosed(RecordingStopped):
    """A clip is complete, playable and in the library."""

    duration_s: Annotated[float, said("its length", unit="s", ge=0)] = 0.0
    bytes: Annotated[int, said("its size", unit="B", ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class PreviewFrame(Event):
    """A small picture for whoever switched previews on; dropped rather than queued."""

    camera: Camera
    jpeg: Annotated[bytes, said("JPEG, base64 in the JSON dialect", max_length=48 * 1024)]
    width: Annotated[int, said("", unit="px", ge=0)] = 0
    height: Annotated[int, said("", unit="px", ge=0)] = 0
    frame_id: FrameId = -1
    captured_ns: CapturedNs = 0


@dataclass(frozen=True, kw_only=True)
class CameraFound(Event):
    """A camera answers and delivers frames."""

    camera: Camera
    source: Annotated[str, said("picamera2, v4l2, file, url or synthetic", max_length=32)] = ""
    model: Annotated[str, said("sensor or device name", max_length=100)] = ""
    device_id: Annotated[str, said("libcamera id, device node, path or URL without secrets", max_length=300)] = ""
    modes: Annotated[list[JSON], said("sizes and rates it offers", max_length=64)] = field(default_factory=list)
    reason: Annotated[str, said("why this source", max_length=300)] = ""


@dataclass(frozen=True, kw_only=True)
class CameraLost(Event):
    """A camera does not answer any more; capture keeps trying."""

    camera: Camera
    reason: Annotated[str, said("what it said", max_length=300)] = ""


@dataclass(frozen=True, kw_only=True)
class ProcessUp(Event):
    """supervisord started a program and it stays up."""

    program: Annotated[str, said("supervisord's name", max_length=64)]
    pid: Annotated[int, said("process number", ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class ProcessDown(Event):
    """A program ended, was killed or was given up."""

    program: Annotated[str, said("supervisord's name", max_length=64)]
    state: Annotated[str, said("supervisord's state: EXITED, STOPPED, BACKOFF, FATAL", max_length=16)] = ""
    reason: Annotated[str, said("what is known", max_length=300)] = ""


@dataclass(frozen=True, kw_only=True)
class ProcessStalled(Event):
    """A process gives no sign of life, or no new frames while it should."""

    program: Annotated[str, said("supervisord's name", max_length=64)]
    silent_s: Annotated[float, said("since its last sign of life", unit="s", ge=0)] = 0.0
    reason: Annotated[str, said("what is missing", max_length=300)] = ""


@dataclass(frozen=True, kw_only=True)
class DiskLow(Event):
    """Free space fell below half of the reserve that retention keeps: somebody else fills the disk."""

    path: Path
    free_bytes: Annotated[int, said("free space", unit="B", ge=0)] = 0
    need_bytes: Annotated[int, said("the reserve", unit="B", ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class MemoryHigh(Event):
    """Memory or swap passed a limit."""

    program: Annotated[str, said("supervisord's name; empty: the whole machine", max_length=64)] = ""
    action: Annotated[str, said("restart, slow, pause or resume", max_length=16)] = ""
    used: Annotated[float, said("memory: MiB; swap: percent")] = 0.0
    limit: Annotated[float, said("the limit it passed, same unit")] = 0.0


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """Something went wrong that an owner should know."""

    what: Annotated[str, said("one sentence", max_length=500)]
    program: Annotated[str, said("who says so", max_length=64)] = ""
    camera: Camera = ""


@dataclass(frozen=True, kw_only=True)
class EventsLost(Event):
    """Events were dropped because the reader of the connection was too slow."""

    count: Annotated[int, said("events dropped", ge=1)]
