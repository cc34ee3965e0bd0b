"""What goes in comes out: publish, loan, borrow, copy, selection by sequence and by time."""

import math

import numpy as np
import pytest

from shm_ring import Flags, FrameMeta, FrameOverwritten, RingError, RingMismatch, RingNotReady, RingReader, formats
from shm_ring.formats import geometry
from tests.shm_ring.frames import meta, pattern

SIZES = [(1, 1), (2, 2), (3, 5), (33, 17), (64, 48), (101, 7)]


@pytest.mark.parametrize("pixel_format", formats.PIXEL_FORMATS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_format_and_odd_size_comes_out_as_it_went_in(make_writer, ring_name, pixel_format, width, height):
    shape = geometry(pixel_format, width, height)
    picture = np.random.default_rng(1).integers(0, 255, shape.payload_bytes, np.uint8)
    with make_writer(payload_bytes=shape.payload_bytes) as writer, RingReader.open(ring_name) as reader:
        writer.publish(picture, meta(5), shape)
        with reader.borrow(0) as frame:
            assert frame.geometry == shape
            assert str(frame.meta) == str(meta(5))  # as text, because lux is nan
            assert (frame.payload == picture).all()
            for ours, theirs in zip(frame.planes, formats.planes(picture, shape), strict=True):
                assert (ours == theirs).all()
            assert frame.bgr.shape == (height, width, 3)
            assert frame.luma.shape == (height, width)
            del ours


def test_all_metadata_comes_out_as_it_went_in(make_writer, ring_name):
    told = FrameMeta(
        frame_id=2**40, captured_ns=3, captured_utc_ns=4, exposure_us=5, analogue_gain=6.1, digital_gain=7.2, lux=8.3,
        colour_temperature_k=9, frame_duration_us=10, flags=Flags.NIGHT | Flags.KEY, dropped_before=11,
        total_dropped=12,
    )  # fmt: skip
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        writer.publish(b"abc", told)
        assert reader.meta(0) == told
        assert Flags(reader.meta(0).flags) == Flags.NIGHT | Flags.KEY
        writer.publish(b"abc", FrameMeta(1, 2, 3))
        assert math.isnan(reader.meta(1).lux)


def test_payloads_shorter_than_the_slot_and_odd_lengths(make_writer, ring_name):
    with make_writer(payload_bytes=3333, slots=3) as writer, RingReader.open(ring_name) as reader:
        for number, length in enumerate((0, 1, 3, 1000, 3333)):
            writer.publish(pattern(number, length), meta(number))
            assert reader.copy(number).payload.tobytes() == pattern(number, length).tobytes()
            assert reader.copy(number).geometry is None


def test_a_payload_that_does_not_fit_is_refused_and_nothing_is_published(make_writer, ring_name):
    with make_writer(payload_bytes=100) as writer, RingReader.open(ring_name) as reader:
        writer.publish(bytes(100), meta(0))
        with pytest.raises(ValueError, match="payload of 101 bytes, limit 100"):
            writer.publish(bytes(101), meta(1))
        with pytest.raises(ValueError, match="not contiguous"):
            writer.publish(np.zeros((10, 10), np.uint8)[:, ::2], meta(1))
        with pytest.raises(ValueError, match="frame_id=-1"):
            writer.publish(bytes(1), FrameMeta(-1, 0, 0))
        assert reader.head == writer.head == 1
        writer.publish(bytes(100), meta(1))
        assert reader.meta(1).frame_id == 1


def test_pictures_of_any_dimension_can_be_published(make_writer, ring_name):
    shape = geometry("bgr24", 8, 4)
    picture = np.arange(96, dtype=np.uint8).reshape(4, 8, 3)
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        writer.publish(picture, meta(0), shape)
        writer.publish(bytearray(picture.tobytes()), meta(1), shape)
        writer.publish(memoryview(picture), meta(2), shape)
        for number in range(3):
            assert (reader.copy(number).bgr == picture).all()


def test_records_and_other_types_are_published_as_their_bytes(make_writer, ring_name):
    record = np.array([(1, 2.5)], [("number", "u8"), ("score", "f8")])
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        for number, payload in enumerate((record, np.arange(5, dtype=np.float32), np.array([True, False]))):
            writer.publish(payload, meta(number))
            assert reader.copy(number).payload.tobytes() == payload.tobytes()


def test_a_loaned_slot_is_written_in_place_and_abandoned_on_an_error(make_writer, ring_name):
    shape = geometry("gray", 64, 48)
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        with writer.slot() as slot:
            slot.payload[:] = 9
            slot.meta, slot.geometry = meta(0), shape
        with reader.borrow(0) as frame:
            assert frame.payload.size == shape.payload_bytes
            assert frame.luma.max() == 9
        with pytest.raises(ZeroDivisionError), writer.slot() as slot:
            slot.payload[:] = 1
            raise ZeroDivisionError
        with writer.slot() as slot:
            slot.payload[:] = 2  # no meta: nothing to publish
        assert reader.head == 1
        with writer.slot() as slot:
            slot.payload[:3] = 7
            slot.meta, slot.used_bytes = meta(1), 3
        assert reader.copy(1).payload.tolist() == [7, 7, 7]
        with pytest.raises(ValueError, match="used of"), writer.slot() as slot:
            slot.meta, slot.used_bytes = meta(2), 10**6


def test_readers_cannot_write_and_owned_copies_stay(make_writer, ring_name):
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        writer.publish(pattern(1, 3000), meta(1))
        with reader.borrow(0) as frame:
            with pytest.raises(ValueError, match="read-only"):
                frame.payload[0] = 1
            owned = frame.copy()
        with pytest.raises(RingError, match="borrow of sequence 0 has ended"):
            frame.payload[0]
        assert frame.meta.frame_id == 1
    assert (owned.payload == pattern(1, 3000)).all()
    assert owned.valid


def test_reader_refuses_a_frame_overwritten_while_borrowed(make_writer, ring_name):
    with make_writer(slots=2) as writer, RingReader.open(ring_name) as reader:
        writer.publish(b"first", meta(0))
        with pytest.raises(FrameOverwritten, match="while it was read"), reader.borrow(0) as frame:
            assert frame.payload.tobytes() == b"first"
            writer.publish(b"second", meta(1))
            assert frame.valid
            frame.verify()
            writer.publish(b"third!", meta(2))
            assert not frame.valid
            with pytest.raises(FrameOverwritten):
                frame.copy()
        assert reader.overwritten >= 1
        with pytest.raises(FrameOverwritten, match="sequence 0 is gone"):
            reader.meta(0)


def test_a_slot_being_written_is_refused(make_writer, ring_name):
    with make_writer(slots=2) as writer, RingReader.open(ring_name) as reader:
        writer.publish(b"a", meta(0))
        writer.publish(b"b", meta(1))
        with writer.slot(), pytest.raises(FrameOverwritten):
            reader.copy(0)
        assert reader.copy(1).payload.tobytes() == b"b"


def test_an_error_inside_a_borrow_is_kept_unless_the_frame_was_overwritten(make_writer, ring_name):
    with make_writer(slots=2) as writer, RingReader.open(ring_name) as reader:
        writer.publish(b"a", meta(0))
        with pytest.raises(ZeroDivisionError), reader.borrow(0):
            raise ZeroDivisionError
        with pytest.raises(FrameOverwritten) as caught, reader.borrow(0):
            for number in (1, 2):
                writer.publish(b"b", meta(number))
            raise ZeroDivisionError
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_frames_that_are_not_there_yet_are_not_ready(make_writer, ring_name):
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        assert reader.latest() is None
        assert len(reader.last(5)) == len(reader.last_seconds(5)) == len(reader.window(0, 10**18)) == 0
        for sequence in (-1, 0, 2**31 - 1):
            with pytest.raises(RingNotReady, match="not there yet"):
                reader.borrow(sequence)
        writer.publish(b"", meta(0))
        assert reader.latest() == 0


def test_selection_by_sequence_and_by_time(make_writer, ring_name):
    with make_writer(slots=8) as writer, RingReader.open(ring_name) as reader:
        for number in range(20):  # 10 ms apart
            writer.publish(b"x", meta(number))
        assert (reader.oldest, reader.head, reader.latest()) == (13, 20, 19)
        assert list(reader.since(17)) == [18, 19]
        assert list(reader.since(0)) == list(range(13, 20))
        assert list(reader.last(3)) == [17, 18, 19]
        assert list(reader.last(100)) == list(range(13, 20))
        assert list(reader.last_seconds(0.025)) == [17, 18, 19]
        assert list(reader.window(150_000_000, 170_000_000)) == [15, 16, 17]
        assert list(reader.window(155_000_000, 169_999_999)) == [16]
        assert list(reader.window(0, 10**12)) == list(range(13, 20))
        assert list(reader.window(10**12, 10**13)) == []
        assert list(reader.window(0, 5)) == []


def test_seconds_ago_is_found_by_timestamps_however_irregular(make_writer, ring_name):
    """Ten long night exposures after fast video: five seconds are five seconds, not 150 frames."""
    with make_writer(slots=64) as writer, RingReader.open(ring_name) as reader:
        captured = [n * 33_000_000 for n in range(30)] + [10**9 + n * 2_000_000_000 for n in range(1, 11)]
        for number, captured_ns in enumerate(captured):
            writer.publish(b"", FrameMeta(number, captured_ns, captured_ns))
        assert [captured[s] for s in reader.last_seconds(5)] == captured[-3:]


@pytest.mark.parametrize("slots", [2, 3, 7, 8])
@pytest.mark.parametrize("wrap", [2**31, 2**32, 2**33, 2**63])
def test_counters_wrap_without_a_trace(make_writer, ring_name, slots, wrap):
    with make_writer(slots=slots, first_sequence=wrap - 5) as writer, RingReader.open(ring_name) as early:
        assert early.latest() is None
        for number in range(12):
            sequence = wrap - 5 + number
            writer.publish(pattern(number, 400), meta(number))
            assert early.wait(sequence, 1)
            assert (early.head, early.latest()) == (sequence + 1, sequence)
            assert early.copy(sequence).frame_id == number
            with RingReader.open(ring_name) as late:
                assert (late.head, late.oldest) == (sequence + 1, max(wrap - 5, sequence + 2 - slots))
                assert (late.copy(sequence).payload == pattern(number, 400)).all()
            if number >= slots:
                with pytest.raises(FrameOverwritten):
                    early.copy(sequence - slots)


def test_two_threads_that_wait_on_one_reader_keep_its_count(make_writer, ring_name):
    """Another thread looks at head between this one's look at the word and its sum: head once jumped by 2**32."""
    with make_writer() as writer, RingReader.open(ring_name, force_fences=True) as reader:
        fence, seen = reader._acquire, []

        def other_thread() -> None:
            fence()
            if not seen:
                seen.append(-1)
                writer.publish(b"", meta(writer.next_frame_id))
                seen.append(reader.head)

        writer.publish(b"", meta(0))
        reader._acquire = other_thread
        assert reader.head == 1
        assert seen == [-1, 2]
        assert reader.head == 2


def test_a_slot_that_claims_more_than_it_holds_is_a_mismatch(make_writer, ring_name):
    """A damaged slot header must not make a reader look past the slot."""
    from shm_ring import layout

    with make_writer() as writer, RingReader.open(ring_name) as reader:
        writer.publish(b"abc", meta(0), None)
        used = 4096 + layout.FRAME_OFFSET + layout.offset_of(layout.FRAME_FIELDS, "used_bytes")
        writer._bytes[used : used + 8] = (2**50).to_bytes(8, "little")
        with pytest.raises(RingMismatch, match="bytes used of"):
            reader.copy(0)


def test_a_view_that_outlives_its_ring_is_told_and_stays_harmless(make_writer, ring_name):
    with make_writer() as writer:
        writer.publish(pattern(3, 400), meta(3))
        reader = RingReader.open(ring_name)
        with reader.borrow(0) as frame:
            kept = frame.payload
        with pytest.raises(RingError, match=r"a frame view outlived its ring; use Frame.copy\(\)"):
            reader.close()
        assert (kept == pattern(3, 400)).all()
        reader.close()  # the second time there is nothing left to do
