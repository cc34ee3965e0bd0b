"""Geometry and plane views."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_ring.formats import MAX_SIDE, PIXEL_FORMATS, Geometry, geometry, plane_shapes, planes

SIZES = st.integers(1, 70)


@given(st.sampled_from(PIXEL_FORMATS), SIZES, SIZES, st.integers(0, 40))
def test_planes_are_disjoint_views_that_lie_within_the_payload(kind, width, height, padding):
    rows = [int(np.prod(shape[1:])) for shape in plane_shapes(kind, width, height)]
    shape = geometry(kind, width, height, strides=tuple(row + padding for row in rows))
    payload = np.zeros(shape.payload_bytes, np.uint8)
    views = planes(payload, shape)
    for number, plane in enumerate(views, 1):
        assert np.shares_memory(plane, payload)
        assert not plane.any(), "an earlier plane reaches into this one"
        plane[...] = number
    assert [int(plane.min()) for plane in views] == list(range(1, len(views) + 1))
    assert np.count_nonzero(payload) == sum(plane.size for plane in views)


@given(SIZES, SIZES)
def test_default_yuv420p_has_chroma_strides_of_exactly_half_the_luma_stride(width, height):
    shape = geometry("yuv420p", width, height)
    assert shape.strides[0] % 2 == 0
    assert shape.strides[1] == shape.strides[2] == shape.strides[0] // 2
    assert planes(np.zeros(shape.payload_bytes, np.uint8), shape)[1].shape == ((height + 1) // 2, (width + 1) // 2)


def test_1080p_yuv420p_is_tight():
    assert geometry("yuv420p", 1920, 1080).payload_bytes == 1920 * 1080 * 3 // 2
    assert geometry("nv12", 1920, 1080).payload_bytes == 1920 * 1080 * 3 // 2
    assert geometry("bgr24", 1920, 1080).payload_bytes == 1920 * 1080 * 3


def test_planes_of_read_only_memory_are_read_only():
    shape = geometry("yuv420p", 8, 8)
    payload = np.zeros(shape.payload_bytes, np.uint8)
    payload.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        planes(payload, shape)[0][0, 0] = 1


def test_a_payload_too_short_for_its_geometry_is_refused():
    shape = geometry("nv12", 64, 48)
    with pytest.raises(ValueError, match="payload of 10 bytes"):
        planes(np.zeros(10, np.uint8), shape)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("yuv444p", 8, 8), "pixel format 'yuv444p': must be one of"),
        (("gray", 0, 8), "frame size 0x8"),
        (("gray", 8, MAX_SIDE + 1), "frame size"),
    ],
)
def test_what_cannot_be_is_refused_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        geometry(*arguments)


def test_a_stride_shorter_than_its_row_is_refused():
    with pytest.raises(ValueError, match="needs at least"):
        geometry("gray", 100, 4, strides=(99,))


def test_unknown_colours_are_refused():
    with pytest.raises(ValueError, match="color"):
        geometry("gray", 8, 8, color_space="bt2020")


def test_geometries_compare_and_hash_by_value():
    assert geometry("gray", 8, 8) == Geometry("gray", 8, 8, (8,), (0,))
    assert len({geometry("gray", 8, 8), geometry("gray", 8, 8)}) == 1
