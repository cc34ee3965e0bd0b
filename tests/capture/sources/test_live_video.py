"""Live H.264 and H.265: joined between key frames, with other sizes on the way, at another rate than declared."""

import itertools
import random
import secrets
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest

from capture.drops_and_settling import DropCounter, nominal_rate
from capture.publisher import FramePublisher
from capture.rings import Rings
from capture.settings import RingSettings
from capture.sources import pyav_stream
from capture.sources.base import CameraError, CameraRequest, GeometryChanged, OpenedSource, ShotMeta, StillOpening
from capture.sources.mjpeg.source import HttpSource
from capture.sources.pyav_stream import ArrivalClock
from capture.sources.stream_address import parse_url
from shm_ring import RingReader
from shm_ring.formats import geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.runtime.stop import Stop
from tests.capture.harness import Processes
from tests.capture.servers import ts_server
from tests.capture.sources.test_files import numbered, write
from tests.machine import until

ASKED = CameraRequest(320, 240, 30.0)
LONG_GROUP = {
    "libx264": {"x264-params": "keyint=250:min-keyint=250:scenecut=0"},
    "libx265": {"x265-params": "keyint=250:scenecut=0:log-level=none"},
}


@pytest.mark.parametrize("codec", LONG_GROUP)
def test_a_stream_joined_in_the_middle_of_a_long_group_waits_for_its_key_frame(tmp_path, codec):
    """FFmpeg read the only key frame while it looked for the format, and threw it away: no picture within 8 s."""
    file = write(tmp_path / "c.ts", (numbered(n) for n in range(150)), codec=codec, options=LONG_GROUP[codec])
    data = file.read_bytes()
    said = []
    with ts_server(data, 6, skip=len(data) // 188 // 3) as (port, _):
        source = HttpSource(parse_url(f"http://127.0.0.1:{port}/live.ts"), key_wait_s=60)
        while True:
            try:
                opened = source.open(ASKED, Stop())
                break
            except StillOpening as waiting:
                said.append(str(waiting))
        payload, numbers = np.zeros(opened.geometry.payload_bytes, np.uint8), []
        while len(numbers) < 10:
            if source.wait(5):
                source.write(payload)
                numbers.append(frame_number_code.read(planes(payload, opened.geometry)[0]))
        source.close()
    assert "sends video: waiting for a key frame" in said[0]
    assert "of at most 60 s (camera.key_frame_wait_s)" in said[0]
    assert None not in numbers
    assert numbers[0] < 100, "the first key frame that came, not the one after it"


def test_the_wait_for_a_key_frame_has_an_end(tmp_path):
    file = write(tmp_path / "c.ts", (numbered(n) for n in range(150)), options=LONG_GROUP["libx264"])
    data = file.read_bytes()
    with ts_server(data, 20, skip=len(data) // 188 // 4) as (port, _):
        source = HttpSource(parse_url(f"http://127.0.0.1:{port}/live.ts"), key_wait_s=3)
        with pytest.raises(CameraError, match="no key frame within 3 s"):
            while True:
                try:
                    source.open(ASKED, Stop())
                except StillOpening:
                    continue


def test_another_size_in_a_live_stream_keeps_the_connection(tmp_path):
    parts = [
        write(tmp_path / f"{n}.ts", (numbered(n + k, size) for k in range(25)), times=range(n, n + 25)).read_bytes()
        for n, size in ((0, (320, 240)), (25, (448, 160)))
    ]
    with ts_server(b"".join(parts), 2) as (port, connections):
        source = HttpSource(parse_url(f"http://127.0.0.1:{port}/live.ts"))
        sizes = [source.open(ASKED, Stop()).geometry]
        before, payload, numbers, until = len(connections), np.zeros(1 << 20, np.uint8), [], time.monotonic() + 30
        while len(sizes) < 4 and time.monotonic() < until:
            try:
                if source.wait(1):
                    source.write(payload)
                    numbers.append(frame_number_code.read(planes(payload, sizes[-1])[0]))
            except GeometryChanged as changed:
                sizes.append(changed.geometry)
        source.close()
    assert [shape.width for shape in sizes][:4] in ([320, 448] * 2, [448, 320] * 2)
    assert len(connections) == before
    assert all(b != a for a, b in itertools.pairwise(numbers)), "nothing is repeated"


# ---- the rate that comes


def test_a_camera_that_halves_its_rate_in_the_dark_loses_nothing_for_long():
    """25/s declared, 12.5/s delivered: every second frame was counted as lost, all night."""
    counter, at, counted = DropCounter(), 10**12, []
    for gap_ms in [40] * 100 + [80] * 300 + [40] * 100:
        at += gap_ms * 1_000_000
        counted.append(counter.count(at))
    assert sum(counted) <= 6
    assert sum(counted[110:]) == 0
    assert 1e9 / counter.period_ns == pytest.approx(25)


def test_a_rate_that_drifts_by_less_than_a_change_is_followed():
    """Gaps that come as expected renew the estimate with only one of 16 of them; jitter is no drift."""
    counter, at, rng = DropCounter(), 10**12, random.Random(1)
    for gap_ms in [40] * 100 + [46] * 100:
        at += round(gap_ms * rng.uniform(0.95, 1.05) * 1e6)
        assert counter.count(at) == 0
    assert counter.period_ns == pytest.approx(46e6, rel=0.01)


@pytest.mark.parametrize(
    ("measured", "declared", "name"),
    [
        (0, 25, 25), (24.9, 25, 25), (29.99, 30000 / 1001, 30000 / 1001), (12.47, 25, 12.5), (59.8, 25, 60),
        (7.04, 0, 7), (0.333, 0, 0.33), (1.98, 25, 2),
    ],
)  # fmt: skip
def test_a_rate_has_the_declared_name_if_that_is_true_else_a_round_one(measured, declared, name):
    assert nominal_rate(measured, declared) == pytest.approx(name)


class Sender:
    """A source that declares one rate and delivers another."""

    description = "sender"

    def __init__(self, declared: float, gap_ms: float) -> None:
        self._declared, self._gap_ns, self._at = declared, int(gap_ms * 1e6), 10**12
        self.opened = OpenedSource(geometry("gray", 64, 48), framerate=declared, tells_duration=False)

    def write(self, payload, lores=None, frame_id=0):
        self._at += self._gap_ns
        return ShotMeta(captured_ns=self._at, frame_duration_us=round(1e6 / self._declared))


@pytest.mark.parametrize(
    ("declared", "gap_ms", "slots", "duration_us"),
    [(25, 1000 / 60, 360, 16_667), (25, 80, 150, 80_000), (60, 1000 / 60, 360, 16_667)],
)
def test_a_ring_holds_its_seconds_at_the_rate_that_comes(tmp_path, declared, gap_ms, slots, duration_us):
    source, prefix = Sender(declared, gap_ms), f"t{secrets.token_hex(4)}"
    desired = SimpleNamespace(ring=RingSettings(seconds=6.0), polygons=(), night=False)
    with Rings(prefix, "cam0", tmp_path) as rings:
        publisher = FramePublisher(source, source.opened, ASKED, desired, rings)
        for _ in range(200):
            if publisher.has_outgrown_rings:
                publisher.fit(publisher.opened)
            meta = publisher.publish_frame()
        with RingReader.open(f"/{prefix}.cam0.main") as ring:
            assert ring.slots == slots
    assert meta.frame_duration_us == duration_us
    assert publisher.drops.total == 0


# ---- a camera's clock that is set


@pytest.mark.parametrize("step_s", [-30, -1, -0.5, 0.7, 1, 3600])
def test_a_clock_that_is_set_moves_no_frame_away_from_its_arrival(step_s):
    """Set back by 1 s, the next 25 rows were 1 ns apart; set forward, all were a second early."""
    clock, rows = ArrivalClock(), []
    for frame in range(200):
        arrived = 10**12 + frame * 40_000_000 + frame * 7_919_000 % 9_000_000
        own = 50_000_000_000 + frame * 40_000_000 + (int(step_s * 1e9) if frame >= 100 else 0)
        rows.append((clock.captured_ns(own, arrived), arrived))
    assert all(20e6 < b[0] - a[0] < 60e6 for a, b in itertools.pairwise(rows))
    assert all(0 <= arrived - captured < 20e6 for captured, arrived in rows)


def test_a_clock_of_a_slow_camera_that_is_set_back_within_a_period_is_found_soon():
    """One frame in 2 s: the clock still goes forward, only every frame seems a second late."""
    clock = ArrivalClock()
    late = []
    for frame in range(20):
        arrived = 10**12 + frame * 2_000_000_000
        own = frame * 2_000_000_000 - (1_000_000_000 if frame >= 10 else 0)
        late.append((arrived - clock.captured_ns(own + 10**10, arrived)) / 1e9)
    assert max(late[12:]) < 0.1


def test_frames_that_a_slow_network_held_back_keep_their_own_times():
    """Wi-Fi stands still for 0.8 s, then delivers 20 frames at once: the clip must not hop."""
    clock, captured = ArrivalClock(), []
    for frame in range(100):
        due = 10**12 + frame * 40_000_000
        arrived = max(due, 10**12 + 70 * 40_000_000 + frame) if 50 <= frame < 70 else due
        captured.append(clock.captured_ns(frame * 40_000_000 + 10**9, arrived))
    assert {round((b - a) / 1e6) for a, b in itertools.pairwise(captured)} == {40}


def test_the_status_says_that_a_key_frame_is_waited_for(tmp_path):
    file = write(tmp_path / "c.ts", (numbered(n) for n in range(150)), options=LONG_GROUP["libx264"])
    data = file.read_bytes()
    with ts_server(data, 8, skip=len(data) // 188 // 3) as (port, connections):
        url = f"http://127.0.0.1:{port}/live.ts"
        with Processes(camera={"source": "url", "url": url, "key_frame_wait_s": 60}) as world:
            world.start_hub()
            world.start_capture(frames=False)
            until(lambda: "waiting for a key frame" in world.beat().get("reason", ""), 20, world.log())
            until(lambda: world.head() > 5, 40, world.log())
            until(lambda: world.beat().get("state") == "running", 10, world.log())
        assert len(connections) == 2, "one that found out the format, one that FFmpeg kept"


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps"])
def test_a_camera_that_accepts_and_is_silent_is_told_in_words(scheme, monkeypatch):
    """FFmpeg's were "[Errno 1094995529] Invalid data found" and "[Errno 5] Input/output error"."""
    monkeypatch.setattr(pyav_stream, "OPEN_S", 1.0)
    monkeypatch.setattr(pyav_stream, "READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/x"
        reader = pyav_stream._Reader(parse_url(url).for_ffmpeg(), False)
        reader.start()
        with pytest.raises(CameraError, match=f"^{url}: no answer in time$"):
            reader.wait(30)
        reader.join(30)
        assert not reader.is_alive()
