"""From the ring's planes to H.264 and back: same pixels, same times, whatever the layout, size or encoder."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from msgspec.structs import asdict
from msgspec.structs import replace as replace_settings

from recorder.clips.clip import ClipOrder
from recorder.encoding import select
from recorder.encoding.av_frames import EncoderInput, Wrapper, can_wrap, view_plane
from recorder.encoding.encoder import Encoder, EncoderPlan, plan_encoder
from recorder.encoding.select import list_candidates, open_encoder, prove
from recorder.encoding.session import EncoderSession, ThreadControl
from recorder.errors import EncoderFailed, EncoderUnavailable
from recorder.settings import OverlaySettings, RecorderSettings
from shm_ring import Flags, FrameMeta
from shm_ring.color import to_bgr
from shm_ring.formats import geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.imaging.text_overlay import overlay_of

SOFT = RecorderSettings(encoder="libx264", threads=1, crf=12)
ORDER = ClipOrder(1, "session", "manual", 0, 0)
LAYOUTS = [
    ("yuv420p", 640, 480, None),
    ("yuv420p", 640, 482, None),  # height % 4: from_numpy_buffer would compute 480
    ("yuv420p", 641, 361, None),
    ("yuv420p", 1296, 972, (1536, 768, 768)),  # libcamera's padded rows
    ("yuv420p", 320, 240, (384, 384, 384)),  # chroma rows that are not half a luma row
    ("nv12", 640, 480, None),
    ("nv12", 401, 301, None),
    ("bgr24", 640, 480, None),
    ("rgb24", 403, 301, None),
    ("gray", 640, 480, None),
    ("gray", 333, 77, None),
]


def picture(pixel_format, width, height, strides=None, number=7):
    """A payload with a smooth picture and a frame number, as a read-only array like the ring's."""
    shape = geometry(pixel_format, width, height, strides=strides)
    payload = np.full(shape.payload_bytes, 99, np.uint8)
    parts = planes(payload, shape)
    ramp = np.add.outer(np.linspace(30, 120, height), np.linspace(0, 80, width)).astype(np.uint8)
    parts[0][:] = ramp[..., None] if parts[0].ndim == 3 else ramp
    for index, part in enumerate(parts[1:]):
        part[:] = 110 + 30 * index
    frame_number_code.draw(parts[0], number)
    payload.flags.writeable = False
    return shape, payload


def decode(units):
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(unit.packet)]
    return frames + decoder.decode(None)


def bgr_of(frame):
    return frame.to_ndarray(format="bgr24", src_colorspace="smpte170m")


@pytest.mark.parametrize(("pixel_format", "width", "height", "strides"), LAYOUTS)
def test_what_comes_back_is_what_went_in(pixel_format, width, height, strides):
    shape, payload = picture(pixel_format, width, height, strides)
    wrapper = Wrapper(shape)
    encoder = open_encoder(SOFT, wrapper.encoder_input, 30.0)
    units = []
    for number in range(3):
        meta = FrameMeta(number, number * 33_333_000, 0)
        units += encoder.encode(wrapper.wrap(payload), meta=meta, order=None, key=number == 0)
    shown = decode(units)[-1]
    assert (shown.width, shown.height) == (width + width % 2, height + height % 2)
    got = bgr_of(shown)[:height, :width].astype(int)
    wanted = to_bgr(payload, shape).astype(int)
    assert np.abs(got - wanted)[24:].mean() < 4, "pixels differ"
    if width >= 320:
        assert frame_number_code.read(shown.to_ndarray(format="gray")[:height, :width]) == 7


def test_the_common_layouts_cost_no_copy_and_hold_no_memory():
    for pixel_format, width, height in (("yuv420p", 1280, 720), ("yuv420p", 1920, 1080), ("nv12", 1280, 720)):
        shape, payload = picture(pixel_format, width, height)
        wrapper = Wrapper(shape)
        assert can_wrap(shape) and not wrapper.copies
        frame = wrapper.wrap(payload)
        assert frame.planes[0].buffer_ptr == payload.ctypes.data
        before = sys.getrefcount(payload)
        encoder = open_encoder(SOFT, wrapper.encoder_input, 30.0)
        encoder.encode(frame, meta=FrameMeta(1, 1, 0), order=None, key=True)
        del frame
        gc.collect()
        assert sys.getrefcount(payload) < before, "the encoder lets go of the ring's memory"


def test_the_ring_may_overwrite_a_frame_as_soon_as_encode_has_returned():
    """Zero copy is only safe because libx264 keeps no pointer to its input."""
    shape, payload = picture("yuv420p", 640, 480)
    memory = payload.copy()
    wrapper = Wrapper(shape)
    encoder = open_encoder(SOFT, wrapper.encoder_input, 30.0)
    units = []
    for number in range(6):
        memory[:] = picture("yuv420p", 640, 480, number=number)[1]
        units += encoder.encode(
            wrapper.wrap(memory), meta=FrameMeta(number, number * 33_333_000, 0), order=None, key=not number
        )
        memory[:] = 255
    assert [frame_number_code.read(frame.to_ndarray(format="gray")) for frame in decode(units)] == list(range(6))


def test_times_are_the_sensors_whatever_the_rate():
    shape, payload = picture("yuv420p", 320, 240)
    wrapper = Wrapper(shape)
    encoder = open_encoder(SOFT, wrapper.encoder_input, 30.0)
    times = [
        10**15 + n for n in (0, 33_333_333, 66_666_667, 2_066_666_667, 4_066_000_000, 4_066_000_400, 9_999_999_999)
    ]
    units = []
    for number, captured_ns in enumerate(times):
        meta = FrameMeta(number, captured_ns, 0)
        units += encoder.encode(wrapper.wrap(payload), meta=meta, order=ORDER, key=not number)
    assert [unit.meta.frame_id for unit in units] == list(range(len(times)))
    assert all(abs(unit.packet.pts - meta_ns / 1000) <= 1 for unit, meta_ns in zip(units, times, strict=True))
    assert all(unit.packet.time_base == Fraction(1, 1_000_000) for unit in units)
    pts = [unit.packet.pts for unit in units]
    assert pts == sorted(set(pts)), "never twice the same"


class Stand:
    """A frame as `Encoding` borrows it."""

    def __init__(self, shape, payload):
        self.picture_geometry, self.payload = shape, payload


def metas(count, start=0, period_us=33_333, **more):
    return [
        FrameMeta(n, 10**12 + n * period_us * 1000, 0, frame_duration_us=period_us, **more) for n in range(start, count)
    ]


def test_key_frames_come_by_time_at_each_clip_and_when_forced():
    shape, payload = picture("yuv420p", 320, 240)
    encoding = EncoderSession(SOFT)
    keys = []
    for meta in metas(100):
        order = ORDER if meta.frame_id < 50 else ClipOrder(2, "session", "manual", 0, 0)
        if meta.frame_id == 70:
            encoding.force_key()
        keys += [unit.meta.frame_id for unit in encoding.encode(Stand(shape, payload), meta, order) if unit.is_key]
    assert keys == [0, 30, 50, 70]


def test_a_fast_camera_and_a_slow_one_have_a_key_frame_a_second_in_time():
    shape, payload = picture("yuv420p", 320, 240)
    for period_us, every in ((8_333, 120), (500_000, 2), (2_000_000, 1)):
        encoding = EncoderSession(SOFT)
        keys = [
            unit.meta.frame_id
            for meta in metas(every * 3, period_us=period_us)
            for unit in encoding.encode(Stand(shape, payload), meta, ORDER)
            if unit.is_key
        ]
        assert keys == [0, every, 2 * every]


def test_a_hardware_encoder_that_fails_later_is_replaced_and_no_frame_is_missing(monkeypatch):
    """Encoder errors fall back, not die; the frame that failed is encoded by the next one."""
    shape, payload = picture("yuv420p", 320, 240)

    class Hardware(Encoder):
        def __init__(self, plan):
            super().__init__(EncoderPlan(**{**{f: getattr(plan, f) for f in plan.__slots__}, "codec": "libx264"}))
            self.plan = plan
            self.seen = 0

        def encode(self, frame, **more):
            self.seen += 1
            if self.seen > 20 and self.plan.codec == select.HARDWARE:
                raise EncoderFailed("the firmware hung")
            return super().encode(frame, **more)

    opened = []

    def opener(settings, wanted, fps, **more):
        encoder = open_encoder(settings, wanted, fps, opener=Hardware, **more)
        opened.append(encoder.plan.codec)
        return encoder

    monkeypatch.setattr("recorder.encoding.session.open_encoder", opener)
    encoding = EncoderSession(RecorderSettings(threads=1))
    units = [unit for meta in metas(60) for unit in encoding.encode(Stand(shape, payload), meta, ORDER)]
    assert opened == [select.HARDWARE, select.SOFTWARE]
    assert [unit.meta.frame_id for unit in units] == list(range(60))
    assert len(decode(units)) == 60
    assert encoding.failures == 1 and encoding.codec == select.SOFTWARE


def test_hardware_has_to_prove_itself():
    """x86 builds of FFmpeg list h264_v4l2m2m too; libx264 is always there to fall back to."""
    assert list_candidates("auto", frozenset()) == ["h264_v4l2m2m", "libx264"]
    assert list_candidates("libx264", frozenset()) == ["libx264"]
    assert list_candidates("h264_v4l2m2m", frozenset({"h264_v4l2m2m"})) == ["libx264"]


def test_a_hardware_encoder_that_shears_the_picture_is_not_used(caplog):
    """bcm2835-codec with misaligned rows: a picture comes out, but the wrong one."""
    caplog.set_level("INFO")

    class Shearing(Encoder):
        def __init__(self, plan):
            self.real = plan.codec == "libx264"
            super().__init__(EncoderPlan(**{**{f: getattr(plan, f) for f in plan.__slots__}, "codec": "libx264"}))
            self.plan = plan

        def encode(self, frame, **more):
            if not self.real:
                luma = np.frombuffer(frame.planes[0], np.uint8)
                luma[:] = np.roll(luma, 5 * frame.planes[0].line_size // 2)
            return super().encode(frame, **more)

    encoder = open_encoder(
        RecorderSettings(threads=1), EncoderInput("yuv420p", 640, 480, "smpte170m", "pc"), 30.0, opener=Shearing
    )
    assert encoder.plan.codec == "libx264"
    assert "test picture came back wrong" in caplog.text


def test_hardware_that_is_not_there_or_does_not_work_is_not_tried_at_each_opening(caplog):
    """Each change between day and night tried it again; another size may work, and is."""
    caplog.set_level("INFO")
    tried = []

    def broken(wanted):
        tried.append((wanted.codec, wanted.input.width))
        if wanted.codec != select.SOFTWARE:
            raise EncoderUnavailable(f"{wanted.codec} is broken")
        return Encoder(wanted)

    for width in (320, 320, 640, 320):
        open_encoder(
            RecorderSettings(threads=1), EncoderInput("yuv420p", width, 240, "bt709", "pc"), 30.0, opener=broken
        )
    assert [width for codec, width in tried if codec == select.HARDWARE] == [320, 640]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4 and all(line.endswith("because=h264_v4l2m2m is broken") for line in lines), lines


def test_without_a_video_device_no_hardware_is_tried(monkeypatch, tmp_path):
    monkeypatch.setattr("recorder.encoding.encoder.DEVICES", "no-such-device*")
    monkeypatch.setattr("recorder.encoding.encoder.CodecContext.create", lambda *_: pytest.fail("tried"))
    with pytest.raises(EncoderUnavailable, match=r"h264_v4l2m2m does not open .*: there is no /dev/no-such-device"):
        Encoder(plan_encoder(SOFT, select.HARDWARE, EncoderInput("yuv420p", 320, 240, "bt709", "pc"), 30.0, 1))


def test_a_software_encoder_passes_the_proof():
    prove(open_encoder(SOFT, EncoderInput("nv12", 642, 362, "bt709", "tv"), 30.0))


def test_nothing_to_encode_with_is_said_with_every_reason():
    with pytest.raises(EncoderUnavailable, match="failed before: h264_v4l2m2m, libx264"):
        open_encoder(
            SOFT, EncoderInput("yuv420p", 640, 480, "bt709", "pc"), 30.0, failed=frozenset({"h264_v4l2m2m", "libx264"})
        )


def test_presets_change_under_load_without_a_new_file():
    """All presets write the same parameter sets, so the file goes on."""
    shape, payload = picture("yuv420p", 640, 480)
    encoding = EncoderSession(SOFT)
    tracks, units = set(), []
    for meta in metas(90):
        units += encoding.encode(Stand(shape, payload), meta, ORDER)
        encoding.adapt_preset(lag=40 if meta.frame_id < 45 else 0, slots=64)
        tracks.add(encoding.track)
    assert encoding.epoch >= 3, "to ultrafast and back"
    assert len(tracks) == 1
    assert [frame_number_code.read(frame.to_ndarray(format="gray")) for frame in decode(units)] == [7] * 90


@pytest.mark.parametrize(("preset", "profile_idc"), [("ultrafast", 66), ("superfast", 100)])
def test_only_a_preset_from_which_another_takes_over_writes_the_parameter_sets_of_all(preset, profile_idc):
    """CABAC and 8x8 transforms took a fifth of the CPU of ultrafast, and no preset takes over from it: Baseline."""
    shape, payload = picture("yuv420p", 640, 480)
    encoding = EncoderSession(replace_settings(SOFT, preset=preset))
    units = []
    for meta in metas(30):
        units += encoding.encode(Stand(shape, payload), meta, ORDER)
        encoding.adapt_preset(lag=60, slots=64)
    sps = encoding.track.parameter_sets.split(b"\0\0\1")[1]
    assert (sps[0] & 31, sps[1]) == (7, profile_idc)
    assert [frame_number_code.read(frame.to_ndarray(format="gray")) for frame in decode(units)] == [7] * 30


def test_one_thread_takes_over_where_it_is_quick_enough_and_the_file_goes_on(monkeypatch):
    """A second thread cost a twentieth of the encoder's CPU, a tenth of the file's size, and nine wake-ups a frame."""
    shape, payload = picture("yuv420p", 640, 480)
    clock = SimpleNamespace(now_s=0.0, step_s=0.001, process_time=lambda: 0.0, perf_counter=lambda: _advance(clock))
    monkeypatch.setattr("recorder.encoding.session.time", clock)
    monkeypatch.setattr("recorder.encoding.select.os.sched_getaffinity", lambda _pid: {0, 1})
    encoding = EncoderSession(replace_settings(SOFT, threads=0, gop_s=0.5))
    tracks, units, threads = set(), [], []
    for meta in metas(150):
        clock.step_s = 0.001 if meta.frame_id < 60 else 0.03
        units += encoding.encode(Stand(shape, payload), meta, ORDER)
        encoding.adapt_preset(lag=0, slots=64)
        tracks.add(encoding.track)
        threads.append(encoding._encoder.plan.threads)
    assert (threads[10], threads[40], threads[-1]) == (2, 1, 2)
    assert encoding.epoch == 1 and len(tracks) == 1, "neither viewers nor the file begin anew"
    assert [unit.meta.frame_id for unit in units if unit.is_key] == list(range(0, 150, 15)), "no further key frames"
    assert [frame_number_code.read(frame.to_ndarray(format="gray")) for frame in decode(units)] == [7] * 150


def _advance(clock):
    clock.now_s += clock.step_s
    return clock.now_s


def test_a_backlog_is_encoded_by_all_threads():
    control = ThreadControl()
    assert not control.is_one_enough(1 / 30, 0, is_single=False), "nothing is known yet"
    for _ in range(30):
        control.note(0.004, 0.003)
    assert control.is_one_enough(1 / 30, 0, is_single=False)
    assert not control.is_one_enough(1 / 30, 100, is_single=False)
    for _ in range(60):
        control.note(0.012, 0.020)
    assert not control.is_one_enough(1 / 30, 0, is_single=False)
    assert control.is_one_enough(1 / 30, 0, is_single=True), "20 ms of 33: it stays, lest it changes to and fro"


def test_another_mode_is_another_track():
    shape, payload = picture("yuv420p", 320, 240)
    encoding = EncoderSession(SOFT)
    tracks = []
    for meta in [*metas(3), *metas(6, 3, flags=int(Flags.NIGHT)), *metas(9, 6, 2_000_000)]:
        encoding.encode(Stand(shape, payload), meta, ORDER)
        tracks.append(encoding.track)
    assert len(set(tracks)) == 3
    assert [track.fps for track in tracks][::3] == pytest.approx([30, 30, 0.5], rel=0.01)


def test_the_overlay_is_drawn_on_a_copy_of_the_luma_only():
    shape, payload = picture("yuv420p", 640, 480)
    before = payload.copy()
    overlay = overlay_of(asdict(OverlaySettings(place="bottom-right", text="Garden", font_scale_base=2)))
    encoding = EncoderSession(SOFT, overlay)
    units = []
    for meta in metas(40):
        units += encoding.encode(Stand(shape, payload), meta, ORDER)
    assert (payload == before).all(), "the ring is never written"
    shown = decode(units)[-1].to_ndarray(format="yuv420p")
    plain = before[: 640 * 480].reshape(480, 640)
    changed = np.abs(shown[:480].astype(int) - plain) > 40
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 300 and rows.min() > 300 and columns.min() > 200, "bottom right"
    assert np.abs(shown[480:].astype(int).reshape(2, -1)[0].mean() - 110) < 3, "chroma is not touched"
    lines = overlay.format_lines(metas(41)[-1])
    assert lines[1] == "#40  30.0 fps" and lines[2] == "Garden" and lines[0][:3] in ("197", "196")


# ---- colours and shape of pixels


@pytest.mark.parametrize("kind", ["yuv420p", "nv12", "gray"])
@pytest.mark.parametrize("size", [(320, 240), (65, 51)])
def test_full_range_frames_become_limited_range_with_tags_that_say_so(kind, size):
    """QuickTime refuses H.264 of full range, and so do some TVs."""
    shape = replace(geometry(kind, *size, color_space="bt709", color_range="pc"), sample_aspect=(16, 11))
    payload = np.zeros(shape.payload_bytes, np.uint8)
    for plane, value in zip(planes(payload, shape), (255, 30, 220), strict=False):
        plane[:] = value
    wrapper = Wrapper(shape, full_range=False)
    encoder = Encoder(plan_encoder(RecorderSettings(threads=1, crf=1), "libx264", wrapper.encoder_input, 30.0, 1))
    units = encoder.encode(wrapper.wrap(payload), meta=FrameMeta(0, 10**9, 0), order=None, key=True) + encoder.drain()
    decoder = av.CodecContext.create("h264", "r")
    (frame, *_) = [frame for unit in units for frame in decoder.decode(unit.packet)] + decoder.decode(None)
    assert (int(frame.color_range), int(frame.colorspace), int(frame.color_primaries)) == (1, 1, 1)
    assert decoder.sample_aspect_ratio == Fraction(16, 11)
    seen = to_bgr(
        frame_payload(frame), geometry("yuv420p", frame.width, frame.height, color_space="bt709", color_range="tv")
    )
    wanted = to_bgr(payload, shape)
    assert np.abs(seen[: size[1], : size[0]].astype(int) - wanted).max() <= 3


def frame_payload(frame):
    return np.concatenate(
        [view_plane(frame, n)[: frame.height >> bool(n), : frame.width >> bool(n)].ravel() for n in range(3)]
    )
