"""The real process on real rings: `python -m streamer` beside a writer in this test, outside clients looking on."""

import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from shm_ring import FrameMeta, RingReader, RingWriter, segment_name
from shm_ring.formats import geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns, utc_offset_ns
from tests.machine import PATIENCE, until
from tests.pipeline import free_port
from tests.programs import Program

WIDTH, HEIGHT = 320, 240


class Camera(threading.Thread):
    """Publishes frames that carry their number, until stopped; a size of one's own makes a new generation."""

    def __init__(
        self,
        folder: Path,
        prefix: str,
        fps: float = 30.0,
        size: tuple[int, int] = (WIDTH, HEIGHT),
        stream: str = "main",
        first: int = 0,
        pixel_format: str = "yuv420p",
    ) -> None:
        super().__init__(daemon=True)
        self.folder, self.prefix, self.fps, self.shape = folder, prefix, fps, geometry(pixel_format, *size)
        self.stream, self.first, self.clock = stream, first, now_ns
        self.ended = threading.Event()
        self.noise = 0

    def run(self) -> None:
        payload = np.full(self.shape.payload_bytes, 128, np.uint8)
        luma = planes(payload, self.shape)[0]
        random = np.random.default_rng(3)
        with RingWriter.create(
            f"/{self.prefix}.cam0.{self.stream}", slots=16, payload_bytes=self.shape.payload_bytes,
            lock_dir=self.folder, camera="cam0", stream=self.stream,
        ) as ring:  # fmt: skip
            while not self.ended.wait(1 / self.fps):
                number = max(self.first, ring.next_frame_id)
                luma[:] = 100
                if self.noise:
                    luma[:] = random.normal(100, self.noise, luma.shape).clip(0, 255)
                for plane in [luma] if luma.ndim == 2 else np.moveaxis(luma, 2, 0):
                    frame_number_code.draw(plane, number)
                now = self.clock()
                meta = FrameMeta(number, now, now + utc_offset_ns(), frame_duration_us=round(1e6 / self.fps))
                ring.publish(payload, meta, self.shape)

    def __enter__(self) -> "Camera":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join(PATIENCE * 10)


class Streamer:
    def __init__(self, folder: Path, text: str = "", program: tuple[str, str] = ("-m", "streamer")) -> None:
        self.prefix, self.port, self.folder = f"t{secrets.token_hex(4)}", free_port(), folder
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "config.toml").write_text(
            f'[ring]\nprefix = "{self.prefix}"\n[mjpeg_server]\nport = {self.port}\nstale_after_s = 1.0\n{text}'
        )
        self.process = Program(
            [sys.executable, *program, "--config", str(folder / "config.toml")],
            stderr=subprocess.PIPE,
            text=True,
        )

    def get(self, path: str, seconds: float = 10.0) -> tuple[int, dict, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE * seconds) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, dict(refused.headers), refused.read()

    def up(self) -> bool:
        assert self.process.poll() is None, self.process.stderr.read()
        try:
            return bool(self.get("/state", 2)[0] == 200)
        except OSError:
            return False

    def remove_segments(self) -> None:
        for left in Path("/dev/shm").glob(f"{self.prefix}.*"):
            left.unlink()


@contextmanager
def streaming(folder: Path, text: str = ""):
    streamer = Streamer(folder, text)
    try:
        until(streamer.up, 20, "the streamer to answer")
        yield streamer
    finally:
        streamer.process.terminate()
        assert streamer.process.wait(PATIENCE * 10) == 0
        streamer.remove_segments()


def shown(jpeg: bytes) -> int | None:
    if not jpeg.startswith(b"\xff\xd8"):
        return None  # the answer says in JSON that there is no picture yet
    return frame_number_code.read(simplejpeg.decode_jpeg(jpeg, colorspace="GRAY")[:, :, 0])


def parts(stream):
    """Headers and body of each part of an open stream."""
    while True:
        line = stream.readline()
        if not line:
            return
        if line.strip() in (b"", b"--frame"):
            continue
        headers = {}
        while line.strip():
            name, _, value = line.decode().partition(":")
            headers[name] = value.strip()
            line = stream.readline()
        yield headers, stream.read(int(headers["Content-Length"]))


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A streamer with a camera that runs, for the tests that only look."""
    folder = tmp_path_factory.mktemp("watched")
    with streaming(folder) as streamer, Camera(folder, streamer.prefix) as streamer.camera:
        until(lambda: streamer.get("/snapshot.jpg")[0] == 200, 10)
        yield streamer


def test_pixels_on_the_stream_are_those_of_the_ring(watched):
    with urllib.request.urlopen(f"{watched.url}/stream", timeout=PATIENCE * 10) as stream:
        numbers = []
        for headers, body in parts(stream):
            if "X-Signal" in headers:
                continue
            assert shown(body) == int(headers["X-Frame-Id"])
            numbers.append(int(headers["X-Frame-Id"]))
            if len(numbers) == 30:
                break
    assert numbers == sorted(set(numbers))
    status, headers, body = watched.get("/snapshot.jpg?width=160&gray=1")
    assert status == 200
    assert simplejpeg.decode_jpeg_header(body)[:3] == (120, 160, "Gray")


def test_without_viewers_the_streamer_sleeps_through_the_frames_and_wakes_at_once(tmp_path):
    """It woke for each frame, only to know the camera's rate."""
    with streaming(tmp_path) as streamer, Camera(tmp_path, streamer.prefix, fps=120.0):
        until(lambda: streamer.get("/snapshot.jpg")[0] == 200, 20, "a first picture")
        with RingReader.open(segment_name(streamer.prefix, "cam0", "main")) as ring:
            first, before = ring.head, _count_switches(streamer.process.pid)
            until(lambda: ring.head > first + 240, 20, "frames")
            assert _count_switches(streamer.process.pid) - before < (ring.head - first) / 2
            until(lambda: 60 < _fps_of(streamer) < 240, 20, lambda: f"the camera's rate, not {_fps_of(streamer)}")
            newest = ring.head
            assert int(streamer.get("/snapshot.jpg")[1]["X-Frame-Id"]) >= newest - 3


def _count_switches(pid: int) -> int:
    """Times that the threads of a process began to wait."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    lines = [line for task in tasks for line in task.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


def _fps_of(streamer: "Streamer") -> float:
    return json.loads(streamer.get("/state")[2])["result"]["source"]["captured_fps"]


def test_viewers_stay_while_the_camera_is_away_and_are_told(tmp_path):
    """One viewer over a whole life: no camera yet, a camera, none again, and another one of another size."""
    with (
        streaming(tmp_path) as streamer,
        urllib.request.urlopen(f"{streamer.url}/stream", timeout=PATIENCE * 15) as stream,
    ):
        incoming = parts(stream)
        headers, _ = next(incoming)
        assert (headers["X-Signal"], headers["X-Frame-Id"]) == ("none", "-1")
        assert streamer.get("/snapshot.jpg")[0] == 503
        last = _shows_pictures(tmp_path, streamer, incoming, (WIDTH, HEIGHT))
        headers, body = next(part for part in incoming if "X-Signal" in part[0])
        assert int(headers["X-Frame-Id"]) >= last
        height, width = simplejpeg.decode_jpeg_header(body)[:2]
        assert (width, height) == (WIDTH, HEIGHT), "the player's window does not jump"
        assert "last picture" in json.loads(streamer.get("/healthz")[2])["reasons"][0]
        said = json.loads(streamer.get("/api/v1/cameras/cam0")[2])
        assert (said["live"], said["fps"], said["night"]) == (False, 0.0, None), "what was is not told as if it were"
        assert b'shmcam_camera_fps{camera="cam0"} 0.0' in streamer.get("/metrics")[2]
        after = _shows_pictures(tmp_path, streamer, incoming, (640, 360))
        assert after > last, "frame ids go on over generations"


def _shows_pictures(folder, streamer, incoming, size) -> int:
    with Camera(folder, streamer.prefix, size=size):
        for headers, body in incoming:
            if "X-Signal" not in headers:
                height, width = simplejpeg.decode_jpeg_header(body)[:2]
                if (width, height) == size:
                    return int(headers["X-Frame-Id"])
    raise AssertionError("the stream ended")


def test_a_stack_is_less_noisy_than_a_frame_and_nobody_elses_business(watched):
    def spread(query: str) -> float:
        body = watched.get(f"/snapshot.jpg?quality=95{query}")[2]
        return float(simplejpeg.decode_jpeg(body, colorspace="GRAY")[60:, :, 0].std())

    with RingReader.open(segment_name(watched.prefix, "cam0", "main")) as ring:
        watched.camera.noise, first = 20, ring.head
        until(lambda: ring.head > first + 12, 20, "eight frames with noise")
    plain, stacked = spread(""), spread("&stack=8")
    watched.camera.noise = 0
    assert stacked < plain / 2, f"8 frames averaged: {plain:.1f} to {stacked:.1f}, expected a factor of 2.8"


def test_ffmpeg_reads_the_stream_as_any_player_would(watched):
    import av

    with av.open(f"{watched.url}/stream", format="mpjpeg", timeout=PATIENCE * 10) as container:
        numbers = []
        for frame in container.decode(video=0):
            numbers.append(frame_number_code.read(frame.to_ndarray(format="gray")))
            if len(numbers) == 10:
                break
    assert numbers == sorted(set(numbers))


def test_opencv_reads_the_stream(watched):
    import cv2

    capture = cv2.VideoCapture(f"{watched.url}/?action=stream")
    try:
        found = [capture.read() for _ in range(5)]
    finally:
        capture.release()
    assert all(ok for ok, _ in found)
    assert found[-1][1].shape == (HEIGHT, WIDTH, 3)


def test_a_killed_streamer_leaves_nothing_and_comes_back(tmp_path):
    streamer = Streamer(tmp_path)
    with Camera(tmp_path, streamer.prefix):
        until(streamer.up, 20)
        streamer.process.kill()
        assert streamer.process.wait(PATIENCE * 10) == -signal.SIGKILL
        again = Streamer(tmp_path)
        try:
            again.prefix, again.port = streamer.prefix, again.port
            until(again.up, 20, "the port to be free at once")
        finally:
            again.process.terminate()
            assert again.process.wait(PATIENCE * 10) == 0
    streamer.remove_segments()


def test_an_open_address_without_a_secret_ends_with_78_and_one_line(tmp_path):
    streamer = Streamer(tmp_path, '[http]\nbind = "0.0.0.0"\n')
    _, said = streamer.process.communicate(timeout=PATIENCE * 20)
    assert streamer.process.returncode == 78
    written = said + "".join(path.read_text() for path in (tmp_path / "logs").glob("streamer*"))
    assert "reachable from other machines; set http.token" in written
    assert "Traceback" not in written


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[http]\ntoken = "short"\n', "http.token: 5 characters; must be at least 16"),
        ('[http]\npassword = "short"\n', "http.password: 5 characters; must be at least 8"),
        ('[http]\ntls_cert = "cert.pem"\n', "tls_cert and http.tls_key belong together"),
        ('[http]\ntls_cert = "a.pem"\ntls_key = "b.pem"\n', "cannot be used"),
    ],
)
def test_settings_that_cannot_serve_are_refused_with_the_reason(tmp_path, text, reason):
    from streamer.http.server import CannotServe, credentials_of, load_tls
    from streamer.settings import HttpSettings
    from tests.streamer.harness import settings_of

    settings = settings_of(tmp_path, text)
    with pytest.raises(CannotServe, match=reason):
        credentials_of(settings.table(HttpSettings))
        load_tls(settings)


def test_no_secret_comes_into_the_log(tmp_path):
    """Neither the right one in a URL nor a wrong one, and nothing that would move a terminal's cursor."""
    right, wrong = "t" * 24, "almost-the-token-of-mine"
    streamer = Streamer(
        tmp_path, f'[http]\ntoken = "{right}"\npassword = "correct horse"\n[logging]\nlevel = "DEBUG"\n'
    )
    try:
        until(lambda: _status(streamer, "/state") == 401, 20, "the streamer to answer")
        with Camera(tmp_path, streamer.prefix):
            until(lambda: _status(streamer, f"/snapshot.jpg?token={right}") == 200, 20)
            for path in ("/", "/stream?fps=x", "/nowhere", "/api/v1/library/1/file", "/live.mp4?cam=cam9"):
                joint = "&" if "?" in path else "?"
                _status(streamer, f"{path}{joint}token={right}")
                _status(streamer, f"{path}{joint}token={wrong}")
            with socket.create_connection(("127.0.0.1", streamer.port)) as peer:
                peer.sendall(f"GET /\x1b[2J?token={right} HTTP/9.9\r\nAuthorization: Bearer {right}\r\n\r\n".encode())
                peer.recv(1000)
    finally:
        streamer.process.terminate()
        said = streamer.process.communicate(timeout=PATIENCE * 10)[1]
        streamer.remove_segments()
    said += "".join(path.read_text() for path in (tmp_path / "logs").glob("*"))
    assert "ready" in said
    for secret in (right, wrong, "correct horse", "\x1b[2J"):
        assert secret not in said


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False)])
def test_a_secret_that_everybody_can_read_is_warned_of(tmp_path, caplog, mode, warned):
    from streamer.http.server import warn_if_readable
    from tests.streamer.harness import settings_of

    settings = settings_of(tmp_path, f'[http]\ntoken = "{"t" * 24}"\n')
    settings.path.chmod(mode)
    warn_if_readable(settings)
    assert ("chmod o=" in caplog.text) == warned
    assert "ttt" not in caplog.text


def _status(streamer: Streamer, path: str) -> int:
    try:
        return streamer.get(path)[0]
    except OSError:
        return 0


def test_a_taken_port_is_said_and_waited_for(tmp_path):

    streamer = Streamer.__new__(Streamer)
    streamer.port = free_port()
    (tmp_path / "config.toml").write_text(f"[mjpeg_server]\nport = {streamer.port}\n")
    command = [sys.executable, "-m", "streamer", "--config", str(tmp_path / "config.toml")]
    log = tmp_path / "logs/streamer.log"
    with socket.create_server(("127.0.0.1", streamer.port)):
        streamer.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = f"cannot listen on 127.0.0.1:{streamer.port}"
        until(lambda: log.exists() and said in log.read_text(), 20, "the reason in the log")
    try:
        streamer.url = f"http://127.0.0.1:{streamer.port}"
        until(streamer.up, 20, "the port to be taken once it is free")
    finally:
        streamer.process.terminate()
        assert streamer.process.wait(PATIENCE * 10) == 0


def test_https_with_a_certificate_of_our_own(tmp_path):
    import ssl

    from shmcam.cli.certificate import main

    assert main(["--folder", str(tmp_path / "tls"), "--name", "camera.example"]) == 0
    assert main(["--folder", str(tmp_path / "tls")]) == 1, "not replaced without --force"
    assert (tmp_path / "tls/key.pem").stat().st_mode & 0o777 == 0o600
    streamer = Streamer(tmp_path, '[http]\ntls_cert = "tls/cert.pem"\ntls_key = "tls/key.pem"\n')
    trusting = ssl.create_default_context(cafile=str(tmp_path / "tls/cert.pem"))
    try:
        with Camera(tmp_path, streamer.prefix):

            def first() -> bytes:
                try:
                    url = f"https://localhost:{streamer.port}/snapshot.jpg"
                    return urllib.request.urlopen(url, timeout=PATIENCE * 5, context=trusting).read()
                except OSError:
                    return b""

            assert shown(until(first, 20, "a picture over TLS")) is not None
            with urllib.request.urlopen(
                f"https://127.0.0.1:{streamer.port}/stream", timeout=PATIENCE * 10, context=trusting
            ) as stream:
                numbers = [
                    int(headers["X-Frame-Id"]) for (headers, _), _ in zip(parts(stream), range(30), strict=False)
                ]
            assert numbers == sorted(set(numbers)), "high-water marks of TLS transports do not stall the stream"
    finally:
        streamer.process.terminate()
        assert streamer.process.wait(PATIENCE * 10) == 0
        streamer.remove_segments()


def test_it_stays_up_and_idle_when_it_is_switched_off(tmp_path):
    (tmp_path / "config.toml").write_text("[mjpeg_server]\nenable = false\n")
    process = subprocess.Popen([sys.executable, "-m", "streamer", "--config", str(tmp_path / "config.toml")])
    log = tmp_path / "logs/streamer.log"
    until(lambda: log.exists() and "started" in log.read_text(), 20)
    time.sleep(0.5)  # in which it could end
    assert process.poll() is None
    process.terminate()
    assert process.wait(PATIENCE * 10) == 0


def test_a_stack_begins_with_what_the_ring_holds_and_anew_at_another_exposure(tmp_path):
    from shm_ring import RingReader
    from streamer.pictures.live_stack import LiveStacks

    shape = geometry("gray", 64, 48)
    name = f"/t{secrets.token_hex(4)}.cam0.main"

    def publish(ring, value: int, exposure_us: int) -> None:
        now = now_ns()
        meta = FrameMeta(ring.next_frame_id, now, now, exposure_us=exposure_us, analogue_gain=1.0)
        ring.publish(np.full(shape.payload_bytes, value, np.uint8), meta, shape)

    with (
        RingWriter.create(
            name, slots=16, payload_bytes=shape.payload_bytes, lock_dir=tmp_path, camera="cam0", stream="main"
        ) as ring,
        RingReader.open(name) as reader,
    ):
        for value in (90, 100, 110, 100):
            publish(ring, value, 10_000)
        stacks = LiveStacks()
        with reader.borrow(3) as frame:
            stacks.add(reader, frame, [4])
            assert abs(int(stacks.payload_of(frame, 4)[0]) - 101) <= 1, (
                "the mean of four, newer ones weigh a little more"
            )
            assert stacks.payload_of(frame, 1)[0] == 100
            assert not stacks.has(8)
        publish(ring, 30, 2_000_000)
        with reader.borrow(4) as frame:
            stacks.add(reader, frame, [4])
            assert stacks.payload_of(frame, 4)[0] == 30, "night is not blended into day"
        ring.retire()


def test_whoever_is_connected_does_not_hold_its_end_up(tmp_path):
    """Left alone, aiohttp waits 60 s for handlers to come to an end; supervisord kills after 5."""
    streamer = Streamer(tmp_path)
    with Camera(tmp_path, streamer.prefix):
        until(streamer.up, 20)
        asked = ("GET /stream", "GET /live.mp4", "GET /snapshot.jpg", "GET /healthz", "GET")
        held = [socket.create_connection(("127.0.0.1", streamer.port)) for _ in asked]
        for sock, line in zip(held, asked, strict=True):
            sock.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"[: 200 if line != "GET" else 3].encode())
        handshake = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        held.append(socket.create_connection(("127.0.0.1", streamer.port)))
        held[-1].sendall(
            f"{handshake}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert b"101" in held[-1].recv(100)
        streamer.process.terminate()
        try:
            assert streamer.process.wait(PATIENCE * 15) == 0
        finally:
            streamer.process.kill()
    streamer.remove_segments()


FAILING_FEED = """
import runpy
from streamer.pictures.feed import Feed
def fail(self, reader, sequence):
    raise ZeroDivisionError("a fault of ours")
Feed._handle_frame = fail
runpy.run_module("streamer", run_name="__main__")
"""


def test_a_feed_that_fails_ends_the_process_with_an_error(tmp_path):
    """An end with 0 would look like a stop in supervisord's log."""
    streamer = Streamer(tmp_path, program=("-c", FAILING_FEED))
    try:
        until(streamer.up, 20, "the streamer to answer")
        with Camera(tmp_path, streamer.prefix):
            assert streamer.process.wait(PATIENCE * 20) == 1
    finally:
        streamer.process.kill()
        streamer.process.communicate()
        streamer.remove_segments()
    written = "".join(path.read_text() for path in (tmp_path / "logs").glob("streamer*"))
    assert "ZeroDivisionError: a fault of ours" in written


def test_a_segment_that_is_no_ring_is_waited_out(tmp_path):
    """It ended the streamer, and with it the page that could have told of it."""
    with streaming(tmp_path) as streamer:
        Path(f"/dev/shm/{streamer.prefix}.cam0.main").write_bytes(b"no ring at all" * 1000)
        log = tmp_path / "logs" / "streamer.log"
        until(lambda: "waiting for another one" in log.read_text(), 20, "the segment to be seen")
        assert streamer.up()
        with Camera(tmp_path, streamer.prefix):
            until(
                lambda: shown(streamer.get("/snapshot.jpg")[2]) is not None, 20, "pictures of the ring that replaced it"
            )
