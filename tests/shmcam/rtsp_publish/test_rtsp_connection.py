"""Publishing to servers that stop at any step, by TCP and TLS; and to FFmpeg, which receives what was sent."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import subprocess
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from shm_ring.records.packets import split_nal_units
from shmcam.rtsp_publish import rtsp_connection
from shmcam.rtsp_publish.publisher import Publisher
from shmcam.rtsp_publish.rtsp_connection import Stopped, open_stream
from shmcam.runtime.stop import Stop
from shmcam.video.annexb import ParameterSets, find_parameter_sets
from tests.machine import until
from tests.pipeline import free_port

SETS = ParameterSets(b"\x67\x64\x00\x28\xac", b"\x68\xee\x3c\x80")
KEY = b"".join(b"\0\0\0\1" + nal_unit for nal_unit in (SETS.sps, SETS.pps, b"\x65" + b"\xaa" * 300_000))
STEPS = ("accept", "OPTIONS", "ANNOUNCE", "SETUP", "RECORD", "data")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out certificate.pem"
    subprocess.run(["openssl", *words.split()], cwd=folder, capture_output=True, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


class Server:
    """A server in a thread that answers up to a step of STEPS, and then does what it is told."""

    def __init__(self, scheme: str, context: ssl.SSLContext, last: str, then: str = "silent") -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"{scheme}://ann:secret@127.0.0.1:{self._listening.getsockname()[1]}/cam0"
        self._context = context if scheme == "rtsps" else None
        self._last, self._then = last, then
        self.asked: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listening.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            sock = stack.enter_context(self._listening.accept()[0])
            if self._last == "accept":
                self._end(sock)
                return
            if self._context:
                sock = stack.enter_context(self._context.wrap_socket(sock, server_side=True))
            while request := sock.recv(4096).decode("latin-1"):
                method, number = request.split()[0], request.partition("CSeq: ")[2].partition("\r")[0]
                self.asked.append(method)
                if method != self._last:
                    sock.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1;timeout=60\r\n\r\n".encode())
                if method in (self._last, "RECORD"):
                    self._end(sock)
                    return

    def _end(self, sock: socket.socket) -> None:
        match self._then:
            case "silent":
                self._over.wait(30)
            case "drip":
                for letter in b"RTSP/1.0 200 OK\r\nServer: " + b"x" * 9999:
                    if self._over.wait(0.02):
                        return
                    sock.send(bytes((letter,)))
            case "flood":
                while not self._over.is_set():
                    sock.sendall(b"RTSP/1.0 200 OK\r\nCSeq: 999\r\n\r\n" * 100)
            case "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(rtsp_connection, "CONNECT_S", 0.4)
    monkeypatch.setattr(rtsp_connection, "SILENT_S", 0.4)


def publish(url: str, stop: Stop) -> None:
    with open_stream(url, "cam0", SETS, stop) as connection:
        for number in itertools.count():
            connection.send_unit(KEY, number * 40_000)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps"])
@pytest.mark.parametrize(
    ("last", "then", "reason"),
    [
        *((step, "silent", "no answer") for step in STEPS),
        *((step, "drip", "no answer|no RTSP server") for step in ("ANNOUNCE", "data")),
        *((step, "flood", "no answer|no RTSP server") for step in ("ANNOUNCE", "data")),
        *((step, "reset", "reset|ended|EOF|pipe|SSL") for step in STEPS),
    ],
)
def test_a_server_that_stops_at_any_step_is_given_up_in_time(scheme, last, then, reason, certificate, impatient):
    """FFmpeg's muxer waited for some without end, and by TLS wrote into nothing while the status said `published`."""
    with Server(scheme, certificate, last, then) as server:
        began_s = time.monotonic()
        with pytest.raises(OSError, match=reason):
            publish(server.url, Stop())
        assert time.monotonic() - began_s < 10, "against hangs"
        if last not in ("accept", "data"):
            assert server.asked[-1] == last


def test_a_server_that_takes_nothing_has_the_same_words_where_the_kernel_gives_it_up(
    certificate, impatient, monkeypatch
):
    """On a busy machine the status said `[Errno 110] Connection timed out` for what was `no answer in time`."""
    with (
        Server("rtsp", certificate, "data") as server,
        pytest.raises(TimeoutError, match=r"^no answer in time$"),
        open_stream(server.url, "cam0", SETS, Stop()) as connection,
    ):
        monkeypatch.setattr(rtsp_connection, "SILENT_S", 60.0)  # the kernel's limit stays 0.4 s
        for number in itertools.count():
            connection.send_unit(KEY, number * 40_000)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps"])
@pytest.mark.parametrize("last", STEPS)
def test_the_process_can_be_stopped_while_it_waits_for_a_server(scheme, last, certificate):
    stop, seen = Stop(), []

    def run() -> None:
        try:
            publish(server.url, stop)
        except OSError as error:
            seen.append((error, time.monotonic()))

    with Server(scheme, certificate, last) as server:
        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: server.asked[-1:] == [last if last != "data" else "RECORD"] or last == "accept", 10)
        asked_s = time.monotonic()
        stop.request()
        thread.join(20)
    assert isinstance(seen[0][0], Stopped)
    assert seen[0][1] - asked_s < 2.0


def test_the_status_names_a_server_that_takes_nothing_any_more(certificate, impatient, monkeypatch):
    stop = Stop()
    unit = SimpleNamespace(key=True, data=KEY, pts_us=0)
    monkeypatch.setattr("shmcam.rtsp_publish.publisher.follow", lambda _ring, idle_s: itertools.repeat(unit))
    with Server("rtsps", certificate, "data") as server:
        publisher = Publisher("cam0", server.url, None, stop)
        thread = threading.Thread(target=publisher.run)
        thread.start()
        until(lambda: publisher.status.state == "retrying", 10, lambda: str(publisher.status))
        assert publisher.status.reason == f"{server.url.replace('ann:secret@', '')}: no answer in time"
        assert publisher.status.connections == 1
        stop.request()
        thread.join(20)
        assert not thread.is_alive()


def test_a_name_that_no_resolver_answers_is_waited_for_no_longer_than_a_server(impatient, monkeypatch):
    """getaddrinfo has no time limit, and nothing ends it."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    with pytest.raises(TimeoutError):
        publish("rtsp://camera.example/x", Stop())
    over.set()


def test_words_for_servers_that_speak_no_rtsp_or_no_tls(certificate, impatient):
    with Server("rtsp", certificate, "OPTIONS", "drip") as plain, pytest.raises(OSError, match="WRONG_VERSION"):
        publish(plain.url.replace("rtsp:", "rtsps:"), Stop())
    with (
        Server("rtsps", certificate, "OPTIONS") as tls,
        pytest.raises(OSError, match=r"no RTSP|ended the connection|reset"),
    ):
        publish(tls.url.replace("rtsps:", "rtsp:"), Stop())


def test_ffmpeg_receives_each_unit_as_it_was():
    """As its RTSP server; sizes around the largest packet among them, and times that are not even."""
    port, received = free_port(), []
    units = list(encode(24))

    def receive() -> None:
        options = {"rtsp_flags": "listen", "listen_timeout": "20"}
        with av.open(f"rtsp://127.0.0.1:{port}/cam0", options=options) as container:
            for packet in container.demux(video=0):
                if packet.size:
                    received.append((bytes(packet), packet.pts))

    thread = threading.Thread(target=receive)
    thread.start()
    sets = find_parameter_sets(units[0])
    until(lambda: is_listening(port), 10)
    with open_stream(f"rtsp://127.0.0.1:{port}/cam0", "cam0", sets, Stop()) as connection:
        for number, unit in enumerate(units):
            connection.send_unit(unit, number * 33_333)
    thread.join(30)
    assert [nal_units_of(data) for data, _ in received] == [nal_units_of(unit) for unit in units]
    times = [at for _, at in received[1:]]  # the first has none
    assert {later - earlier for earlier, later in itertools.pairwise(times)} <= {2999, 3000}, "33.3 ms of 90 kHz"


def encode(count: int):
    """Units of x264: noise, so that they are larger than a packet, and grey ones that are small."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 320, 240, "yuv420p", Fraction(1, 30)
    codec.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=8"}
    random = np.random.default_rng(1)
    for number in range(count):
        plane = random.integers(0, 255, (360, 320), np.uint8) if number % 3 else np.full((360, 320), 128, np.uint8)
        frame = av.VideoFrame.from_ndarray(plane, "yuv420p")
        frame.pts = number
        yield from (bytes(packet) for packet in codec.encode(frame))


def nal_units_of(data: bytes) -> list[bytes]:
    return [nal_unit for nal_unit in split_nal_units(data) if nal_unit[0] & 0x1F not in (7, 8, 9)]


def is_listening(port: int) -> bool:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
