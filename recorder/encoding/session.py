"""Encodes borrowed frames: opens the encoder, keeps it, and replaces it when it fails or the picture changes.

A StreamSignature holds what has to stay the same within one file. PresetControl selects libx264's preset: the user's,
or the fastest one while too many frames wait. ThreadControl selects its threads: one, while that is quick enough.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from typing import cast

import av
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from recorder.clips.clip import ClipOrder, Track
from recorder.encoding.av_frames import EncoderInput, Wrapper, encoder_input_of
from recorder.encoding.encoder import FASTEST, TIME_BASE, AccessUnit, Encoder
from recorder.encoding.select import SOFTWARE, open_encoder
from recorder.errors import EncoderFailed, EncoderUnavailable
from recorder.settings import Preset, RecorderSettings
from recorder.upscaled_preroll import EnlargedFrame
from shm_ring import Flags, Frame, FrameMeta
from shm_ring.formats import Geometry
from shm_ring.records.packets import parameter_sets
from shmcam.imaging.text_overlay import Overlay

log = logging.getLogger(__name__)

OTHER_RATE = 2.0
"""A frame period that differs by this factor is another mode: 30 fps by day, 0.5 fps at night."""
NEW_NAME_RATE = 1.1
"""A clip is named by the rate of its first frames where that differs by this factor from the one before: the camera
told another rate than it delivers, or it exposes longer at dusk."""
NIGHT = int(Flags.NIGHT)
"""A plain number: it is tested on every frame."""


class StreamSignature(Struct, frozen=True):
    """The properties of a video stream that must stay the same within one file."""

    input: EncoderInput
    night: bool
    period_us: int

    def fits(self, encoder_input: EncoderInput, meta: FrameMeta) -> bool:
        """Tells whether a frame, whose expected time to the next is known, fits into the same file."""
        period_us = meta.frame_duration_us
        return (
            encoder_input == self.input
            and bool(meta.flags & NIGHT) == self.night
            and self.period_us <= OTHER_RATE * period_us
            and period_us <= OTHER_RATE * self.period_us
        )


def signature_of(encoder_input: EncoderInput, meta: FrameMeta) -> StreamSignature:
    """Returns the signature of one frame, whose expected time to the next is known."""
    return StreamSignature(encoder_input, bool(meta.flags & NIGHT), meta.frame_duration_us)


BEHIND, CAUGHT_UP = 0.5, 0.1
"""Shares of the ring: with more frames waiting the fastest preset is used, with fewer the user's again."""
LAGS = 15
"""Frames over which the lag is compared, to see that it shrinks."""


class PresetControl:
    """Selects the preset by how many frames wait; pure."""

    def __init__(self, preset: Preset) -> None:
        self.preset: Preset = preset
        """The preset to use now."""
        self._lags: deque[int] = deque(maxlen=LAGS)

    def update(self, lag: int, slots: int, user_preset: Preset) -> None:
        """Notes how many frames wait in a ring of `slots`."""
        self._lags.append(lag)
        if lag > BEHIND * slots and lag >= self._lags[0] and len(self._lags) == LAGS:
            self.preset = FASTEST  # a backlog (pre-roll) that shrinks needs no help
        elif lag < CAUGHT_UP * slots:
            self.preset = user_preset


ENOUGH, TOO_MUCH = 0.5, 0.75
"""Shares of the time between two frames: one thread may need the first, and is not enough beyond the second."""
SMOOTHING = 1 / LAGS


class ThreadControl:
    """Selects whether libx264 encodes in one thread; pure.

    With two of them each frame is two slices, which cost nine more wake-ups, a twentieth more CPU and a tenth more
    bytes. A backlog and a slow machine need them all the same.
    """

    def __init__(self) -> None:
        self._alone_s = math.inf
        """Smoothed time of one frame in one thread."""

    def note(self, cpu_s: float, wall_s: float) -> None:
        """Notes the CPU time of all threads in which a frame was encoded, and how long that took.

        It takes longer than its CPU time where others want the cores: two threads get a larger share of them.
        """
        alone_s = max(cpu_s, wall_s)
        before_s = alone_s if math.isinf(self._alone_s) else self._alone_s
        self._alone_s = before_s + (alone_s - before_s) * SMOOTHING

    def is_one_enough(self, period_s: float, lag: int, *, is_single: bool) -> bool:
        """Tells it for the next group of pictures; `lag`: frames that wait."""
        return lag < LAGS and self._alone_s < (TOO_MUCH if is_single else ENOUGH) * period_s


DEFAULT_PERIOD_US = 33_333
"""Assumed until camera or timestamps tell."""


class EncoderSession:
    """One camera's encoder through all changes."""

    def __init__(self, settings: RecorderSettings, overlay: Overlay | None = None) -> None:
        self.settings = settings
        self.track: Track | None = None
        """The track of the units that came out last."""
        self.epoch = 0
        """Counts openings of the encoder after which a decoder must begin anew."""
        self.failures = 0
        """Encoders that had to be given up."""
        self.codec = ""
        self._overlay = overlay
        self._failed: frozenset[str] = frozenset()
        self._signature: StreamSignature | None = None
        self._signatures = 0
        """Counts changes of the signature."""
        self._geometry: Geometry | None = None
        self._wrapper: Wrapper | None = None
        self._encoder: Encoder | None = None
        self._preset: Preset = settings.preset
        self._preset_control = PresetControl(settings.preset)
        self._thread_control = ThreadControl()
        self._is_single, self._lag = False, 0
        self._last_key_ns = self._last_ns = 0
        self._order_number = 0
        self._key_is_due = True

    def force_key(self) -> None:
        """Makes the next frame a key frame."""
        self._key_is_due = True

    def set_overlay(self, overlay: Overlay | None) -> None:
        """Draws on the frames from now on, or no longer."""
        self._overlay, self._geometry = overlay, None

    def encode(self, frame: Frame | EnlargedFrame, meta: FrameMeta, order: ClipOrder | None) -> list[AccessUnit]:
        """Encodes one borrowed frame. Returns: what came out, which with hardware encoders is of earlier frames.

        Raises: EncoderUnavailable (nothing can encode this), RingError (not a picture).
        """
        meta = self._with_period(meta)
        number = order.number if order else 0
        if number not in (0, self._order_number):
            self._follow_rate(meta.frame_duration_us)
        wrapper, signature = self._follow(frame.picture_geometry, meta)
        gop_over = meta.captured_ns - self._last_key_ns >= self.settings.gop_s * 1e9 - meta.frame_duration_us * 500
        if gop_over:
            self._select_threads()
        key = self._key_is_due or self._encoder is None or gop_over or number not in (0, self._order_number)
        video_frame = wrapper.wrap(frame.payload)
        if self._overlay is not None:
            self._overlay.draw(wrapper.luma_of(video_frame), meta)
        units = self._encode(signature, video_frame, meta, order, key)
        if key:
            self._last_key_ns, self._key_is_due = meta.captured_ns, False
        self._last_ns, self._order_number = meta.captured_ns, number
        return [self._complete(unit, signature) for unit in units]

    def drop_torn(self, torn: FrameMeta | None, units: list[AccessUnit]) -> list[AccessUnit]:
        """Drops a frame that was overwritten while it was encoded, and makes the next one a key frame.

        `torn` is None if that was noticed before. Returns: those of `units` that are of frames before.
        """
        self.force_key()
        if torn is None:
            return units
        if self._encoder is not None:
            self._encoder.discard(torn.frame_id)
        return [unit for unit in units if unit.meta.frame_id != torn.frame_id]

    def drain(self) -> list[AccessUnit]:
        """Closes the encoder; the next frame opens another. Returns: what it still held."""
        encoder, self._encoder = self._encoder, None
        self._is_single = False  # what comes next may be a pre-roll
        if encoder is None or self._signature is None or not encoder.has_frames:
            return []
        try:
            return [self._complete(unit, self._signature) for unit in encoder.drain()]
        except EncoderFailed as error:
            log.warning("encoder lost its last frames reason=%s", error)
            return []

    @property
    def has_frames(self) -> bool:
        """True if frames are inside the encoder."""
        return self._encoder is not None and self._encoder.has_frames

    @property
    def period_ns(self) -> int:
        """The expected time from one frame to the next."""
        return (self._signature.period_us if self._signature else DEFAULT_PERIOD_US) * 1000

    def needs_drain(self, frame: Frame | EnlargedFrame, meta: FrameMeta) -> bool:
        """Tells whether this frame needs another encoder while frames are inside the present one."""
        if self._signature is None or not self.has_frames:
            return False
        encoder_input = encoder_input_of(frame.picture_geometry, full_range=self.settings.full_range)
        return not self._signature.fits(encoder_input, self._with_period(meta))

    def adapt_preset(self, lag: int, slots: int) -> None:
        """Uses the fastest preset while too many frames wait; all presets write the same parameter sets."""
        self._lag = lag
        self._preset_control.update(lag, slots, self.settings.preset)
        preset = self._preset_control.preset
        if preset == self._preset or self.codec != SOFTWARE:
            return
        if self._last_ns - self._last_key_ns >= self.settings.gop_s * 0.5e9:  # changing costs a key frame
            log.warning("encoder preset %s -> %s because lag=%d of slots=%d", self._preset, preset, lag, slots)
            self._preset, self._encoder, self._is_single = preset, None, False

    # ---- inside

    def _select_threads(self) -> None:
        """Opens the encoder anew where another number of threads is better; the next frame is a key frame anyway.

        Its parameter sets are the same, so neither the file nor a viewer begins anew.
        """
        encoder = self._encoder
        if encoder is None or self._signature is None or encoder.plan.codec != SOFTWARE or self.settings.threads:
            return
        has_choice = self._is_single or encoder.plan.threads > 1
        is_single = self._thread_control.is_one_enough(self.period_ns / 1e9, self._lag, is_single=self._is_single)
        if has_choice and is_single != self._is_single:
            self._is_single = is_single
            try:
                self._open_encoder(self._signature, SOFTWARE)
            except EncoderUnavailable as error:  # the present one goes on
                log.warning("encoder stays in its %d threads reason=%s", encoder.plan.threads, error)

    def _with_period(self, meta: FrameMeta) -> FrameMeta:
        """Returns metadata in which the expected time to the next frame is known."""
        if meta.frame_duration_us > 0:
            return meta
        return meta._replace(frame_duration_us=self.period_ns // 1000)

    def _follow(self, geometry: Geometry, meta: FrameMeta) -> tuple[Wrapper, StreamSignature]:
        """Notices another mode, size or format; the encoder is opened anew then."""
        if geometry is not self._geometry or self._wrapper is None:  # the ring gives one object for the same bytes
            self._geometry = geometry
            editable, full_range = self._overlay is not None, self.settings.full_range
            self._wrapper = Wrapper(geometry, editable=editable, full_range=full_range)
        if self._signature is not None and self._signature.fits(self._wrapper.encoder_input, meta):
            return self._wrapper, self._signature
        signature = signature_of(self._wrapper.encoder_input, meta)
        log.info("picture is now %s night=%s period_us=%d", signature.input, signature.night, signature.period_us)
        self._signature, self._encoder = signature, None
        self._thread_control, self._is_single = ThreadControl(), False
        self._signatures += 1
        return self._wrapper, signature

    def _follow_rate(self, period_us: int) -> None:
        """Takes over the period with which a clip begins; no frame of another clip may be inside the encoder."""
        before = self._signature
        if before is not None and not self.has_frames:
            low, high = sorted((before.period_us, period_us))
            if high > NEW_NAME_RATE * low:
                self._signature = replace(before, period_us=period_us)

    def _encode(
        self, signature: StreamSignature, frame: av.VideoFrame, meta: FrameMeta, order: ClipOrder | None, key: bool
    ) -> list[AccessUnit]:
        """Encodes with the first encoder that works. Raises: EncoderUnavailable."""
        fresh = self._encoder is None
        while True:
            encoder = self._encoder
            if encoder is None:
                encoder = self._open_encoder(signature)
                self.epoch += 1
            began_s, wall_s = time.process_time(), time.perf_counter()
            try:
                units = encoder.encode(frame, meta=meta, order=order, key=key or fresh)
                self._thread_control.note(time.process_time() - began_s, time.perf_counter() - wall_s)
                return units
            except EncoderFailed as error:
                self.failures += 1
                self._encoder = None
                log.warning("encoder failed, opening another reason=%s", error)
                if encoder.plan.codec == SOFTWARE and fresh:
                    raise EncoderUnavailable(f"even a new encoder fails: {error}") from error
                if encoder.plan.codec != SOFTWARE:
                    self._failed |= {encoder.plan.codec}
                fresh = True

    def _open_encoder(self, signature: StreamSignature, codec: str = "") -> Encoder:
        """Opens an encoder; `codec`: this one, not that of the settings. Raises: EncoderUnavailable."""
        settings = msgspec.structs.replace(
            self.settings,
            encoder=codec or self.settings.encoder,
            threads=1 if self._is_single else self.settings.threads,
        )
        fps = 1e6 / signature.period_us
        self._encoder = open_encoder(settings, signature.input, fps, failed=self._failed, preset=self._preset)
        self.codec = self._encoder.plan.codec
        return self._encoder

    def _complete(self, unit: AccessUnit, signature: StreamSignature) -> AccessUnit:
        """Notes the track of a unit, and puts parameter sets in front of key frames that lack them.

        Some encoders send parameter sets only once.
        """
        if not unit.is_key:
            return unit
        data = bytes(unit.packet)
        sets = parameter_sets(data)
        if not sets and self.track is not None:
            sets = self.track.parameter_sets
            packet = cast("av.Packet[av.VideoStream]", av.Packet(sets + data))
            packet.pts = packet.dts = unit.packet.pts
            packet.time_base, packet.is_keyframe = TIME_BASE, True
            unit = replace(unit, packet=packet)
        width, height = signature.input.width, signature.input.height
        rate, aspect = 1e6 / signature.period_us, signature.input.sample_aspect
        self.track = Track(width, height, rate, sets, self._signatures, aspect)
        return unit
