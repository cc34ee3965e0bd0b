"""From a borrowed frame to access units: picks the encoder, keeps it, replaces it when it fails or falls behind.

What has to stay the same within one file.

Which preset libx264 uses: the user's, or the fastest while too many frames wait. Pure.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import cast

import av
import msgspec

from recorder.clips.clip import ClipOrder, Track
from recorder.encoding.encoder import TIME_BASE, AccessUnit, Encoder
from recorder.encoding.frames import EncoderInput, Wrapper, picture_of
from recorder.encoding.select import SOFTWARE, open_encoder
from recorder.errors import EncoderFailed, EncoderUnavailable
from recorder.settings import Preset, RecorderSettings
from shm_ring import Flags, Frame, FrameMeta
from shm_ring.formats import Geometry
from shm_ring.records.packets import parameter_sets
from shmcam.imaging.text_overlay import Overlay

OTHER_RATE = 2.0
"""A frame period that differs by this factor is another mode: 30 fps by day, 0.5 fps at night."""
NIGHT = int(Flags.NIGHT)
"""A plain number: this is asked for every frame."""


@dataclass(frozen=True, slots=True)
class StreamSignature:
    """What must stay the same within one file."""

    picture: EncoderInput
    night: bool
    period_us: int

    def goes_on(self, picture: EncoderInput, meta: FrameMeta) -> bool:
        """Whether a frame, whose expected time to the next is known, fits into the same file."""
        period_us = meta.frame_duration_us
        return (
            picture == self.picture
            and bool(meta.flags & NIGHT) == self.night
            and self.period_us <= OTHER_RATE * period_us
            and period_us <= OTHER_RATE * self.period_us
        )


def mode_of(picture: EncoderInput, meta: FrameMeta) -> StreamSignature:
    """The mode of one frame, whose expected time to the next is known."""
    return StreamSignature(picture, bool(meta.flags & NIGHT), meta.frame_duration_us)


FASTEST: Preset = "ultrafast"
BEHIND, CAUGHT_UP = 0.5, 0.1
"""Shares of the ring: with more frames waiting the fastest preset is used, with fewer the user's again."""
LAGS = 15
"""Frames over which it is seen whether the lag shrinks."""


class PresetControl:
    """Sees how far the encoder is behind."""

    def __init__(self, preset: Preset) -> None:
        self.preset: Preset = preset
        """What should be used now."""
        self._lags: deque[int] = deque(maxlen=LAGS)

    def saw(self, lag: int, slots: int, own: Preset) -> None:
        """Note how many frames wait in a ring of `slots`; `own` is the user's preset."""
        self._lags.append(lag)
        if lag > BEHIND * slots and lag >= self._lags[0] and len(self._lags) == LAGS:
            self.preset = FASTEST  # a backlog (pre-roll) that shrinks needs no help
        elif lag < CAUGHT_UP * slots:
            self.preset = own


log = logging.getLogger(__name__)

DEFAULT_PERIOD_US = 33_333
"""Assumed until camera or timestamps tell."""


class EncoderSession:
    """One camera's encoder through all changes."""

    def __init__(self, settings: RecorderSettings, overlay: Overlay | None = None) -> None:
        self.settings = settings
        self.track: Track | None = None
        """What the units that `feed` returned last belong to."""
        self.epoch = 0
        """Counts openings of the encoder."""
        self.failures = 0
        """Encoders that had to be given up."""
        self.codec = ""
        self._overlay = overlay
        self._failed: frozenset[str] = frozenset()
        self._mode: StreamSignature | None = None
        self._modes = 0
        self._geometry: Geometry | None = None
        self._wrapper: Wrapper | None = None
        self._encoder: Encoder | None = None
        self._preset: Preset = settings.preset
        self._pace = PresetControl(settings.preset)
        self._last_key_ns = self._last_ns = 0
        self._order_number = 0
        self._key_due = True

    def force_key(self) -> None:
        """Make the next frame a key frame."""
        self._key_due = True

    def set_overlay(self, overlay: Overlay | None) -> None:
        """Draws on the frames from now on, or no longer."""
        self._overlay, self._geometry = overlay, None

    def feed(self, frame: Frame, meta: FrameMeta, order: ClipOrder | None) -> list[AccessUnit]:
        """Encode one borrowed frame. Returns: what came out, which with hardware encoders is of earlier frames.

        Raises: EncoderUnavailable (nothing can encode this), RingError (not a picture).
        """
        meta = self._with_period(meta)
        wrapper, mode = self._follow(frame.picture, meta)
        number = order.number if order else 0
        gop_over = meta.captured_ns - self._last_key_ns >= self.settings.gop_s * 1e9 - meta.frame_duration_us * 500
        key = self._key_due or self._encoder is None or gop_over or number not in (0, self._order_number)
        picture = wrapper.frame(frame.payload)
        if self._overlay is not None:
            self._overlay.draw(wrapper.luma(picture), meta)
        units = self._encode(mode, picture, meta, order, key)
        if key:
            self._last_key_ns, self._key_due = meta.captured_ns, False
        self._last_ns, self._order_number = meta.captured_ns, number
        return [self._named(unit, mode) for unit in units]

    def without(self, torn: FrameMeta | None, units: list[AccessUnit]) -> list[AccessUnit]:
        """A frame was overwritten while it was encoded: the next is a key frame, and nothing of this one is shown.

        `torn` is None if that was noticed before. Returns: those of `units` that are of frames before.
        """
        self.force_key()
        if torn is None:
            return units
        if self._encoder is not None:
            self._encoder.forget(torn.frame_id)
        return [unit for unit in units if unit.row.frame_id != torn.frame_id]

    def drain(self) -> list[AccessUnit]:
        """Get what the encoder still holds, and close it; the next frame opens another."""
        encoder, self._encoder = self._encoder, None
        if encoder is None or self._mode is None or not encoder.holding:
            return []
        try:
            return [self._named(unit, self._mode) for unit in encoder.drain()]
        except EncoderFailed as error:
            log.warning("encoder lost its last frames reason=%s", error)
            return []

    @property
    def holding(self) -> bool:
        """Whether frames are inside the encoder."""
        return self._encoder is not None and self._encoder.holding

    @property
    def period_ns(self) -> int:
        """Expected time from one frame to the next."""
        return (self._mode.period_us if self._mode else DEFAULT_PERIOD_US) * 1000

    def changes_with(self, frame: Frame, meta: FrameMeta) -> bool:
        """Whether this frame needs another encoder while frames are inside the one before: drain first."""
        if self._mode is None or not self.holding:
            return False
        return not self._mode.goes_on(picture_of(frame.picture), self._with_period(meta))

    def pace(self, lag: int, slots: int) -> None:
        """Use the fastest preset while too many frames wait; all presets write the same parameter sets."""
        self._pace.saw(lag, slots, self.settings.preset)
        wanted = self._pace.preset
        if wanted == self._preset or self.codec != SOFTWARE:
            return
        if self._last_ns - self._last_key_ns >= self.settings.gop_s * 0.5e9:  # changing costs a key frame
            log.warning("encoder preset %s -> %s because lag=%d of slots=%d", self._preset, wanted, lag, slots)
            self._preset, self._encoder = wanted, None

    # ---- inside

    def _with_period(self, meta: FrameMeta) -> FrameMeta:
        """Make sure that the expected time to the next frame is known."""
        if meta.frame_duration_us > 0:
            return meta
        return replace(meta, frame_duration_us=self.period_ns // 1000)

    def _follow(self, geometry: Geometry, meta: FrameMeta) -> tuple[Wrapper, StreamSignature]:
        """Notice another mode, size or format."""
        if geometry is not self._geometry or self._wrapper is None:  # the ring gives one object for the same bytes
            self._geometry = geometry
            self._wrapper = Wrapper(geometry, editable=self._overlay is not None)
        if self._mode is not None and self._mode.goes_on(self._wrapper.picture, meta):
            return self._wrapper, self._mode
        mode = mode_of(self._wrapper.picture, meta)
        log.info("picture is now %s night=%s period_us=%d", mode.picture, mode.night, mode.period_us)
        self._mode, self._encoder = mode, None
        self._modes += 1
        return self._wrapper, mode

    def _encode(
        self, mode: StreamSignature, picture: av.VideoFrame, meta: FrameMeta, order: ClipOrder | None, key: bool
    ) -> list[AccessUnit]:
        """Encode with whatever works. Raises: EncoderUnavailable."""
        fresh = self._encoder is None
        while True:
            encoder = self._encoder or self._open(mode)
            try:
                return encoder.encode(picture, row=meta, order=order, key=key or fresh)
            except EncoderFailed as error:
                self.failures += 1
                self._encoder = None
                log.warning("encoder failed, opening another reason=%s", error)
                if encoder.plan.codec == SOFTWARE and fresh:
                    raise EncoderUnavailable(f"even a new encoder fails: {error}") from error
                if encoder.plan.codec != SOFTWARE:
                    self._failed |= {encoder.plan.codec}
                fresh = True

    def _open(self, mode: StreamSignature) -> Encoder:
        settings = msgspec.structs.replace(self.settings, preset=self._preset)
        self._encoder = open_encoder(settings, mode.picture, 1e6 / mode.period_us, failed=self._failed)
        self.codec = self._encoder.plan.codec
        self.epoch += 1
        return self._encoder

    def _named(self, unit: AccessUnit, mode: StreamSignature) -> AccessUnit:
        """Know the track of a unit; key frames of encoders that send parameter sets only once get them in front."""
        if not unit.key:
            return unit
        data = bytes(unit.packet)
        sets = parameter_sets(data)
        if not sets and self.track is not None:
            sets = self.track.parameter_sets
            packet = cast("av.Packet[av.VideoStream]", av.Packet(sets + data))
            packet.pts = packet.dts = unit.packet.pts
            packet.time_base, packet.is_keyframe = TIME_BASE, True
            unit = replace(unit, packet=packet)
        self.track = Track(mode.picture.width, mode.picture.height, 1e6 / mode.period_us, sets, self._modes)
        return unit
