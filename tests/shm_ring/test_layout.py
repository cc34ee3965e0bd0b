"""The contract's bytes. A failure here means: raise layout.VERSION."""

import numpy as np
import pytest

from shm_ring import layout, segment_name
from shm_ring.layout import RingShape


def offsets(dtype):
    return {name: dtype.fields[name][1] for name in dtype.names}


def test_every_offset_of_the_segment_header_is_pinned():
    assert layout.SEGMENT_HEADER.itemsize == 4096
    assert offsets(layout.SEGMENT_HEADER) == {
        "magic": 0, "version": 4, "header_bytes": 8, "slot_header_bytes": 12, "slots": 16, "state": 20,
        "generation": 24, "takeovers": 28, "payload_bytes": 32, "slot_stride": 40, "payload_offset": 48,
        "first_sequence": 56, "head": 64, "pad_head": 68, "heartbeat_ms": 128, "writer_pid": 132, "writer_start": 136,
        "writer_pid_space": 144, "pad_writer": 152, "camera": 192, "stream": 224, "pad_page": 256,
    }  # fmt: skip


def test_every_offset_of_a_slot_header_is_pinned():
    assert layout.SLOT_HEADER.itemsize == 256
    assert offsets(layout.SLOT_HEADER) == {"word": 0, "pad_word": 4, "frame": 8, "geometry": 112, "pad_slot": 216}
    assert offsets(layout.FRAME_FIELDS) == {
        "sequence": 0, "frame_id": 8, "captured_ns": 16, "captured_utc_ns": 24, "published_ns": 32, "used_bytes": 40,
        "analogue_gain": 48, "digital_gain": 56, "lux": 64, "total_dropped": 72, "exposure_us": 80,
        "frame_duration_us": 84, "colour_temperature_k": 88, "flags": 92, "dropped_before": 96, "pad": 100,
    }  # fmt: skip
    assert offsets(layout.GEOMETRY) == {
        "pixel_format": 0, "width": 16, "height": 20, "offsets": 24, "strides": 56, "color_space": 72,
        "color_range": 88, "sample_aspect": 96,
    }  # fmt: skip


def test_struct_and_dtype_agree_about_every_field():
    values = [*range(1, 7), 7.5, 8.5, 9.5, *range(10, 17)]
    record = np.frombuffer(layout.FRAME_STRUCT.pack(*values), layout.FRAME_FIELDS)[0]
    assert list(record.tolist()) == values


@pytest.mark.parametrize(("slots", "payload_bytes"), [(2, 1), (3, 3333), (7, 4032), (4096, 100), (5, 3110400)])
def test_headers_are_cache_aligned_payloads_page_aligned_and_nothing_overlaps(slots, payload_bytes):
    shape = RingShape(slots, payload_bytes)
    end = 4096
    for slot in range(slots):
        assert shape.slot_header(slot) % 64 == 0
        assert shape.slot_header(slot) >= end
        end = shape.slot_header(slot) + layout.SLOT_HEADER_BYTES
    for slot in range(slots):
        assert shape.payload(slot) % 4096 == 0
        assert shape.payload(slot) >= end
        assert shape.trailer(slot) % 64 == 0
        assert shape.trailer(slot) >= shape.payload(slot) + payload_bytes
        end = shape.trailer(slot) + layout.TRAILER_BYTES
    assert end == shape.total_bytes


@pytest.mark.parametrize(
    ("slots", "payload_bytes"), [(0, 9), (1, 9), (1 << 17, 9), (4, 0), (4, 1 << 60), (65536, 1 << 30)]
)
def test_impossible_sizes_are_named(slots, payload_bytes):
    assert "must be" in RingShape(slots, payload_bytes).problem()


def test_segment_names_are_plain_words():
    assert segment_name("shmcam", "cam0", "main") == "/shmcam.cam0.main"
    for bad in ("a/b", "x" * 300, "a\0b"):
        with pytest.raises(ValueError, match="plain words"):
            segment_name("shmcam", bad, "main")
