"""Selects the encoder: hardware if test frames prove it, else libx264. The log says which one, and why."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator

import av
import numpy as np

from recorder.encoding.av_frames import EncoderInput, view_plane
from recorder.encoding.encoder import AccessUnit, Encoder, EncoderPlan, plan_encoder
from recorder.errors import EncoderFailed, EncoderUnavailable
from recorder.settings import Preset, RecorderSettings
from shm_ring import FrameMeta

log = logging.getLogger(__name__)

HARDWARE = "h264_v4l2m2m"
SOFTWARE = "libx264"

PROOF_FRAMES = 8
"""bcm2835-codec gives its first packet after a few frames."""
PROOF_ERROR = 12.0
"""Mean luma error that a decoded test picture may have; a picture with shifted rows is far above 40."""

EncoderOpener = Callable[[EncoderPlan], Encoder]

_refusals: dict[tuple[EncoderOpener, EncoderPlan], tuple[float, str]] = {}
"""The encoders that did not work in this process: when and why. Another size may work; the same one is not tried at
every opening."""
MAX_REFUSALS = 32
"""A camera has a handful of sizes."""
RETRY_S = 600.0
"""A device that was busy, or memory that was short, may be free by then."""


def list_candidates(codec: str, failed: frozenset[str]) -> list[str]:
    """Returns the encoders in the order in which they are tried. `codec`: as in the settings, or auto."""
    order = [HARDWARE, SOFTWARE] if codec == "auto" else [codec, SOFTWARE]
    return [name for name in dict.fromkeys(order) if name not in failed]


def open_encoder(
    settings: RecorderSettings,
    encoder_input: EncoderInput,
    fps: float,
    *,
    failed: frozenset[str] = frozenset(),
    preset: Preset | None = None,
    opener: EncoderOpener = Encoder,
) -> Encoder:
    """Opens the best encoder that works for these frames. `failed` are not tried again; `preset`: see `plan_encoder`.

    Raises: EncoderUnavailable, with the reason of every candidate.
    """
    reasons = [f"failed before: {', '.join(sorted(failed))}"] if failed else []
    for name in list_candidates(settings.encoder, failed):
        plan = plan_encoder(settings, name, encoder_input, fps, len(os.sched_getaffinity(0)), preset=preset)
        try:
            encoder = opener(plan) if name == SOFTWARE else _open_and_prove(plan, opener)
        except (EncoderUnavailable, EncoderFailed) as error:
            reasons.append(str(error))
            continue
        log.info(
            "encoder opened codec=%s size=%dx%d fps=%.2f preset=%s crf=%d bitrate=%d threads=%d because=%s",
            *(name, encoder_input.width, encoder_input.height, fps),
            *(plan.preset, plan.crf, plan.bitrate, plan.threads),
            "; ".join(reasons) or "first choice",
        )
        return encoder
    raise EncoderUnavailable("; ".join(reasons))


def _open_and_prove(plan: EncoderPlan, opener: EncoderOpener) -> Encoder:
    """Opens an encoder after another one of its kind has encoded test frames.

    Raises: EncoderUnavailable, EncoderFailed; at once if it failed less than RETRY_S ago.
    """
    candidate, now_s = (opener, plan), time.monotonic()
    refused_s, reason = _refusals.get(candidate, (-RETRY_S, ""))
    if now_s - refused_s < RETRY_S:
        raise EncoderUnavailable(reason)
    try:
        prove(opener(plan))
        return opener(plan)
    except (EncoderUnavailable, EncoderFailed) as error:
        if len(_refusals) < MAX_REFUSALS or candidate in _refusals:
            _refusals[candidate] = now_s, str(error)
        raise


def prove(encoder: Encoder) -> None:
    """Encodes test frames and compares them with what a decoder makes of them.

    That the codec exists proves nothing: x86 builds of FFmpeg list h264_v4l2m2m too, and bcm2835-codec shears
    pictures whose rows it finds misaligned (raspberrypi/firmware#1608).
    Raises: EncoderFailed.
    """
    encoder_input = encoder.plan.input
    decoder = av.CodecContext.create("h264", "r")
    count = 0
    units = (unit for step in _encode_test_frames(encoder, encoder_input) for unit in step)
    for unit in units:
        for frame in decoder.decode(unit.packet):
            _compare(encoder.plan.codec, frame, encoder_input)
            count += 1
    for frame in decoder.decode(None):
        _compare(encoder.plan.codec, frame, encoder_input)
        count += 1
    if not count:
        raise EncoderFailed(f"{encoder.plan.codec}: no picture came out of {PROOF_FRAMES} test frames")


def _encode_test_frames(encoder: Encoder, encoder_input: EncoderInput) -> Iterator[list[AccessUnit]]:
    frame = _make_test_frame(encoder_input)
    for number in range(PROOF_FRAMES):
        meta = FrameMeta(number, number * 33_333_333, 0)
        yield encoder.encode(frame, meta=meta, order=None, key=number == 0)
    yield encoder.drain()


def _make_test_frame(encoder_input: EncoderInput) -> av.VideoFrame:
    """Draws a luma ramp across and stripes down: sheared rows or swapped planes change it everywhere."""
    frame = av.VideoFrame(encoder_input.width, encoder_input.height, encoder_input.pixel_format)
    for index in range(len(frame.planes)):
        view_plane(frame, index)[:] = 128
    view_plane(frame, 0)[: encoder_input.height, : encoder_input.width] = _pattern_of(encoder_input)
    return frame


def _pattern_of(encoder_input: EncoderInput) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    across = np.linspace(40, 200, encoder_input.width)[np.newaxis, :]
    down = np.where(np.arange(encoder_input.height) // 16 % 2, 20, -20)[:, np.newaxis]
    return (across + down).astype(np.uint8)


def _compare(codec: str, frame: av.VideoFrame, encoder_input: EncoderInput) -> None:
    width, height = encoder_input.width, encoder_input.height
    if (frame.width, frame.height) != (width, height):
        raise EncoderFailed(f"{codec}: made {frame.width}x{frame.height} of {width}x{height}")
    luma = view_plane(frame, 0)[:height, :width].astype(np.int16)
    error = float(np.abs(luma - _pattern_of(encoder_input).astype(np.int16)).mean())
    if error > PROOF_ERROR:
        raise EncoderFailed(f"{codec}: test picture came back wrong (mean error {error:.0f} of 255)")
