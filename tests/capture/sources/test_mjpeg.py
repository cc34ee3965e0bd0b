"""MJPEG over HTTP: pictures found in what cameras really send, decoded whole or not at all, timed by their arrival."""

import base64
import hashlib
import itertools
import re
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import simplejpeg

from capture.sources.base import CameraError, CameraRequest, GeometryChanged
from capture.sources.decoded_frame import form_of
from capture.sources.mjpeg.camera_clock import CameraClock
from capture.sources.mjpeg.jpeg_decoder import JpegDecoder, UnusablePicture
from capture.sources.mjpeg.picture_scanner import PICTURE_LIMIT_BYTES, PictureScanner, boundary_of
from capture.sources.mjpeg.source import HttpSource
from capture.sources.pyav_stream import LiveSource
from capture.sources.stream_address import Address, parse_url
from shm_ring.formats import planes
from shmcam.imaging import frame_number_code
from shmcam.network.http_auth import choose_challenge
from shmcam.runtime.stop import Stop
from tests.capture.harness import Processes
from tests.capture.servers import picture
from tests.machine import needs, until

PICTURES = [picture(number) for number in range(6)]
NOISE = np.random.default_rng(4).integers(0, 255, 2000, np.uint8).tobytes().replace(b"\xff", b"\xfe")


def part(jpeg, boundary=b"--cut", newline=b"\r\n", length=True, more=b"", kind=b"image/jpeg"):
    said = b"Content-Length: %d" % len(jpeg) + newline if length else b""
    return boundary + newline + b"Content-Type: " + kind + newline + said + more + newline + jpeg + newline


def scan(data, boundary=b"cut", piece=None):
    """The pictures of an answer that comes in pieces of so many bytes."""
    scanner, found = PictureScanner(boundary), []
    for at in range(0, len(data), piece or len(data)):
        found += scanner.feed(data[at : at + (piece or len(data))], at + 1)
    return [*found, *scanner.end()]


def parts(*options, **more):
    return b"".join(part(jpeg, *options, **more) for jpeg in PICTURES)


THUMBNAIL = PICTURES[0][:2] + b"\xff\xe1" + (len(PICTURES[5]) + 2).to_bytes(2, "big") + PICTURES[5] + PICTURES[0][2:]
STREAMS = {
    "plain": parts(),
    "no lengths": parts(length=False),
    "bare line feeds": parts(newline=b"\n"),
    "a boundary with its own dashes": parts(b"----cut"),
    "another boundary than announced": parts(b"--other"),
    "no boundary before the first": parts().removeprefix(b"--cut\r\n"),
    "a preamble": b"this is\r\n--no part, but text\r\n" + parts(),
    "bytes between the parts": b"".join(part(jpeg) + b"\0\0between\0\r\n" for jpeg in PICTURES),
    "lengths too small": b"".join(part(jpeg).replace(b"Length: ", b"Length: 1\r\nX: ") for jpeg in PICTURES),
    "lengths too large": b"".join(part(jpeg).replace(b"Length: ", b"Length: 9") for jpeg in PICTURES),
    "each part begun and ended": b"".join(part(jpeg) + b"--cut\r\n" for jpeg in PICTURES),
    "closed": parts() + b"--cut--\r\n",
    "no parts at all": b"".join(PICTURES),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("piece", [None, 1, 997])
def test_pictures_are_found_however_a_camera_writes_them(name, piece):
    found = scan(STREAMS[name], piece=piece)
    assert [one.jpeg for one in found] == PICTURES
    assert all(one.is_complete and not one.lost_before for one in found)


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_pictures_without_an_end_are_whole_all_the_same(length, newline):
    """Some cameras leave out the last two bytes; the last byte before may look like the end of a line."""
    data = b"".join(part(jpeg[:-2], newline=newline, length=length) for jpeg in PICTURES) + b"--cut"
    found = scan(data, piece=100)
    assert [one.jpeg for one in found][:-1] == [jpeg[:-2] for jpeg in PICTURES][:-1]
    decoder = JpegDecoder()
    for number, one in enumerate(found[:-1]):
        frame = decoder.decode(one.jpeg, is_complete=one.is_complete)
        assert frame_number_code.read(frame.to_ndarray()[:240]) == number


def test_a_length_that_was_right_until_now_is_not_believed_for_ever():
    """A camera that is cut off inside a picture begins the next one where the length did not expect it."""
    data = part(PICTURES[0]) + part(PICTURES[1])[:1000] + b"\r\n" + b"".join(map(part, PICTURES[2:]))
    for piece in (None, 1, 997):
        found = scan(data, piece=piece)
        assert [one.jpeg for one in found if one.is_complete] == [PICTURES[0], *PICTURES[2:]]
        assert len(found) == len(PICTURES)


def test_a_part_without_an_end_is_not_waited_for_longer_than_its_length():
    scanner = PictureScanner(b"cut")
    assert [one.jpeg for one in scanner.feed(part(PICTURES[0][:-2]), 1)] == [PICTURES[0][:-2]], "a period too late"


UNUSABLE = {
    "noise": NOISE,
    "empty": b"",
    "zeros": bytes(2000),
    "text": b"camera is busy",
    "header only": PICTURES[0][:20],
    "tables only": PICTURES[0][:600],
    "cut": PICTURES[0][: len(PICTURES[0]) // 2],
    "a little cut": PICTURES[0][:-60],
    "cut, with an end": PICTURES[0][: len(PICTURES[0]) // 2] + b"\xff\xd9",
    "noise behind the start": b"\xff\xd8\xff\xe0" + NOISE,
    "beginning and end": b"\xff\xd8\xff\xd9",
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("length", [True, False])
def test_an_unusable_part_is_one_lost_picture_and_no_other(name, length):
    data = b"".join(part(jpeg, length=length) for jpeg in (PICTURES[0], UNUSABLE[name], *PICTURES[1:]))
    decoder, numbers, lost = JpegDecoder(), [], 0
    for one in scan(data, piece=1000):
        lost += one.lost_before
        try:
            frame = decoder.decode(one.jpeg, is_complete=one.is_complete)
            numbers.append(frame_number_code.read(frame.to_ndarray()[:240]))
        except UnusablePicture:
            lost += 1
    assert numbers == [0, 1, 2, 3, 4, 5]
    assert lost == 1


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("piece", [None, 113])
def test_a_picture_that_is_cut_off_anywhere_in_its_head_takes_none_of_the_next_one(length, piece):
    """Inside a table its length reached into the next part: both became one picture, and nothing was lost."""
    for end in range(1, 640, 3):
        data = b"".join(part(jpeg, length=length) for jpeg in (PICTURES[0], PICTURES[1][:end], PICTURES[2]))
        found = scan(data, piece=piece)
        assert [one.jpeg for one in found if one.is_complete] == [PICTURES[0], PICTURES[2]], end
        assert len(found) + sum(one.lost_before for one in found) == 3, end


def test_a_thumbnail_inside_a_picture_is_no_picture():
    assert [one.jpeg for one in scan(part(THUMBNAIL) + part(PICTURES[1]), piece=500)] == [THUMBNAIL, PICTURES[1]]


def test_what_never_ends_does_not_fill_the_memory():
    scanner = PictureScanner(b"cut")
    endless = [*scanner.feed(part(PICTURES[0]) + PICTURES[1][:700], 1)]
    for _ in range(PICTURE_LIMIT_BYTES // (1 << 20) + 40):
        endless += scanner.feed(b"\x11" * (1 << 20), 1)
    assert len(scanner._buffer) <= 2 << 20
    found = [*scanner.feed(b"\r\n" + part(PICTURES[2]), 1)]
    assert (len(endless), [one.jpeg for one in found], found[0].lost_before) == (1, [PICTURES[2]], 1)


def test_a_camera_s_own_time_and_the_arrival_of_the_first_byte():
    scanner = PictureScanner(b"cut")
    sent = part(PICTURES[0], more=b"x-timestamp: 12.5\r\n")
    assert [*scanner.feed(sent[:300], 7)] == []
    (one,) = scanner.feed(sent[300:], 9)
    assert (one.own_s, one.arrived_ns) == (12.5, 7)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [("multipart/x-mixed-replace; boundary=cut", b"cut"), ('Multipart/Mixed;Boundary="a b"', b"a b"),
     ("image/jpeg", b""), ("multipart/x-mixed-replace;boundary=--cut;x=1", b"cut"),
     ("multipart/x-mixed-replace; boundary=--", b"")],
)  # fmt: skip
def test_boundaries_as_they_are_announced(header, boundary):
    assert boundary_of(header) == boundary


def test_a_picture_that_claims_more_pixels_than_any_camera_has_is_refused_before_memory_is_taken():
    at = PICTURES[0].index(b"\xff\xc0") + 5
    bomb = PICTURES[0][:at] + b"\xff\xf0\xff\xf0" + PICTURES[0][at + 4 :]
    with pytest.raises(UnusablePicture):
        JpegDecoder().decode(bomb)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "Gray"])
def test_every_subsampling_keeps_its_colours(subsampling):
    color = np.full((64, 80, 3), (40, 90, 200), np.uint8)
    jpeg = simplejpeg.encode_jpeg(color if subsampling != "Gray" else color[..., :1].copy(), 95,
                                  "BGR" if subsampling != "Gray" else "Gray", subsampling)  # fmt: skip
    shape = form_of(JpegDecoder().decode(jpeg)).shown
    assert shape.pixel_format == ("gray" if subsampling == "Gray" else "yuv420p")
    assert shape.color_range == "pc"


# ---- time

MS = 1_000_000


def test_times_are_those_of_arrival_where_the_camera_tells_none():
    clock = CameraClock()
    arrivals = [1_000 * MS + n * 200 * MS + (n % 3) * 7 * MS for n in range(50)]
    assert [clock.captured_ns(None, arrived) for arrived in arrivals] == arrivals


def test_a_steady_clock_of_the_camera_takes_the_jitter_out():
    """Ten pictures in one piece every 400 ms: by arrival they would be 1 ms apart, and then 390."""
    clock, times = CameraClock(), []
    for n in range(100):
        times.append(clock.captured_ns(5000 + n / 25, (1_000 + (n // 10) * 400 + 400) * MS))
    gaps = np.diff(times[20:]) / MS
    assert gaps.min() > 39
    assert gaps.max() < 41


@pytest.mark.parametrize(
    "own",
    [lambda n: 0.0, lambda n: float(int(n / 25)), lambda n: 7 + n / 25 * 0.98, lambda n: 9 - n / 25,
     lambda n: 7 + n / 25 - (n > 50), lambda n: 7 + n / 25 + 3600 * (n > 50)],
    ids=["stands still", "whole seconds", "two percent slow", "runs back", "set back", "set forward"],
)  # fmt: skip
def test_a_clock_that_is_not_steady_is_not_believed(own):
    clock, last = CameraClock(), 0
    for n in range(200):
        arrived = 1_000 * MS + n * 40 * MS
        captured = clock.captured_ns(own(n), arrived)
        assert captured - last >= MS
        assert abs(captured - arrived) <= 50 * MS
        last = captured


def test_pictures_that_arrive_together_stay_apart():
    clock = CameraClock()
    times = [clock.captured_ns(None, 500 * MS) for _ in range(4)]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [MS] * 3


# ---- name and password


RFC_CHALLENGE = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


@pytest.mark.parametrize(
    ("headers", "response"),
    [  # RFC 7616 3.9.1
        ([RFC_CHALLENGE.format("SHA-256")], "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        (['Basic realm="x"', RFC_CHALLENGE.format("MD5")], "8ca523f5e9506fed4657c9700eebdbec"),
    ],
)
def test_digest_answers_are_those_of_the_rfc(headers, response):
    challenge = choose_challenge(headers)
    challenge.client_nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    answer = challenge.answer("Mufasa", "Circle of Life", "/dir/index.html")
    assert f'response="{response}"' in answer
    assert "nc=00000001" in answer
    assert "nc=00000002" in challenge.answer("Mufasa", "Circle of Life", "/dir/index.html")


@pytest.mark.parametrize(
    "headers", [[], ['Basic realm="x"'], ['Digest realm="x", nonce="1", algorithm=ROT13'], ["Negotiate"], ["Digest"]]
)
def test_without_a_challenge_that_we_know_basic_must_do(headers):
    assert choose_challenge(headers) is None


def test_two_challenges_in_one_header():
    challenge = choose_challenge(['Basic realm="a", Digest realm="b", nonce="n", qop="auth"'])
    assert challenge.parameters == {"realm": "b", "nonce": "n", "qop": "auth"}


# ---- over a real connection


class Camera:
    """One answer a connection, by `answer(number of the request, its head)`; the requests' heads are kept."""

    def __init__(self, answer, tls=None):
        """`tls`: the ssl.SSLContext of a camera that has https."""
        self.answer, self.requests, self.tls = answer, [], tls

    @contextmanager
    def serve(self):
        self.ending = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.1)
            thread = threading.Thread(target=self._accept, args=(server,), daemon=True)
            thread.start()
            try:
                yield server.getsockname()[1]
            finally:
                self.ending.set()
                thread.join(10)

    def _accept(self, server):
        while not self.ending.is_set():
            try:
                link, _ = server.accept()
            except OSError:
                continue
            threading.Thread(target=self._secure, args=(link,), daemon=True).start()

    def _secure(self, link):
        link.settimeout(10)
        with suppress(OSError):
            self._talk(self.tls.wrap_socket(link, server_side=True) if self.tls else link)

    def _talk(self, link):
        with link:
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    data = link.recv(4096)
                    if not data:
                        return
                    head += data
                self.requests.append(head.decode("latin-1"))
                for data in self.answer(len(self.requests), self.requests[-1]):
                    link.sendall(data)
                    if self.ending.is_set():
                        return
            except OSError:
                return


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n"


def stream(_number=0, _head="", period_s=0.03, jpegs=PICTURES):
    yield HEAD
    for jpeg in itertools.cycle(jpegs):
        yield part(jpeg)
        time.sleep(period_s)


def read(port, count, *, user="", path="/stream", framerate=20.0, limit_s=20, scheme="http"):
    """Opens the source and takes so many pictures. Returns: what was opened, numbers, metadata, other formats."""
    source, numbers, shots, changes = HttpSource(parse_url(f"{scheme}://{user}127.0.0.1:{port}{path}")), [], [], []
    deadline = time.monotonic() + limit_s
    try:
        opened = source.open(CameraRequest(320, 240, framerate), Stop())
        shape, payload = opened.geometry, np.zeros(1 << 20, np.uint8)
        while len(numbers) < count:
            assert time.monotonic() < deadline, f"{len(numbers)} pictures"
            try:
                if source.wait(1):
                    shots.append(source.write(payload))
                    numbers.append(frame_number_code.read(planes(payload, shape)[0]))
            except GeometryChanged as change:
                shape = change.geometry
                changes.append(shape.pixel_format)
        return opened, numbers, shots, changes
    finally:
        source.close()


def test_pictures_rate_and_losses_of_a_camera_that_sends_one_bad_picture_in_six():
    jpegs = [PICTURES[0], PICTURES[1], b"busy", PICTURES[3], PICTURES[4][:-400], PICTURES[5]]
    camera = Camera(lambda number, head: stream(jpegs=jpegs, period_s=0.02))
    with camera.serve() as port:
        opened, numbers, shots, _ = read(port, 24)
    assert set(numbers) == {0, 1, 3, 5}
    assert opened.counts_losses
    assert 15 < opened.framerate < 51
    steps = [(later - earlier) % 6 for earlier, later in itertools.pairwise(numbers)]
    assert [shot.lost_before for shot in shots[1:]] == [step - 1 for step in steps], "nothing else is lost"
    assert len(camera.requests) == 1, "one connection"


@pytest.mark.parametrize("bad", ["cut", "empty", "noise"])
def test_a_webcam_s_bad_picture_is_one_lost_picture_too(bad):
    """FFmpeg's multipart reader stands in for a V4L2 device; cut pictures came with a grey lower half."""
    jpegs = [PICTURES[0], PICTURES[1], UNUSABLE[bad], *PICTURES[3:]]
    camera = Camera(lambda number, head: stream(jpegs=jpegs))
    with camera.serve() as port:
        source = LiveSource("v4l2", Address(f"http://127.0.0.1:{port}/", "webcam", format="mpjpeg"))
        opened = source.open(CameraRequest(320, 240, 30.0), Stop())
        payload, numbers, lost = np.zeros(opened.geometry.payload_bytes, np.uint8), [], 0
        while len(numbers) < 18:
            assert source.wait(5)
            lost += source.write(payload).lost_before
            numbers.append(frame_number_code.read(planes(payload, opened.geometry)[0]))
        source.close()
    assert set(numbers) == {0, 1, 3, 4, 5}
    assert lost >= 3
    assert len(camera.requests) == 1


def test_grey_at_night_and_colour_by_day_in_one_connection():
    plane = np.full((240, 320, 1), 90, np.uint8)
    grey = simplejpeg.encode_jpeg(plane, 90, "Gray", "Gray")
    camera = Camera(lambda number, head: stream(jpegs=[grey] * 8 + PICTURES))
    with camera.serve() as port:
        _, _, _, changes = read(port, 24)
    assert changes[:2] == ["yuv420p", "gray"]
    assert len(camera.requests) == 1


PASSWORD = "a:b@c ü%&+?#/\\\"'"
ENCODED = "user:a:b@c ü%25&+%3F%23%2F\\\"'@"


def challenge(number, head):
    """Digest, and then the stream, for PASSWORD only."""
    said = dict(re.findall(r'(\w+)="?([^",\r]+)"?', head.partition("Authorization: Digest")[2]))
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731
    secret, request = md5(f"user:Cam:{PASSWORD}"), md5(f"GET:{said.get('uri')}")
    wanted = md5(f"{secret}:n1:{said.get('nc')}:{said.get('cnonce')}:auth:{request}")
    if said.get("response") == wanted:
        yield from stream()
    yield b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="Cam", nonce="n1", qop="auth"\r\n\r\n'


def basic(number, head):
    wanted = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    if f"Authorization: Basic {wanted}" in head:
        yield from stream()
    yield b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="Cam"\r\nContent-Length: 0\r\n\r\n'


@pytest.mark.parametrize("answer", [challenge, basic])
def test_a_camera_that_wants_a_password_gets_it_whatever_is_in_it(answer):
    with Camera(answer).serve() as port:
        read(port, 1, user=ENCODED)
        with pytest.raises(CameraError, match="refuses the name and password"):
            read(port, 1, user="user:wrong@")
        with pytest.raises(CameraError, match="wants a name and a password"):
            read(port, 1)


def test_redirects_are_followed_and_another_machine_does_not_learn_the_password():
    def moved(number, head):
        if head.startswith("GET /stream"):
            yield f"HTTP/1.1 302 Found\r\nLocation: http://localhost:{other_port}/real\r\n\r\n".encode()
        yield b"HTTP/1.1 301 Moved\r\nLocation: /stream\r\n\r\n"

    def asking(number, head):
        if "Authorization" not in head:
            yield b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
        yield from stream()

    other, first = Camera(stream), Camera(moved)
    with other.serve() as other_port, first.serve() as port:
        read(port, 1, path="/start?x=1", user="user:word@")
        assert [request.split()[1] for request in first.requests] == ["/start?x=1", "/stream"]
        assert "Authorization" not in other.requests[0]
    thief = Camera(asking)
    with thief.serve() as other_port, first.serve() as port, pytest.raises(CameraError, match="wants a name"):
        read(port, 1, user="user:word@")
    assert not any("Authorization" in request for request in thief.requests)


@needs("openssl")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
def test_the_https_of_an_old_camera_and_a_redirect_to_it(tmp_path):
    """TLS 1.0 and a certificate of its own, of another name, with a key of 1024 bits: Python refuses each by itself."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-sha1", "-nodes", "-subj", "/CN=cam.invalid"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1
    old.load_cert_chain(cert, key)
    camera = Camera(stream, tls=old)
    with camera.serve() as port:
        moved = Camera(
            lambda number, head: [f"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:{port}/\r\n\r\n".encode()]
        )
        with moved.serve() as plain_port:
            read(plain_port, 1, user="user:word@")
    assert len(camera.requests) == 1


def test_https_where_there_is_none_is_told_in_words():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            link, _ = server.accept()
            with link:
                link.recv(1000)
                link.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(CameraError, match=r"no TLS there: wrong version number; try http://"):
            read(port, 1, scheme="https")


def test_a_camera_that_redirects_for_ever_is_given_up():
    loop = Camera(lambda number, head: [b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n"])
    with loop.serve() as port, pytest.raises(CameraError, match="more than 5 redirects"):
        read(port, 1)


def test_an_address_of_single_pictures_is_asked_at_the_frame_rate_and_unchanged_ones_are_not_sent_again():
    def still(number, head):
        tag = f'"{number // 4}"'
        if f"If-None-Match: {tag}" in head:
            yield f"HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\nConnection: close\r\n\r\n".encode()
            return
        jpeg = PICTURES[number // 4 % 6]
        yield f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nETag: {tag}\r\nContent-Length: {len(jpeg)}\r\n".encode()
        yield b"Connection: close\r\n\r\n" + jpeg

    camera = Camera(still)
    with camera.serve() as port:
        began = time.monotonic()
        _, numbers, shots, _ = read(port, 5, framerate=20)
        took = time.monotonic() - began
    assert [(later - earlier) % 6 for earlier, later in itertools.pairwise(numbers)] == [1] * 4
    assert not any(shot.lost_before for shot in shots)
    assert len(camera.requests) < took * 20 + 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"HTTP/1.1 404 Not Found\r\n\r\n", "answers 404 Not Found"),
     (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>log in", "answers text/html, which is no picture"),
     (b"ICY 200 OK\r\n\r\n", "ICY 200 OK"), (b"", "closed connection")],
)  # fmt: skip
def test_what_is_no_camera_is_told_in_words(answer, words):
    with Camera(lambda number, head: [answer]).serve() as port, pytest.raises(CameraError, match=words):
        read(port, 1)


def test_a_stream_that_is_no_jpeg_is_left_to_ffmpeg():
    def other(number, head):
        yield b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + bytes(4000)

    camera = Camera(other)
    with camera.serve() as port, pytest.raises(CameraError) as error:
        read(port, 1, user="user:pass-word@")
    assert "pass-word" not in str(error.value)
    assert any("Lavf" in request for request in camera.requests)


def test_a_silent_camera_is_told_by_the_status_and_asked_again():
    """The picture must not freeze without a word: the connection is open, and nothing comes any more."""

    def silent(number, head):
        yield HEAD
        for jpeg in PICTURES * 3:
            yield part(jpeg)
            time.sleep(0.04)
        camera.ending.wait(30)

    camera = Camera(silent)
    with camera.serve() as port:
        url = f"http://user:pass-word@127.0.0.1:{port}/s?key=query-word"
        with Processes(camera={"source": "url", "url": url, "lost_after_s": 3.0}) as world:
            world.start_hub()
            world.start_capture()
            until(lambda: world.beat().get("state") == "stalled", 20)
            until(lambda: len(camera.requests) > 1, 20)
            until(lambda: world.beat().get("state") == "running", 20)
            shown = world.log() + world.ask("status").text
    assert "no frame for 3." in shown
    assert "-word" not in shown
