"""The tables [recorder] and [recorder.overlay] of config.toml."""

from typing import Annotated, Literal

import msgspec

from shmcam.config.schema import Section, setting
from shmcam.config.settings import LABEL, LABEL_FORM

Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]


class OverlaySettings(Section, frozen=True):
    """[recorder.overlay]: text burnt into recordings (luma only, in a copy; the ring keeps the clean picture)."""

    enable: Annotated[bool, setting("burn text into recordings and live pictures", apply="live")] = False
    show_time: Annotated[bool, setting("wall clock of the frame, milliseconds", apply="live")] = True
    show_frame_number: Annotated[bool, setting("the frame id that file names and CSV use", apply="live")] = True
    show_fps: Annotated[bool, setting("frames per second, from sensor timestamps", apply="live")] = True
    text: Annotated[str, setting("one more line, e.g. the name of the place", apply="live", max_length=80)] = ""
    font_scale_base: Annotated[
        float,
        setting("size of letters for a picture 1080 rows high; smaller pictures scale it", gt=0, le=20, apply="live"),
    ] = 1.0
    thickness_base: Annotated[int, setting("stroke width at 1080 rows", unit="pixels", ge=1, le=40, apply="live")] = 2
    text_color: Annotated[
        tuple[Byte, Byte, Byte],
        setting("red, green, blue; drawn as its brightness, because only luma is touched", apply="live"),
    ] = (255, 255, 255)
    background: Annotated[
        bool, setting("dark box behind the text, so that it is legible on a bright sky", apply="live")
    ] = True
    place: Annotated[
        Literal["top-left", "top-right", "bottom-left", "bottom-right"],
        setting("corner that the text starts from", apply="live"),
    ] = "top-left"
    margin_left: Annotated[
        int, setting("distance from the picture's side", unit="pixels", ge=0, le=8192, apply="live")
    ] = 10
    line_start_y: Annotated[
        int,
        setting(
            "distance of the first line from the picture's top (or bottom)", unit="pixels", ge=0, le=8192, apply="live"
        ),
    ] = 10


class RecorderSettings(Section, frozen=True):
    """[recorder]."""

    auto_start: Annotated[bool, setting("record as soon as frames arrive, without a command")] = False
    mode: Annotated[
        Literal["session", "rolling", "event"],
        setting(
            "what auto_start and `record start` do: session = files in a session folder until stopped; rolling = clips"
            " of recording_duration_minutes, keeping rolling_clips_count; event = wait for events, then clip them"
        ),
    ] = "session"
    events: Annotated[
        tuple[Literal["motion", "night"], ...],
        setting("what starts an event clip besides the command (only in mode event and rolling)", apply="restart"),
    ] = ("motion",)
    session_prefix: Annotated[
        str,
        setting("first part of the name of a session's folder", pattern=rf"^{LABEL}$", form=LABEL_FORM, apply="live"),
    ] = "session"
    pre_roll_s: Annotated[
        float, setting("seconds before an event, taken from the ring", unit="s", ge=0, le=600, apply="live")
    ] = 5.0
    post_roll_s: Annotated[
        float, setting("seconds after an event has ended", unit="s", ge=0, le=3600, apply="live")
    ] = 10.0
    max_event_s: Annotated[
        float,
        setting("longest event clip, pre-roll included: an event that never ends is cut off", unit="s", ge=1, le=86400),
    ] = 600.0
    recording_duration_minutes: Annotated[
        float, setting("length of one rolling clip", unit="min", gt=0, le=1440, apply="live")
    ] = 5.0
    rolling_clips_count: Annotated[int, setting("rolling clips kept per camera", ge=1, le=100_000, apply="live")] = 12
    max_file_minutes: Annotated[
        float,
        setting(
            "one session file; the next one begins without a gap. An mp4 of whatever kind ends after 262144 frames"
            " (2.4 h at 30 a second), as its index is in memory until then; mkv, h264 and on_close = fragmented do not",
            unit="min",
            gt=0,
            le=1440,
        ),
    ] = 60.0
    container: Annotated[
        Literal["mp4", "h264", "mkv"],
        setting("mp4: exact times, plays after a power cut; mkv: times rounded to 1 ms; h264: the bare stream"),
    ] = "mp4"
    on_close: Annotated[
        Literal["faststart", "plain", "fragmented"],
        setting(
            "what an mp4 becomes when it is closed cleanly: faststart = index in front, by a copy without re-encoding"
            " if there is room (rolling clips stay plain); plain = index at the end, no copy; fragmented = as recorded"
        ),
    ] = "faststart"
    encoder: Annotated[
        Literal["auto", "h264_v4l2m2m", "libx264"],
        setting("auto: the hardware encoder if two test frames come out of it, else libx264"),
    ] = "auto"
    full_range: Annotated[
        bool,
        setting("keep the full range of cameras that have it (luma 0-255); QuickTime and some TVs refuse such H.264"),
    ] = False
    crf: Annotated[int, setting("libx264 quality when bitrate is 0; smaller is better", ge=0, le=51)] = 23
    bitrate: Annotated[
        int,
        setting(
            "bits per second; 0 = by quality (libx264) or by size and rate (hardware)",
            unit="bit/s",
            ge=0,
            le=1_000_000_000,
        ),
    ] = 0
    preset: Annotated[Preset, setting("libx264 speed: CPU against file size")] = "superfast"
    threads: Annotated[
        int,
        setting("encoder threads; 0 = one per core, at most 4, and one alone while it is quick enough", ge=0, le=16),
    ] = 0
    gop_s: Annotated[
        float, setting("a key frame at least this often; seeking and live joins", unit="s", gt=0, le=10)
    ] = 1.0
    fragment_s: Annotated[
        float,
        setting("what a power cut may cost: mp4 fragments of this length, each synced to disk", unit="s", ge=0.1, le=1),
    ] = 0.5
    csv: Annotated[bool, setting("a ..._frame_timing.csv beside each clip", apply="live")] = True
    live: Annotated[
        Literal["demand", "recording", "always"],
        setting("when packets go into the h264 ring: while someone watches or records, while recording, or always"),
    ] = "demand"
    live_seconds: Annotated[float, setting("depth of the h264 ring", unit="s", ge=2, le=60)] = 4.0
    disk_marker: Annotated[
        str,
        setting(
            "file that must exist in paths.recordings, else nothing is recorded: put it on the USB disk, so that the"
            " empty mount point of an absent disk is not filled; empty = no check",
            pattern=r"^[A-Za-z0-9._-]{0,64}$",
        ),
    ] = ""
    nice: Annotated[int, setting("nice levels above those of the service; below 0 only as root", ge=-20, le=19)] = 0
    overlay: OverlaySettings = msgspec.field(default_factory=OverlaySettings)

    def __post_init__(self) -> None:
        """Refuses combinations that contradict each other."""
        if self.max_event_s <= self.pre_roll_s:
            raise ValueError("max_event_s must be longer than pre_roll_s, which it includes")
        if self.encoder == "h264_v4l2m2m" and 0 < self.bitrate < 25_000:  # bcm2835-codec's lower limit
            raise ValueError("bitrate must be 0 or at least 25000 bit/s for encoder = 'h264_v4l2m2m'")


TABLES: dict[str, type[Section]] = {"recorder": RecorderSettings}
