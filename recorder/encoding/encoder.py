"""One H.264 encoder: frames in, access units with their frame's number and time out.

Presentation times are the sensor's, in microseconds, so a variable rate is kept as it was. Parameter sets stand in
front of every key frame ("repeat headers"), so that a file, a live viewer or a decoder can begin at any of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from recorder.clips.clip import ClipOrder
from recorder.encoding.frames import EncoderInput
from recorder.errors import EncoderFailed, EncoderUnavailable
from recorder.settings import RecorderSettings
from shm_ring import FrameMeta
from shmcam.video.color_tags import tag_colors

TIME_BASE = Fraction(1, 1_000_000)

MAX_GOP_FRAMES = 100_000
"""Key frames are forced by time, not by count; this only has to be longer than any group."""

DEVICES = "video*"
"""In /dev, where FFmpeg looks for a V4L2 encoder (libavcodec/v4l2_m2m.c)."""

SAME_SYNTAX = "weightp=0:cabac=1:8x8dct=1:bframes=0:ref=1"
"""Makes all presets write the same parameter sets, so that a file goes on when the preset changes under load."""


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One encoded frame."""

    packet: av.Packet[av.VideoStream]
    """Annex B; begins with SPS and PPS when it is a key frame. Times in TIME_BASE."""
    row: FrameMeta
    order: ClipOrder | None
    """The clip it belongs to; None: only for live viewers."""
    key: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What an encoder is opened with."""

    codec: str
    picture: EncoderInput
    fps: float
    """Nominal rate; only rate control and the level look at it."""
    preset: str
    crf: int
    bitrate: int
    """Bits per second; 0: by crf (libx264) or by size and rate (hardware)."""
    threads: int


def plan(settings: RecorderSettings, codec: str, picture: EncoderInput, fps: float, cores: int) -> Plan:
    """Turn the user's keys into a plan; at most 4 threads by default, because each costs frame buffers."""
    threads = settings.threads or min(4, cores)
    bitrate = settings.bitrate
    if codec != "libx264" and not bitrate:
        bitrate = hardware_bitrate(picture, fps)
    return Plan(codec, picture, fps, settings.preset, settings.crf, bitrate, threads)


def hardware_bitrate(picture: EncoderInput, fps: float) -> int:
    """10 Mbit/s at 1080p30, linear in pixels a second (picamera2's quality "high" is in this range)."""
    return max(500_000, int(10_000_000 * picture.width * picture.height * fps / (1920 * 1080 * 30)))


class Encoder:
    """An open encoder. Not thread safe; `encode` gives the GIL back while it works."""

    def __init__(self, plan: Plan) -> None:
        """Open it. Raises: EncoderUnavailable."""
        self.plan = plan
        self._waiting: deque[tuple[int, FrameMeta, ClipOrder | None]] = deque()
        """Time and what belongs to it, of the frames inside."""
        self._torn: set[int] = set()
        """Frame ids inside of which nothing is wanted any more."""
        self._last_pts = -1
        try:
            self._context = _open(plan)
        except (av.FFmpegError, ValueError) as error:
            what = f"{plan.picture.pixel_format} {plan.picture.width}x{plan.picture.height}"
            raise EncoderUnavailable(f"{plan.codec} does not open for {what}: {error}") from error

    def encode(self, frame: av.VideoFrame, *, row: FrameMeta, order: ClipOrder | None, key: bool) -> list[AccessUnit]:
        """Encode one frame. Returns: what has come out (hardware lags behind). Raises: EncoderFailed."""
        pts = max((row.captured_ns + 500) // 1000, self._last_pts + 1)
        self._last_pts = pts
        frame.pts, frame.time_base = pts, TIME_BASE
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._waiting.append((pts, row, order))
        return self._run(frame)

    def forget(self, frame_id: int) -> None:
        """If the newest frame inside is this one, throw away what becomes of it."""
        if self._waiting and self._waiting[-1][1].frame_id == frame_id:
            self._torn.add(frame_id)

    @property
    def holding(self) -> bool:
        """Whether frames went in that have not come out."""
        return bool(self._waiting)

    def drain(self) -> list[AccessUnit]:
        """End the stream. Returns: what was still inside. Raises: EncoderFailed."""
        return self._run(None)

    def _run(self, frame: av.VideoFrame | None) -> list[AccessUnit]:
        try:
            packets = self._context.encode(frame)
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(f"{self.plan.codec}: {error}") from error
        units = [self._unit(packet) for packet in packets]
        if not self._torn:
            return units
        shown = [unit for unit in units if unit.row.frame_id not in self._torn]
        self._torn -= {unit.row.frame_id for unit in units}
        return shown

    def _unit(self, packet: av.Packet[av.VideoStream]) -> AccessUnit:
        """Find the frame a packet belongs to: by time, since some encoders skip frames."""
        while self._waiting:
            pts, row, order = self._waiting.popleft()
            if pts == packet.pts:
                packet.time_base = TIME_BASE
                return AccessUnit(packet, row, order, packet.is_keyframe)
        raise EncoderFailed(f"{self.plan.codec}: packet with time {packet.pts} belongs to no frame")


def _open(plan: Plan) -> VideoCodecContext:
    if plan.codec == "h264_v4l2m2m" and not any(Path("/dev").glob(DEVICES)):
        raise ValueError(f"there is no /dev/{DEVICES}")
    context = cast(VideoCodecContext, CodecContext.create(plan.codec, "w"))
    picture = plan.picture
    context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.pixel_format
    context.time_base, context.framerate = TIME_BASE, Fraction(plan.fps).limit_denominator(1000)
    context.gop_size, context.max_b_frames = MAX_GOP_FRAMES, 0
    tag_colors(context, picture.color_space, picture.color_range)
    if plan.bitrate:
        context.bit_rate = plan.bitrate
    context.thread_count = plan.threads
    if plan.codec == "libx264":
        context.options = _x264_options(plan)
    context.open()
    return context


def _x264_options(plan: Plan) -> dict[str, str]:
    """Zero latency: no lookahead, no B-frames, slice threads; so frame n leaves before n + 1 enters."""
    options = {
        "preset": plan.preset,
        "tune": "zerolatency",
        "forced-idr": "1",
        "x264-params": SAME_SYNTAX + ":scenecut=0:log-level=error",
    }
    if plan.bitrate:
        return options | {"maxrate": str(plan.bitrate), "bufsize": str(plan.bitrate)}
    return options | {"crf": str(plan.crf)}
