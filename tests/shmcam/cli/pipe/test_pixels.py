"""The bytes of raw formats and of the pipe itself, with a real ring and a real pipe, without any process."""

import contextlib
import os
import secrets
import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from shm_ring import FrameMeta, LiveRing, RingReader, RingWriter
from shm_ring.formats import geometry, planes
from shmcam.cli.main import main
from shmcam.cli.pipe.pictures import PictureStream, send_pictures
from shmcam.cli.pipe.pipe_output import Fifo, PipeOutput, ReaderGone
from shmcam.cli.pipe.pixels import (
    aspect_in,
    encode_bgr24,
    encode_gray,
    encode_y4m,
    encode_yuv420p,
    jpeg_encoder,
    scale,
    shows_ring,
    y4m_header,
)
from shmcam.runtime.stop import Stop
from tests.machine import until

SECOND = 1_000_000_000


class Ring:
    """A ring whose frames are flat or random pixels."""

    def __init__(self, folder, form, slots=4):
        self.form, self.number = form, 0
        self.name = f"/t{secrets.token_hex(5)}.cam0.main"
        self.writer = RingWriter.create(
            self.name, slots=slots, payload_bytes=form.payload_bytes, lock_dir=folder, camera="cam0", stream="main"
        )

    def publish(self, payload=None):
        if payload is None:
            payload = np.random.default_rng(self.number).integers(0, 256, self.form.payload_bytes, np.uint8)
        self.number += 1
        meta = FrameMeta(self.number, self.number * SECOND, 10**18, frame_duration_us=40_000)
        self.writer.publish(payload, meta, self.form)
        return payload

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.writer.retire()


def encoded(ring, encode, size=None):
    with RingReader.open(ring.name) as reader, reader.borrow(reader.latest()) as frame:
        pixels = scale(frame, size or (ring.form.width, ring.form.height))
        parts = encode(pixels)
        shown = shows_ring(parts, pixels)
        data = b"".join(parts)
        del parts, pixels
        return data, shown


@pytest.mark.parametrize(("width", "height"), [(64, 48), (17, 5), (1, 1)])
def test_rawvideo_is_the_planes_without_padding_and_even_sizes_lie_in_the_ring(tmp_path, width, height):
    form = geometry("yuv420p", width, height)
    with Ring(tmp_path, form) as ring:
        payload = ring.publish()
        data, shown = encoded(ring, encode_yuv420p)
        assert data == b"".join(plane.tobytes() for plane in planes(payload, form))
        assert len(data) == width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
        assert shown or width % 2, "no copy but the pipe's"
        assert encoded(ring, encode_y4m)[0] == b"FRAME\n" + data


@pytest.mark.parametrize("pixel_format", ["nv12", "bgr24", "rgb24", "gray", "yuv420p"])
def test_every_ring_s_colours_come_out_right(tmp_path, pixel_format):
    """A red and a grey half, by OpenCV's own reading of what comes out (full-range BT.601)."""
    form = geometry(pixel_format, 32, 16)
    red = np.full((16, 32, 3), 128, np.uint8)
    red[:, :16] = (0, 0, 255)
    ycc = cv2.cvtColor(red, cv2.COLOR_BGR2YCrCb)
    payload = np.zeros(form.payload_bytes, np.uint8)
    views = planes(payload, form)
    if pixel_format in ("bgr24", "rgb24"):
        views[0][...] = red if pixel_format == "bgr24" else red[..., ::-1]
    else:
        views[0][...] = ycc[..., 0]
        if pixel_format == "nv12":
            views[1][..., 0], views[1][..., 1] = ycc[::2, ::2, 2], ycc[::2, ::2, 1]
        elif pixel_format == "yuv420p":
            views[1][...], views[2][...] = ycc[::2, ::2, 2], ycc[::2, ::2, 1]
    wanted = cv2.cvtColor(ycc[..., 0], cv2.COLOR_GRAY2BGR) if pixel_format == "gray" else red
    with Ring(tmp_path, form) as ring:
        ring.publish(payload)
        bgr = np.frombuffer(encoded(ring, encode_bgr24)[0], np.uint8).reshape(16, 32, 3)
        yuv = np.frombuffer(encoded(ring, encode_yuv420p)[0], np.uint8)
        luma, blue, chroma_red = yuv[:512], yuv[512:640].reshape(8, 16), yuv[640:].reshape(8, 16)
        big = [np.kron(plane, np.ones((2, 2), np.uint8)) for plane in (chroma_red, blue)]
        again = cv2.cvtColor(cv2.merge([luma.reshape(16, 32), *big]), cv2.COLOR_YCrCb2BGR)
        gray = np.frombuffer(encoded(ring, encode_gray)[0], np.uint8).reshape(16, 32)
        jpeg = cv2.imdecode(np.frombuffer(encoded(ring, jpeg_encoder(95))[0], np.uint8), cv2.IMREAD_COLOR)
    inner = np.s_[:, [*range(14), *range(18, 32)]]  # chroma has half the resolution
    for found in (bgr, again, jpeg):
        assert np.abs(found[inner].astype(int) - wanted[inner]).max() < 8
    assert np.abs(gray.astype(int) - ycc[..., 0]).max() <= 3


def test_video_range_grey_is_stretched_and_named_in_y4m(tmp_path):
    form = geometry("yuv420p", 16, 16, color_range="tv")
    payload = np.full(form.payload_bytes, 128, np.uint8)
    planes(payload, form)[0][:8], planes(payload, form)[0][8:] = 16, 235
    with Ring(tmp_path, form) as ring:
        ring.publish(payload)
        assert set(encoded(ring, encode_gray)[0]) == {0, 255}
    assert b"XCOLORRANGE=LIMITED" in y4m_header(form, Fraction(25))
    assert b"F30000:1001 Ip A1:1" in y4m_header(form, Fraction(30000, 1001))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "bgr24", "gray"])
def test_a_size_is_made_and_a_circle_stays_round(tmp_path, pixel_format):
    form = geometry(pixel_format, 64, 48)
    with Ring(tmp_path, form) as ring:
        ring.publish(np.full(form.payload_bytes, 100, np.uint8))
        data, shown = encoded(ring, encode_yuv420p, (31, 17))
        assert len(data) == 31 * 17 + 2 * 16 * 9 and not shown
    assert aspect_in(form, (32, 24)) == (1, 1)
    assert aspect_in(form, (32, 48)) == (2, 1)


# ---- the pipe


def stream_of(ring, stop, **more):
    told = {"encode": encode_y4m, "size": None, "fps": None, "nominal_fps": Fraction(30), "has_header": True}
    return PictureStream(ring=LiveRing(ring.name, stop), tell=lambda _: None, **{**told, **more})


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_a_slow_reader_gets_whole_frames_and_the_newest(tmp_path, pipe, monkeypatch):
    """It stops in the middle of each frame while the writer goes round the ring many times."""
    read, write = pipe
    blocked_at, wait = [], PipeOutput._wait
    monkeypatch.setattr(PipeOutput, "_wait", lambda self: blocked_at.append(self.sent_bytes) or wait(self))
    form, stop = geometry("gray", 1600, 1000), Stop()  # 1.6 MB: more than the pipe holds
    with Ring(tmp_path, form) as ring, PipeOutput(write, stop) as output:
        ring.publish(np.full(form.payload_bytes, 1, np.uint8))
        stream = stream_of(ring, stop, encode=encode_gray, has_header=False)
        thread = threading.Thread(target=send_pictures, args=(stream, output, stop), daemon=True)
        thread.start()
        frames = []
        for number in range(10, 50, 10):
            until(lambda: any(sent > len(frames) * form.payload_bytes for sent in blocked_at), 30, "it to wait for us")
            for value in range(number - 8, number + 1):
                ring.publish(np.full(form.payload_bytes, value, np.uint8))
            data = b""
            while len(data) < form.payload_bytes:
                data += os.read(read, form.payload_bytes - len(data))
            frames.append(set(data))
        stop.request()
        thread.join(10)
        assert output.damaged == 0 and frames[:3] == [{1}, {10}, {20}]


def test_a_reader_that_goes_is_noticed_while_there_is_nothing_to_write(tmp_path, pipe):
    read, write = pipe
    with PipeOutput(write, Stop()) as output:
        output.check()
        os.close(read)
        with pytest.raises(ReaderGone):
            output.check()
        with pytest.raises(ReaderGone):
            output.write([b"x"])


def test_a_steady_rate_repeats_and_leaves_out_and_survives_the_ring_s_end(tmp_path, pipe):
    read, write = pipe
    form, stop = geometry("gray", 8, 8), Stop()
    with PipeOutput(write, stop) as output:
        with Ring(tmp_path, form) as ring:
            ring.publish(np.full(64, 7, np.uint8))
            stream = stream_of(ring, stop, encode=encode_gray, has_header=False, fps=Fraction(50))
            thread = threading.Thread(target=send_pictures, args=(stream, output, stop), daemon=True)
            thread.start()
            until(lambda: output.sent_bytes >= 10 * 64, 20, "the one frame, ten times")
            for number in range(100, 140):
                ring.publish(np.full(64, number, np.uint8))
            before = output.sent_bytes
            until(lambda: output.sent_bytes >= before + 2 * 64, 20)
        before = output.sent_bytes
        until(lambda: output.sent_bytes >= before + 20 * 64, 20, "the last frame, again and again")
        stop.request()
        thread.join(10)
        data = os.read(read, 1 << 20)
    values = [data[at] for at in range(0, len(data), 64)]
    assert values[:5] == [7] * 5 and values[-10:] == [139] * 10 and values == sorted(values)
    assert all(len(set(data[at : at + 64])) == 1 for at in range(0, len(data), 64))


def test_another_size_later_is_scaled_to_the_first_one(tmp_path, pipe):
    read, write = pipe
    stop = Stop()
    with PipeOutput(write, stop) as output:
        ring = Ring(tmp_path, geometry("gray", 8, 8))
        ring.publish(np.full(64, 7, np.uint8))
        stream = stream_of(ring, stop, encode=encode_gray, has_header=False, fps=Fraction(50))
        thread = threading.Thread(target=send_pictures, args=(stream, output, stop), daemon=True)
        thread.start()
        until(lambda: output.sent_bytes, 20)
        form = geometry("gray", 32, 16)
        ring.writer.retire()
        with RingWriter.create(
            ring.name, slots=4, payload_bytes=512, lock_dir=tmp_path, camera="cam0", stream="main"
        ) as second:
            second.publish(np.full(512, 200, np.uint8), FrameMeta(9, SECOND, 10**18), form)
            before = output.sent_bytes
            until(lambda: output.sent_bytes > before + 50 * 64, 20)
        stop.request()
        thread.join(10)
        data = os.read(read, 1 << 20)
    assert len(data) % 64 == 0 and data[-1] == 200


def test_a_fifo_is_made_and_removed_and_another_file_is_left_alone(tmp_path):
    path, stop = tmp_path / "pipe", Stop()
    with Fifo(path) as fifo:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        descriptor = fifo.wait_for_reader(stop)
        assert descriptor is not None
        os.close(descriptor)
        os.close(reader)
        stop.request()
        assert fifo.wait_for_reader(stop) is None
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="no FIFO"):
        Fifo(path)
    assert path.read_text() == "mine"
    os.mkfifo(tmp_path / "theirs")
    with Fifo(tmp_path / "theirs"):
        pass
    assert Path(tmp_path / "theirs").exists(), "not ours"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cam9"], "no camera 'cam9'; cameras: cam0"),
        (["--format", "h264", "--fps", "5"], "--fps, --size and --from do not go with it"),
        (["--format", "mp4", "--from", "lores"], "--fps, --size and --from do not go with it"),
        (["--from", "lores"], "cam0 has no small ring: set [ring.downscale] enable = true"),
        (["--size", "0x5"], "expected WIDTHxHEIGHT"),
        (["--size", "99999x5"], "expected WIDTHxHEIGHT"),
        (["--fps", "0"], "expected frames a second"),
        (["--fps", "1/0"], "expected frames a second"),
        (["--quality", "0"], "expected 1 to 100"),
        (["--write-fifo", "config.toml"], "a file that is no FIFO"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Stop, "catch_signals", lambda *_: None)
    (tmp_path / "config.toml").write_text("")
    try:
        code = main(["--config", "config.toml", "pipe", *words])
    except SystemExit as end:
        code = end.code
    assert code in (1, 2) and told in capsys.readouterr().err
