"""Live H.264 from a packets ring to players: a real process, FFmpeg and a WebSocket as clients; the rules beside."""

import asyncio
import json
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from aiohttp import ClientSession

from shm_ring import Flags, FrameMeta, RingWriter
from shm_ring.records.packets import Unit, publish, slot_bytes_for
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns
from shmcam.video.annexb import ParameterSets
from shmcam.video.fmp4_writer import make_fragment, make_header
from streamer.h264.live_video import InitSegment, LiveFeed, LiveVideo, StreamState
from streamer.h264.routes import key_frame_timeout_s
from streamer.h264.viewers import FRAGMENTS_MAX, HttpVideoViewer, RtpVideoViewer, WebSocketVideoViewer
from streamer.pictures.fanout import ViewerSlots
from streamer.pictures.feed import FeedStatus
from tests.machine import PATIENCE, until
from tests.streamer.harness import FakeCamera, soon
from tests.streamer.pictures.test_stream import run
from tests.streamer.test_process import streaming

WIDTH, HEIGHT, FPS, GOP = 320, 240, 25, 25


class Recorder(threading.Thread):
    """Encodes numbered frames into the packets ring as the recorder does."""

    def __init__(self, folder, prefix: str, stream: int = 1) -> None:
        super().__init__(daemon=True)
        self.folder, self.prefix, self.stream = folder, prefix, stream
        self.ended = threading.Event()

    def run(self) -> None:
        codec = av.CodecContext.create("libx264", "w")
        codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        codec.time_base = Fraction(1, 1_000_000)
        codec.options = {
            "preset": "ultrafast", "tune": "zerolatency", "crf": "18",
            "x264-params": f"keyint={GOP}:scenecut=0:repeat-headers=1:annexb=1",
        }  # fmt: skip
        with RingWriter.create(
            f"/{self.prefix}.cam0.h264", slots=128, payload_bytes=slot_bytes_for(WIDTH, HEIGHT), lock_dir=self.folder,
            camera="cam0", stream="h264",
        ) as ring:  # fmt: skip
            number = 0
            while not self.ended.wait(1 / FPS):
                picture = np.full((HEIGHT * 3 // 2, WIDTH), 120, np.uint8)
                frame_number_code.draw(picture[:HEIGHT], number)
                frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
                captured = now_ns()
                frame.pts, frame.time_base = captured // 1000, codec.time_base
                for packet in codec.encode(frame):
                    flags = Flags.KEY if packet.is_keyframe else 0
                    meta = FrameMeta(number, captured, time.time_ns(), flags=int(flags))
                    unit = Unit(bytes(packet), meta, captured // 1000, 1_000_000 // FPS, WIDTH, HEIGHT, self.stream)
                    publish(ring, unit)
                number += 1

    def __enter__(self) -> "Recorder":
        self.start()
        until(Path(f"/dev/shm/{self.prefix}.cam0.h264").exists, 10, "the ring of packets")
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join(PATIENCE * 10)


def encode_units(count: int, preset: str = "ultrafast", stream: int = 1) -> list[Unit]:
    """One group of pictures that ends now: numbered frames on a gradient."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.time_base = Fraction(1, 1_000_000)
    params = f"keyint={count}:min-keyint={count}:scenecut=0:repeat-headers=1:annexb=1"
    codec.options = {"preset": preset, "tune": "zerolatency", "x264-params": params}
    picture = np.full((HEIGHT * 3 // 2, WIDTH), 120, np.uint8)
    picture[:HEIGHT] = np.linspace(0, 255, WIDTH, dtype=np.uint8)
    units, began_ns, period_us = [], now_ns(), 1_000_000 // FPS
    for number in range(count):
        frame_number_code.draw(picture[:HEIGHT], number)
        frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
        captured_ns = began_ns - (count - number) * period_us * 1000
        frame.pts, frame.time_base = captured_ns // 1000, codec.time_base
        for packet in codec.encode(frame):
            meta = FrameMeta(number, captured_ns, 0, flags=int(Flags.KEY) if packet.is_keyframe else 0)
            units.append(Unit(bytes(packet), meta, captured_ns // 1000, period_us, WIDTH, HEIGHT, stream))
    return units


@pytest.fixture(scope="module")
def streamer(tmp_path_factory):
    """A streamer beside a recorder that encodes."""
    folder = tmp_path_factory.mktemp("live")
    with streaming(folder) as streamer, Recorder(folder, streamer.prefix):
        yield streamer


def test_ffmpeg_plays_the_film_frame_by_frame(streamer):
    with av.open(f"{streamer.url}/live.mp4", format="mp4", timeout=PATIENCE * 15) as container:
        numbers, times = [], []
        for frame in container.decode(video=0):
            numbers.append(frame_number_code.read(frame.to_ndarray(format="gray")))
            times.append(frame.time)
            if len(numbers) == 2 * GOP:
                break
    assert numbers == list(range(numbers[0], numbers[0] + 2 * GOP)), "no frame is missing"
    assert times == sorted(set(times))
    assert numbers[0] % GOP == 0, "it begins with a key frame"


def test_a_second_player_begins_within_the_group_of_pictures(streamer):
    with av.open(f"{streamer.url}/live.mp4", format="mp4", timeout=PATIENCE * 15) as first:
        next(first.decode(video=0))
        for _ in range(3):
            with av.open(f"{streamer.url}/cam/cam0/live.mp4", format="mp4", timeout=PATIENCE * 15) as other:
                frame = next(other.decode(video=0))
                assert frame.key_frame
                assert frame_number_code.read(frame.to_ndarray(format="gray")) % GOP == 0


def test_the_websocket_says_what_comes_and_sends_it_in_pieces(streamer):
    async def test():
        async with ClientSession() as session, session.ws_connect(f"{streamer.url}/ws/live?cam=cam0") as socket:
            said = json.loads((await soon(socket.receive())).data)
            assert said["type"] == "film"
            assert said["mime"].startswith('video/mp4; codecs="avc1.')
            assert (said["width"], said["height"]) == (WIDTH, HEIGHT)
            messages = [(await soon(socket.receive())).data for _ in range(8)]
            pieces = [message for message in messages if isinstance(message, bytes)]
            [age, *_] = [json.loads(message) for message in messages if isinstance(message, str)]
            assert age["type"] == "age"
            assert 0 <= age["age_s"] < 60
            assert pieces[0][4:8] == b"ftyp"
            assert all(piece[4:8] == b"moof" for piece in pieces[1:])

    run(test())


def test_without_a_recorder_the_reason_is_told(tmp_path):
    with streaming(tmp_path) as streamer:
        status, _, body = streamer.get("/live.mp4", 15)
        assert status == 503
        assert "is the recorder running?" in json.loads(body)["reason"]


# ---- rules


@pytest.mark.parametrize(("frame_s", "patience"), [(None, 4.0), (1 / 30, 4.0), (6.0, 18.0), (200.0, 60.0)])
def test_a_night_exposure_is_waited_for(frame_s, patience):
    """The encoder begins with the next frame: at 6 s each, a recorder that works has none within 4 s."""
    camera = FakeCamera("cam0", ViewerSlots(1, 1))
    if frame_s is not None:
        meta = FrameMeta(1, now_ns(), time.time_ns(), frame_duration_us=round(frame_s * 1e6))
        camera.feed.status = FeedStatus(meta=meta)
    assert key_frame_timeout_s(camera.camera) == pytest.approx(patience)


SETS = ParameterSets(b"\x67\x64\x00\x1f\xac", b"\x68\xee\x3c\x80")
INIT_SEGMENT = InitSegment(make_header(SETS, 64, 48), SETS, 64, 48)
OTHER_SETS = ParameterSets(SETS.sps, b"\x68\xce\x3c\x80")
OTHER_INIT_SEGMENT = InitSegment(make_header(OTHER_SETS, 64, 48), OTHER_SETS, 64, 48)


def piece(number: int, key: bool = False):
    return make_fragment(b"\0\0\0\1x", number=number, time_us=number * 1000, duration_us=1000, key=key, captured_ns=0)


class FakeRawStream:
    """Takes everything, or as much as `room` allows."""

    def __init__(self) -> None:
        self.head, self.written, self.room = b"HEAD", [], True

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return self.room


def playing() -> tuple[HttpVideoViewer, FakeRawStream]:
    live, player, raw_stream = LiveVideo("cam0"), HttpVideoViewer(), FakeRawStream()
    live.state = StreamState(INIT_SEGMENT, 1)
    live.join(player)
    player.begin(raw_stream, live)
    return player, raw_stream


class FakeWebSocket:
    """Takes every message at once."""

    closed = False

    def __init__(self) -> None:
        self.messages: list[bytes | str] = []

    async def send_bytes(self, data: bytes | str) -> None:
        self.messages.append(data)

    send_str = send_bytes


def messages_for(screen: WebSocketVideoViewer) -> list[bytes | str]:
    """What waits for a viewer of the WebSocket, in the order in which it is sent; all of it is sent."""
    socket = FakeWebSocket()

    async def send():
        task = asyncio.create_task(screen.run(socket))
        await asyncio.sleep(0)
        task.cancel()

    run(send())
    return socket.messages


def at_zero(*numbers: int) -> list[bytes]:
    """The fragments of a film that begins with the first of these frames."""
    return [piece(number, key=number == numbers[0]).bytes_at(numbers[0] * 1000) for number in numbers]


def test_a_player_begins_at_a_key_frame_with_its_clock_at_zero():
    player, raw_stream = playing()
    player.offer(piece(1))
    assert len(raw_stream.written) == 1, "nothing can be decoded yet"
    player.offer(piece(2, key=True))
    player.offer(piece(3))
    times = [data[data.index(b"tfdt") + 8 :][:8] for data in raw_stream.written[1:]]
    assert [int.from_bytes(one) for one in times] == [0, 1000]


def test_a_player_that_cannot_keep_up_goes_on_at_the_next_key_frame():
    player, raw_stream = playing()
    player.offer(piece(1, key=True))
    raw_stream.room = False
    player.offer(piece(2))  # the kernel took only a part; asyncio has the rest
    for number in (3, 4):
        player.offer(piece(number))
    player.offer(piece(5, key=True))
    assert len(raw_stream.written) == 3, "no room: not even a key frame"
    raw_stream.room = True
    player.resume()
    player.offer(piece(6))
    assert len(raw_stream.written) == 3, "room, but frame 5 is missing"
    player.offer(piece(7, key=True))
    player.offer(piece(8))
    assert len(raw_stream.written) == 5
    assert player.counts.skipped == 4


@pytest.mark.parametrize(("stream", "init_segment"), [(2, INIT_SEGMENT), (1, OTHER_INIT_SEGMENT)])
def test_another_encoder_ends_a_file_and_begins_a_new_film_on_a_websocket(stream, init_segment):
    """A recorder that is restarted counts its encoders from 1 again; with another preset all viewers, newcomers too,
    went on with the parameter sets of the one before, and saw grey or nothing."""
    live = LiveVideo("cam0")
    player, early, screen, raw_stream = HttpVideoViewer(), HttpVideoViewer(), WebSocketVideoViewer(), FakeRawStream()
    webrtc = RtpVideoViewer(lambda: None, lambda: False)
    for viewer in (player, early, screen, webrtc):
        live.join(viewer)
    live.deliver(1, INIT_SEGMENT, piece(1, key=True))
    player.begin(raw_stream, live)
    assert not player.ended.is_set()
    live.deliver(stream, init_segment, piece(2, key=True))
    assert player.ended.is_set(), "a file cannot change its size"
    live.deliver(stream, None, piece(3))
    assert len(raw_stream.written) == 2, "header and frame 1; a player would choke on the other film's frames"
    assert messages_for(screen)[1:] == [init_segment.header, *at_zero(2, 3)], "what was queued of the old film is gone"
    early.begin(waiting := FakeRawStream(), live)
    assert not early.ended.is_set(), "nothing had been sent yet"
    assert waiting.written == [init_segment.header, *at_zero(2, 3)]
    live.join(late := WebSocketVideoViewer())
    assert messages_for(late)[1:] == [init_segment.header, *at_zero(2, 3)]
    assert webrtc._sets == init_segment.sets


def test_a_newcomer_gets_the_group_of_pictures_so_far_and_leaving_ends_all_work():
    live = LiveVideo("cam0")
    first = WebSocketVideoViewer()
    live.join(first)
    assert live.wanted.is_set()
    for number in range(5):
        live.deliver(1, INIT_SEGMENT, piece(number, key=number in (0, 3)))
    second = WebSocketVideoViewer()
    live.join(second)
    assert messages_for(second)[1:] == [INIT_SEGMENT.header, *at_zero(3, 4)]
    live.leave(first)
    live.leave(second)
    assert not live.wanted.is_set()
    assert live.state is None


def test_a_screen_that_does_not_read_costs_no_memory():
    screen = WebSocketVideoViewer()
    screen.open(INIT_SEGMENT)
    for number in range(10 * FRAGMENTS_MAX):
        screen.offer(piece(number, key=number % 30 == 0))
        assert len(screen._queue) <= FRAGMENTS_MAX + 30
    waiting = messages_for(screen)
    assert screen.counts.skipped == 10 * FRAGMENTS_MAX - len(waiting[2:])
    assert waiting[1] == INIT_SEGMENT.header, "it is as necessary as before"
    assert waiting[2] == piece(1050, key=True).bytes_at(0), "what is left begins with a key frame"


def test_a_screen_that_does_not_read_costs_no_memory_where_key_frames_are_rare(monkeypatch):
    monkeypatch.setattr("streamer.h264.viewers.GOP_BYTES_MAX", 1000)
    screen = WebSocketVideoViewer()
    screen.open(INIT_SEGMENT)
    for number in range(1000):
        screen.offer(piece(number, key=number == 0))
        assert sum(map(len, screen._queue)) < 1000 + 200
    assert [type(message) for message in messages_for(screen)] == [str, bytes]
    assert screen.counts.skipped == 1000
    screen.offer(piece(1000, key=True))
    assert len(messages_for(screen)) == 1


def test_who_comes_late_in_a_long_group_of_pictures_gets_all_of_it():
    """With more than FRAGMENTS_MAX frames in it (gop_s = 5 at 30 fps) description, header and all frames were dropped;
    the page then collected video that it could not play, without end."""
    live = LiveVideo("cam0")
    live.join(WebSocketVideoViewer())
    count = 2 * FRAGMENTS_MAX
    for number in range(count):
        live.deliver(1, INIT_SEGMENT if number == 0 else None, piece(number, key=number == 0))
    live.join(screen := WebSocketVideoViewer())
    live.join(player := HttpVideoViewer())
    description, *rest = messages_for(screen)
    assert json.loads(description)["type"] == "film"
    assert rest == [INIT_SEGMENT.header, *at_zero(*range(count))]
    player.begin(raw_stream := FakeRawStream(), live)
    assert raw_stream.written == rest


def test_what_a_dead_recorder_left_in_the_ring_is_not_shown_as_live():
    passed = []
    feed = LiveFeed(LiveVideo("cam0"), None, loop=None, stop=None)
    for age_s in (60.0, 0.1):
        meta = FrameMeta(1, now_ns() - round(age_s * 1e9), 0, flags=int(Flags.KEY))
        feed._mux(Unit(b"\0\0\1\x65x", meta, 1, 33_333, 64, 48, 1), lambda *given: passed.append(given))
    assert len(passed) == 1


@pytest.mark.parametrize("stream", [1, 2])
def test_without_a_key_frame_nothing_begins(stream):
    live, screen = LiveVideo("cam0"), WebSocketVideoViewer()
    live.join(screen)
    live.deliver(stream, None, piece(1))
    assert live.state is None
    assert not screen.opened.is_set()
