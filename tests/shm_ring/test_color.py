"""Luma, BGR and JPEG against floating point, for every matrix and range."""

import subprocess
import sys

import av
import numpy as np
import pytest
import simplejpeg

from shm_ring.color import LUMA_WEIGHTS, luma, to_bgr
from shm_ring.formats import geometry, planes
from shmcam.imaging.jpeg import JpegEncoder, to_jpeg

YUV_KINDS = [(space, span) for space in ("smpte170m", "bt709") for span in ("pc", "tv")]


def picture(width, height):
    """A smooth RGB picture with all hues, float (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    return np.stack([127 + 100 * np.sin(x / 50), 127 + 100 * np.cos(y / 40), 127 + 90 * np.sin((x + y) / 60)], -1)


def encoded(rgb, kind, space="smpte170m", span="pc", padding=0):
    """The payload a camera would give for `rgb`, and its geometry."""
    height, width = rgb.shape[:2]
    if kind in ("bgr24", "rgb24"):
        shape = geometry(kind, width, height, strides=(width * 3 + padding,))
        payload = np.zeros(shape.payload_bytes, np.uint8)
        planes(payload, shape)[0][:] = np.rint(rgb if kind == "rgb24" else rgb[..., ::-1])
        return payload, shape
    red, green, blue = LUMA_WEIGHTS[space]
    bright = rgb @ np.array([red, green, blue])
    u, v = (rgb[..., 2] - bright) / (2 * (1 - blue)), (rgb[..., 0] - bright) / (2 * (1 - red))
    if span == "tv":
        bright, u, v = 16 + bright * 219 / 255, u * 224 / 255, v * 224 / 255
    even = width + width % 2 + padding * 2
    strides = (even, even // 2, even // 2) if kind == "yuv420p" else (even, even)
    shape = geometry(kind, width, height, strides=strides, color_space=space, color_range=span)
    payload = np.zeros(shape.payload_bytes, np.uint8)
    views = planes(payload, shape)
    views[0][:] = np.rint(bright)
    halves = [np.rint(halved(plane) + 128) for plane in (u, v)]
    if kind == "yuv420p":
        views[1][:], views[2][:] = halves
    else:
        views[1][..., 0], views[1][..., 1] = halves
    return payload, shape


def halved(plane):
    """Averages of 2x2 (edges repeated)."""
    padded = np.pad(plane, [(0, side % 2) for side in plane.shape], "edge")
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).mean((1, 3))


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize(("space", "span"), YUV_KINDS)
@pytest.mark.parametrize("kind", ["yuv420p", "nv12"])
@pytest.mark.parametrize("size", [(640, 272), (333, 241)])
def test_bgr_and_jpeg_of_yuv_match_the_picture_it_was_made_of(kind, space, span, size):
    rgb = picture(*size)
    payload, shape = encoded(rgb, kind, space, span, padding=7)
    bgr = to_bgr(payload, shape)
    assert bgr.shape == rgb.shape
    assert psnr(bgr, rgb[..., ::-1]) > 46
    decoded = simplejpeg.decode_jpeg(to_jpeg(payload, shape, 95), "RGB")
    assert psnr(decoded, rgb) > 44


COLOURS = np.array([[r, g, b] for r in (30, 128, 225) for g in (30, 128, 225) for b in (30, 128, 225)], float)


def by_ffmpeg(jpeg):
    """RGB as FFmpeg's own decoder and JFIF's formulas make it, float (height, width, 3): no libjpeg in it."""
    codec = av.CodecContext.create("mjpeg", "r")
    (frame,) = [*codec.decode(av.Packet(jpeg)), *codec.decode(None)]
    assert frame.format.name == "yuvj420p"
    bright, blue, red = (
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].astype(float)
        for plane in frame.planes
    )
    height, width = bright.shape
    u, v = (plane.repeat(2, 0).repeat(2, 1)[:height, :width] - 128 for plane in (blue, red))
    return np.stack([bright + 1.402 * v, bright - 0.344136 * u - 0.714136 * v, bright + 1.772 * u], -1)


@pytest.mark.parametrize("width", [None, 432])
@pytest.mark.parametrize("kind", ["yuv420p", "nv12"])
@pytest.mark.parametrize(("space", "span"), YUV_KINDS)
def test_colours_are_right_within_3_levels_in_another_decoder(kind, space, span, width):
    """What a viewer sees is what the camera saw, whichever YUV came: sYCC stills, BT.709 video, and those between."""
    side = 32
    payload, shape = encoded(np.tile(COLOURS.repeat(side, 0), (side, 1, 1)), kind, space, span)
    seen = by_ffmpeg(to_jpeg(payload, shape, 90, width=width))
    assert seen.shape[1] == (width or shape.width)
    patches = np.array_split(seen, len(COLOURS), axis=1)
    means = np.array([patch[4:-4, patch.shape[1] // 4 : -patch.shape[1] // 4].mean((0, 1)) for patch in patches])
    assert np.abs(means - COLOURS).max() < 3


@pytest.mark.parametrize("kind", ["bgr24", "rgb24"])
def test_bgr_jpeg_and_luma_of_rgb_match_the_picture(kind):
    rgb = picture(333, 241)
    payload, shape = encoded(rgb, kind, padding=5)
    assert psnr(to_bgr(payload, shape), rgb[..., ::-1]) > 55
    assert psnr(simplejpeg.decode_jpeg(to_jpeg(payload, shape, 95), "RGB"), rgb) > 38
    assert np.abs(luma(payload, shape) - rgb @ np.array(LUMA_WEIGHTS["smpte170m"])).max() < 2


def test_video_range_is_stretched_so_that_jpegs_are_not_washed_out():
    shape = geometry("yuv420p", 64, 64, color_range="tv")
    payload = np.full(shape.payload_bytes, 128, np.uint8)
    planes(payload, shape)[0][:, :32], planes(payload, shape)[0][:, 32:] = 16, 235
    decoded = simplejpeg.decode_jpeg(to_jpeg(payload, shape, 95), "GRAY")
    assert decoded[:, :24].max() <= 3
    assert decoded[:, 40:].min() >= 252


@pytest.mark.parametrize("kind", ["yuv420p", "nv12", "bgr24", "rgb24", "gray"])
def test_jpeg_scales_down_in_proportion_but_never_up(kind):
    shape = geometry(kind, 320, 181)
    payload = np.full(shape.payload_bytes, 120, np.uint8)
    assert simplejpeg.decode_jpeg_header(to_jpeg(payload, shape, width=160))[:2] == (90, 160)
    assert simplejpeg.decode_jpeg_header(to_jpeg(payload, shape, width=9999))[:2] == (181, 320)


@pytest.mark.parametrize("kind", ["yuv420p", "nv12", "bgr24", "gray"])
def test_gray_jpegs_have_one_component(kind):
    shape = geometry(kind, 50, 31)
    payload = np.zeros(shape.payload_bytes, np.uint8)
    assert simplejpeg.decode_jpeg_header(to_jpeg(payload, shape, gray=True))[2] == "Gray"


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 3)])
@pytest.mark.parametrize("kind", ["yuv420p", "nv12", "bgr24", "rgb24", "gray"])
def test_the_smallest_frames_convert_too(kind, size):
    shape = geometry(kind, *size)
    payload = np.full(shape.payload_bytes, 128, np.uint8)
    assert to_bgr(payload, shape).shape == (size[1], size[0], 3)
    assert simplejpeg.decode_jpeg(to_jpeg(payload, shape)).shape[:2] == (size[1], size[0])


def test_jpeg_reads_padded_read_only_memory():
    payload, shape = encoded(picture(60, 40), "yuv420p", padding=16)
    payload.flags.writeable = False
    assert simplejpeg.is_jpeg(to_jpeg(payload, shape))


def test_luma_never_loads_opencv():
    """The analyzer has no OpenCV: it costs 30 MB."""
    code = (
        "import sys, numpy; from shm_ring.color import luma; from shm_ring.formats import geometry\n"
        "for kind in ('yuv420p', 'bgr24'):\n"
        "    shape = geometry(kind, 8, 8); luma(numpy.zeros(shape.payload_bytes, numpy.uint8), shape)\n"
        "assert 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_jpeg_has_square_pixels():
    """A DVR's 352x288 of 16:11 was shown too narrow."""
    shape = geometry("yuv420p", 352, 288, sample_aspect=(16, 11))
    payload = np.full(shape.payload_bytes, 128, np.uint8)
    assert simplejpeg.decode_jpeg_header(to_jpeg(payload, shape))[:2] == (288, 512)
    assert simplejpeg.decode_jpeg_header(to_jpeg(payload, shape, width=256))[:2] == (144, 256)
    narrow = geometry("bgr24", 720, 480, sample_aspect=(8, 9))
    assert simplejpeg.decode_jpeg_header(to_jpeg(np.zeros(narrow.payload_bytes, np.uint8), narrow))[:2] == (480, 640)


@pytest.mark.parametrize("span", ["pc", "tv"])
def test_a_jpeg_of_bt_2020_has_the_colours_of_the_frame(span):
    shape = geometry("yuv420p", 64, 64, color_space="bt2020nc", color_range=span)
    payload = np.zeros(shape.payload_bytes, np.uint8)
    for plane, value in zip(planes(payload, shape), (120, 100, 170), strict=True):
        plane[:] = value
    seen = simplejpeg.decode_jpeg(to_jpeg(payload, shape, 95), "BGR")[32, 32].astype(int)
    assert np.abs(seen - to_bgr(payload, shape)[32, 32]).max() <= 3


def test_an_encoder_that_is_kept_makes_the_same_pictures_as_a_new_one():
    """Its buffers are those of the frame before, of whatever size and format."""
    encoder, rng = JpegEncoder(), np.random.default_rng(4)
    shapes = [
        geometry(pixel_format, *size, color_space=space, color_range=span)
        for size in ((64, 48), (321, 181), (64, 48))
        for pixel_format, space, span in (
            ("yuv420p", "bt709", "tv"), ("nv12", "bt2020nc", "pc"), ("yuv420p", "smpte170m", "tv"),
            ("yuv420p", "smpte170m", "pc"), ("bgr24", "smpte170m", "pc"), ("gray", "smpte170m", "tv"),
        )
    ]  # fmt: skip
    for shape in shapes:
        payload = rng.integers(0, 256, shape.payload_bytes, np.uint8)
        before = payload.copy()
        for more in ({}, {"width": 48}, {"gray": True}):
            assert encoder.encode(payload, shape, **more) == to_jpeg(payload, shape, **more)
        assert (payload == before).all(), "the ring's memory is not ours"
