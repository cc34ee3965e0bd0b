"""One H.264 encoder: frames go in, access units with their frame's metadata and time come out.

Presentation times are the sensor's, in microseconds, so a variable rate is kept as it was. Parameter sets stand in
front of every key frame ("repeat headers"), so that a file, a live viewer or a decoder can begin at any of them.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from msgspec import Struct

from recorder.clips.clip import ClipOrder
from recorder.encoding.av_frames import EncoderInput
from recorder.errors import EncoderFailed, EncoderUnavailable
from recorder.settings import Preset, RecorderSettings
from shm_ring import FrameMeta
from shmcam.video.color_tags import tag_colors

TIME_BASE = Fraction(1, 1_000_000)

MAX_GOP_FRAMES = 100_000
"""Key frames are forced by time, not by count; this only has to be longer than any group."""

DEVICES = "video*"
"""In /dev, where FFmpeg looks for a V4L2 encoder (libavcodec/v4l2_m2m.c)."""

FASTEST: Preset = "ultrafast"
"""The preset that takes over from the user's under load."""

SAME_SYNTAX = "weightp=0:cabac=1:8x8dct=1:bframes=0:ref=1:"
"""Makes all presets write the same parameter sets, so that a file goes on when the preset changes under load."""


class AccessUnit(Struct, frozen=True):
    """One encoded frame."""

    packet: av.Packet[av.VideoStream]
    """Annex B; begins with SPS and PPS when it is a key frame. Times in TIME_BASE."""
    meta: FrameMeta
    order: ClipOrder | None
    """The clip it belongs to; None: it is for live viewers only."""
    is_key: bool


class EncoderPlan(Struct, frozen=True):
    """The parameters that an encoder is opened with."""

    codec: str
    input: EncoderInput
    fps: float
    """Nominal rate; only rate control and the level depend on it."""
    preset: str
    crf: int
    bitrate: int
    """Bits per second; 0: by crf (libx264) or by size and rate (hardware)."""
    threads: int
    keeps_syntax: bool
    """Another preset may take over within the file."""


def plan_encoder(
    settings: RecorderSettings,
    codec: str,
    encoder_input: EncoderInput,
    fps: float,
    cores: int,
    *,
    preset: Preset | None = None,
) -> EncoderPlan:
    """Turns the user's keys into a plan; at most 4 threads by default, because each costs frame buffers.

    `preset`: the one to use now, if it is not the user's.
    """
    threads = settings.threads or min(4, cores)
    bitrate = settings.bitrate
    if codec != "libx264" and not bitrate:
        bitrate = hardware_bitrate_of(encoder_input, fps)
    keeps_syntax = settings.preset != FASTEST
    preset = preset or settings.preset
    return EncoderPlan(codec, encoder_input, fps, preset, settings.crf, bitrate, threads, keeps_syntax)


def hardware_bitrate_of(encoder_input: EncoderInput, fps: float) -> int:
    """Returns 10 Mbit/s at 1080p30, linear in pixels a second (picamera2's quality "high" is in this range)."""
    return max(500_000, int(10_000_000 * encoder_input.width * encoder_input.height * fps / (1920 * 1080 * 30)))


class Encoder:
    """An open encoder. Not thread safe; `encode` releases the GIL while it works."""

    def __init__(self, plan: EncoderPlan) -> None:
        """Opens it. Raises: EncoderUnavailable."""
        self.plan = plan
        self._frames: deque[tuple[int, FrameMeta, ClipOrder | None]] = deque()
        """The frames inside: time, metadata, and the clip each belongs to."""
        self._torn: set[int] = set()
        """Ids of the frames inside that must not come out."""
        self._last_pts = -1
        try:
            self._context = _open_context(plan)
        except (av.FFmpegError, ValueError) as error:
            what = f"{plan.input.pixel_format} {plan.input.width}x{plan.input.height}"
            raise EncoderUnavailable(f"{plan.codec} does not open for {what}: {error}") from error

    def encode(self, frame: av.VideoFrame, *, meta: FrameMeta, order: ClipOrder | None, key: bool) -> list[AccessUnit]:
        """Encodes one frame. Returns: what has come out (hardware lags behind). Raises: EncoderFailed."""
        pts = max((meta.captured_ns + 500) // 1000, self._last_pts + 1)
        self._last_pts = pts
        frame.pts, frame.time_base = pts, TIME_BASE
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._frames.append((pts, meta, order))
        return self._encode(frame)

    def discard(self, frame_id: int) -> None:
        """Drops what becomes of the newest frame inside, if it is this one."""
        if self._frames and self._frames[-1][1].frame_id == frame_id:
            self._torn.add(frame_id)

    @property
    def has_frames(self) -> bool:
        """True if frames went in that have not come out."""
        return bool(self._frames)

    def drain(self) -> list[AccessUnit]:
        """Ends the stream. Returns: what was still inside. Raises: EncoderFailed."""
        return self._encode(None)

    def _encode(self, frame: av.VideoFrame | None) -> list[AccessUnit]:
        try:
            packets = self._context.encode(frame)
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(f"{self.plan.codec}: {error}") from error
        units = [self._unit_of(packet) for packet in packets]
        if not self._torn:
            return units
        intact = [unit for unit in units if unit.meta.frame_id not in self._torn]
        self._torn -= {unit.meta.frame_id for unit in units}
        return intact

    def _unit_of(self, packet: av.Packet[av.VideoStream]) -> AccessUnit:
        """Finds the frame of a packet: by time, since some encoders skip frames."""
        while self._frames:
            pts, meta, order = self._frames.popleft()
            if pts == packet.pts:
                packet.time_base = TIME_BASE
                return AccessUnit(packet, meta, order, packet.is_keyframe)
        raise EncoderFailed(f"{self.plan.codec}: packet with time {packet.pts} belongs to no frame")


def _open_context(plan: EncoderPlan) -> VideoCodecContext:
    if plan.codec == "h264_v4l2m2m" and not any(Path("/dev").glob(DEVICES)):
        raise ValueError(f"there is no /dev/{DEVICES}")
    context = cast(VideoCodecContext, CodecContext.create(plan.codec, "w"))
    context.width, context.height, context.pix_fmt = plan.input.width, plan.input.height, plan.input.pixel_format
    context.time_base, context.framerate = TIME_BASE, Fraction(plan.fps).limit_denominator(1000)
    context.gop_size, context.max_b_frames = MAX_GOP_FRAMES, 0
    tag_colors(context, plan.input.color_space, plan.input.color_range)
    context.sample_aspect_ratio = Fraction(*plan.input.sample_aspect)
    if plan.bitrate:
        context.bit_rate = plan.bitrate
    context.thread_count = plan.threads
    if plan.codec == "libx264":
        context.options = _x264_options_of(plan)
    context.open()
    return context


def _x264_options_of(plan: EncoderPlan) -> dict[str, str]:
    """Returns options for zero latency (no lookahead, no B-frames, slice threads): one frame leaves before the next."""
    options = {
        "preset": plan.preset,
        "tune": "zerolatency",
        "forced-idr": "1",
        "x264-params": (SAME_SYNTAX if plan.keeps_syntax else "") + "scenecut=0:log-level=error",
    }
    if plan.bitrate:
        return options | {"maxrate": str(plan.bitrate), "bufsize": str(plan.bitrate)}
    return options | {"crf": str(plan.crf)}
