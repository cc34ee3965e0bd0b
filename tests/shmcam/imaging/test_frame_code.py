"""The frame number in the pixels survives what happens to pictures."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from shm_ring.formats import geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.imaging.jpeg import to_jpeg

NUMBERS = [0, 1, 0x5A5A5A5A, 123_456_789, 2**32 - 1]


def frame(width=1280, height=720, seed=0):
    shape = geometry("yuv420p", width, height)
    rng = np.random.default_rng(seed)
    payload = np.full(shape.payload_bytes, 128, np.uint8)
    planes(payload, shape)[0][:] = rng.integers(0, 256, (height, width))
    return payload, shape


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("width", [176, 320, 640, 1280, 1456, 1920])
def test_what_is_drawn_is_read(number, width):
    payload, shape = frame(width, 144)
    bright = planes(payload, shape)[0]
    frame_number_code.draw(bright, number, camera=5)
    assert frame_number_code.read(bright) == number
    assert frame_number_code.read_camera(bright) == 5


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("quality", [30, 85])
@pytest.mark.parametrize("scaled_to", [None, 640, 480, 320])
def test_it_survives_jpeg_and_scaling(number, quality, scaled_to):
    payload, shape = frame()
    frame_number_code.draw(planes(payload, shape)[0], number)
    jpeg = to_jpeg(payload, shape, quality, width=scaled_to)
    assert frame_number_code.read(simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0]) == number


def test_it_survives_h264():
    payload, shape = frame(640, 480)
    bright = planes(payload, shape)[0]
    bright[:] = cv2.GaussianBlur(bright, (0, 0), 9)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 640, 480, "yuv420p", Fraction(1, 30)
    encoder.options = {"crf": "30", "preset": "ultrafast"}
    decoder, seen = av.CodecContext.create("h264", "r"), []

    def decode(packets):
        for packet in packets:
            seen.extend(frame_number_code.read(one.to_ndarray()[:480]) for one in decoder.decode(packet))

    for number in range(100, 130):
        frame_number_code.draw(bright, number)
        decode(encoder.encode(av.VideoFrame.from_ndarray(payload.reshape(720, 640), "yuv420p")))
    decode([*encoder.encode(None), None])
    assert seen == list(range(100, 130))


def test_a_picture_without_a_code_reads_as_none():
    for seed in range(200):
        payload, shape = frame(640, 64, seed)
        assert frame_number_code.read(planes(payload, shape)[0]) is None
    assert frame_number_code.read(np.zeros((64, 640), np.uint8)) is None
    assert frame_number_code.read(np.full((4, 30), 255, np.uint8)) is None


def test_it_is_drawn_into_rgb_too():
    picture = np.zeros((48, 640, 3), np.uint8)
    frame_number_code.draw(picture, 77)
    assert frame_number_code.read(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)) == 77
