"""Which encoder is used: hardware if it proves itself on test frames, else libx264; the choice is logged with why."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator

import av
import numpy as np

from recorder.encoding.encoder import AccessUnit, Encoder, Plan, plan
from recorder.encoding.frames import EncoderInput, plane_view
from recorder.errors import EncoderFailed, EncoderUnavailable
from recorder.settings import RecorderSettings
from shm_ring import FrameMeta

log = logging.getLogger(__name__)

HARDWARE = "h264_v4l2m2m"
SOFTWARE = "libx264"

PROOF_FRAMES = 8
"""bcm2835-codec gives its first packet after a few frames."""
PROOF_ERROR = 12.0
"""Mean luma error that a decoded test picture may have; a picture with shifted rows is far above 40."""

Opener = Callable[[Plan], Encoder]

_refused: dict[tuple[Opener, Plan], tuple[float, str]] = {}
"""What did not work in this process, when and why: another size may, the same one is not tried at every opening."""
REFUSALS = 32
"""Remembered at most; a camera has a handful of sizes."""
AGAIN_S = 600.0
"""A device that was busy, or memory that was short, may be free by then."""


def candidates(wanted: str, failed: frozenset[str]) -> list[str]:
    """Encoders in the order in which they are tried."""
    order = [HARDWARE, SOFTWARE] if wanted == "auto" else [wanted, SOFTWARE]
    return [name for name in dict.fromkeys(order) if name not in failed]


def open_encoder(
    settings: RecorderSettings,
    picture: EncoderInput,
    fps: float,
    *,
    failed: frozenset[str] = frozenset(),
    opener: Opener = Encoder,
) -> Encoder:
    """Open the best encoder that works for these frames. `failed` are not tried again.

    Raises: EncoderUnavailable, with what every candidate said.
    """
    said = [f"failed before: {', '.join(sorted(failed))}"] if failed else []
    for name in candidates(settings.encoder, failed):
        wanted = plan(settings, name, picture, fps, len(os.sched_getaffinity(0)))
        try:
            encoder = opener(wanted) if name == SOFTWARE else _proven(wanted, opener)
        except (EncoderUnavailable, EncoderFailed) as error:
            said.append(str(error))
            continue
        reason = "; ".join(said) or "first choice"
        log.info(
            "encoder opened codec=%s size=%dx%d fps=%.2f preset=%s crf=%d bitrate=%d threads=%d because=%s",
            *(name, picture.width, picture.height, fps, wanted.preset, wanted.crf, wanted.bitrate, wanted.threads),
            reason,
        )
        return encoder
    raise EncoderUnavailable("; ".join(said))


def _proven(plan: Plan, opener: Opener) -> Encoder:
    """An encoder that has encoded test frames. Raises: EncoderUnavailable, EncoderFailed; the second time at once."""
    tried, now_s = (opener, plan), time.monotonic()
    refused_s, said = _refused.get(tried, (-AGAIN_S, ""))
    if now_s - refused_s < AGAIN_S:
        raise EncoderUnavailable(said)
    try:
        prove(opener(plan))
        return opener(plan)
    except (EncoderUnavailable, EncoderFailed) as error:
        if len(_refused) < REFUSALS or tried in _refused:
            _refused[tried] = now_s, str(error)
        raise


def prove(encoder: Encoder) -> None:
    """Encode test frames and look at what a decoder makes of them.

    That the codec exists proves nothing: x86 builds of FFmpeg list h264_v4l2m2m too, and bcm2835-codec shears
    pictures whose rows it finds misaligned (raspberrypi/firmware#1608).
    Raises: EncoderFailed.
    """
    picture = encoder.plan.picture
    decoder = av.CodecContext.create("h264", "r")
    shown = 0
    units = (unit for step in _encoded(encoder, picture) for unit in step)
    for unit in units:
        for frame in decoder.decode(unit.packet):
            _compare(encoder.plan.codec, frame, picture)
            shown += 1
    for frame in decoder.decode(None):
        _compare(encoder.plan.codec, frame, picture)
        shown += 1
    if not shown:
        raise EncoderFailed(f"{encoder.plan.codec}: no picture came out of {PROOF_FRAMES} test frames")


def _encoded(encoder: Encoder, picture: EncoderInput) -> Iterator[list[AccessUnit]]:
    frame = _test_frame(picture)
    for number in range(PROOF_FRAMES):
        row = FrameMeta(number, number * 33_333_333, 0)
        yield encoder.encode(frame, row=row, order=None, key=number == 0)
    yield encoder.drain()


def _test_frame(picture: EncoderInput) -> av.VideoFrame:
    """A luma ramp across and stripes down: sheared rows or swapped planes change it everywhere."""
    frame = av.VideoFrame(picture.width, picture.height, picture.pixel_format)
    for index in range(len(frame.planes)):
        plane_view(frame, index)[:] = 128
    plane_view(frame, 0)[: picture.height, : picture.width] = _pattern(picture)
    return frame


def _pattern(picture: EncoderInput) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    across = np.linspace(40, 200, picture.width)[np.newaxis, :]
    down = np.where(np.arange(picture.height) // 16 % 2, 20, -20)[:, np.newaxis]
    return (across + down).astype(np.uint8)


def _compare(codec: str, frame: av.VideoFrame, picture: EncoderInput) -> None:
    if (frame.width, frame.height) != (picture.width, picture.height):
        raise EncoderFailed(f"{codec}: made {frame.width}x{frame.height} of {picture.width}x{picture.height}")
    shown = plane_view(frame, 0)[: picture.height, : picture.width].astype(np.int16)
    error = float(np.abs(shown - _pattern(picture).astype(np.int16)).mean())
    if error > PROOF_ERROR:
        raise EncoderFailed(f"{codec}: test picture came back wrong (mean error {error:.0f} of 255)")
