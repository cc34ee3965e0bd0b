"""Pixels into slots: formats, odd sizes and strides, masks, small frames."""

import av
import cv2
import numpy as np
import pytest

from capture.publisher import downscale, lores_geometry_of, mask_polygons
from capture.sources.decoded_frame import RING_FORMATS, FrameWriter, _average, form_of
from shm_ring.color import to_bgr
from shm_ring.formats import geometry, planes

SIZES = [(64, 48), (65, 49), (17, 33), (1, 1), (2, 3)]
PYAV_FORMATS = [
    "yuv420p",
    "yuvj420p",
    "yuv422p",
    "yuvj422p",
    "yuv444p",
    "yuyv422",
    "nv12",
    "gray",
    "bgr24",
    "rgb24",
    "bgr0",
    "rgba",
]


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width].astype(float)
    rgb = np.stack([120 + 90 * np.sin(x / 17), 120 + 90 * np.cos(y / 13), 120 + 60 * np.sin((x + y) / 19)], -1)
    return np.rint(rgb).astype(np.uint8)


def psnr(one, other):
    return 10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9))


@pytest.mark.parametrize("name", PYAV_FORMATS)
@pytest.mark.parametrize("size", [(320, 240), (333, 241)])
def test_every_format_a_webcam_gives_ends_up_as_the_same_picture(name, size):
    rgb = picture(*size)
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=name, dst_colorspace="smpte170m")
    shape = form_of(frame).shown
    payload = np.zeros(shape.payload_bytes, np.uint8)
    FrameWriter(form_of(frame)).write(frame, payload)
    wanted = rgb[..., ::-1] if name != "gray" else np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, -1)
    assert psnr(to_bgr(payload, shape), wanted) > 33
    assert shape.pixel_format == RING_FORMATS[name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("yuv420p10le", "yuv420p"), ("yuv411p", "yuv420p"), ("pal8", "bgr24"), ("gbrp", "bgr24"), ("gray10le", "gray")],
)
def test_formats_without_a_path_of_their_own_go_through_ffmpeg_s_scaler(name, kind):
    if name == "pal8":
        frame = av.VideoFrame(64, 48, "pal8")
    else:
        frame = av.VideoFrame.from_ndarray(picture(64, 48), "rgb24").reformat(format=name)
    shape = form_of(frame).shown
    FrameWriter(form_of(frame)).write(frame, np.zeros(shape.payload_bytes, np.uint8))
    assert shape.pixel_format == kind


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["yuv420p", "nv12", "gray", "bgr24"])
def test_planes_arrive_bit_for_bit_whatever_the_size(name, size):
    """One copy: what FFmpeg holds is what the slot holds, without its row padding."""
    rng = np.random.default_rng(1)
    frame = av.VideoFrame(*size, name)
    held = []
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
        held.append(np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size))
    shape = form_of(frame).shown
    payload = np.zeros(shape.payload_bytes, np.uint8)
    FrameWriter(form_of(frame)).write(frame, payload)
    for view, raw in zip(planes(payload, shape), held, strict=True):
        rows = view.reshape(view.shape[0], -1)
        assert (rows == raw[: rows.shape[0], : rows.shape[1]]).all()


def test_a_frame_of_another_size_or_format_has_another_form():
    """The source then says GeometryChanged, and the frame gets a slot of its own size."""
    frame = av.VideoFrame(64, 48, "yuv420p")
    assert form_of(frame) == form_of(av.VideoFrame(64, 48, "yuv420p"))
    for other in (av.VideoFrame(65, 48, "yuv420p"), av.VideoFrame(64, 48, "nv12"), av.VideoFrame(64, 48, "gray")):
        assert form_of(other).shown != form_of(frame).shown


@pytest.mark.parametrize(
    ("size", "told", "meant"),
    [
        ((640, 480), (2, 0), ("smpte170m", "tv")),
        ((1280, 720), (2, 0), ("bt709", "tv")),
        ((640, 480), (1, 2), ("bt709", "pc")),
        ((1280, 720), (6, 1), ("smpte170m", "tv")),
    ],
)
def test_colours_are_what_the_file_says_or_what_players_assume(size, told, meant):
    frame = av.VideoFrame(*size, "yuv420p")
    frame.colorspace, frame.color_range = told
    shape = form_of(frame).shown
    assert (shape.color_space, shape.color_range) == meant


# ---- mask

TRIANGLE = [[(0.1, 0.1), (0.9, 0.1), (0.5, 0.9)]]


@pytest.mark.parametrize("kind", ["yuv420p", "nv12", "bgr24", "gray"])
@pytest.mark.parametrize("size", [(320, 240), (333, 241)])
def test_nothing_of_a_masked_pixel_is_left_in_any_plane(kind, size):
    """Two scenes that differ only under the mask give the same masked frame."""
    rng = np.random.default_rng(2)
    shape = geometry(kind, *size)
    one = rng.integers(0, 256, shape.payload_bytes, dtype=np.uint8)
    two = one.copy()
    corners = [np.rint(np.array(TRIANGLE[0]) * [size[0] - 1, size[1] - 1]).astype(np.int32)]
    inside = cv2.fillPoly(np.zeros((size[1], size[0]), np.uint8), corners, 1).astype(bool)
    for index, plane in enumerate(planes(two, shape)):
        here = inside if index == 0 else inside[::2, ::2][: plane.shape[0], : plane.shape[1]]
        plane[here] = 255 - plane[here]
    mask_polygons(one, shape, TRIANGLE)
    mask_polygons(two, shape, TRIANGLE)
    assert (one == two).all()
    bright = planes(one, shape)[0]
    assert not bright[inside].any()
    outside = bright[~inside]
    assert np.count_nonzero(outside) > outside.size * 0.95, "the rest is untouched"


def test_video_range_black_is_16():
    shape = geometry("yuv420p", 32, 32, color_range="tv")
    payload = np.full(shape.payload_bytes, 200, np.uint8)
    mask_polygons(payload, shape, [[(0, 0), (1, 0), (1, 1), (0, 1)]])
    bright, *chroma = planes(payload, shape)
    assert (bright == 16).all()
    assert all((plane == 128).all() for plane in chroma)


# ---- small frames


@pytest.mark.parametrize("kind", ["yuv420p", "nv12", "bgr24", "rgb24", "gray"])
@pytest.mark.parametrize(("size", "small"), [((320, 240), (160, 120)), ((333, 241), (101, 77)), ((64, 48), (640, 480))])
def test_small_frames_are_area_averages_of_the_full_ones(kind, size, small):
    full = geometry(kind, *size, strides=None)
    payload = np.zeros(full.payload_bytes, np.uint8)
    for index, plane in enumerate(planes(payload, full)):
        plane[:] = 40 * (index + 1)
        plane[: plane.shape[0] // 2] += 60
    little = lores_geometry_of(full, *small)
    assert (little.width, little.height) == (min(size[0], small[0]), min(size[1], small[1])), "never enlarged"
    target = np.zeros(little.payload_bytes, np.uint8)
    downscale(payload, full, target, little)
    for index, plane in enumerate(planes(target, little)):
        assert (plane[: plane.shape[0] // 2 - 1] == 40 * (index + 1) + 60).all()
        assert (plane[plane.shape[0] // 2 + 1 :] == 40 * (index + 1)).all()


@pytest.mark.parametrize("size", [(64, 48), (63, 2), (1, 50)])
def test_the_fast_mean_of_two_rows_is_what_the_general_one_gives(size):
    width, height = size
    rows = np.random.default_rng(5).integers(0, 256, (height, width), np.uint8)
    fast = np.zeros((height // 2, width), np.uint8)
    _average(rows, fast)
    assert (fast == cv2.resize(rows, (width, height // 2), interpolation=cv2.INTER_AREA)).all()
