"""The packets ring: units of any size come out whole, in order, from a key frame on, in several readers."""

from __future__ import annotations

import random
import secrets
import threading
from contextlib import suppress
from pathlib import Path

import av
import pytest

from recorder.live_packets import LivePackets
from recorder.settings import RecorderSettings
from shm_ring import Flags, FrameMeta, LiveRing, RingNotReady, RingReader, RingWriter
from shm_ring.records import packets
from shmcam.imaging import frame_number_code
from tests.machine import until
from tests.recorder import film


@pytest.fixture
def ring(tmp_path):
    name = f"/t{secrets.token_hex(4)}.cam0.h264"
    writer = RingWriter.create(
        name, slots=16, payload_bytes=4096, lock_dir=tmp_path, camera="cam0", stream=packets.STREAM
    )
    yield writer
    writer.retire()


def unit(number, size, key, stream=1):
    data = random.Random(number).randbytes(size)
    meta = FrameMeta(number, number * 1000, 0, flags=int(Flags.KEY) if key else 0)
    return packets.Unit(data, meta, number, 33_333, 640, 480, stream)


def taken(ring, count):
    """The next `count` units after now, from a reader that begins at the newest key frame."""
    live = LiveRing(ring.name)
    start = packets.latest_key(live)
    found = []
    for one in packets.follow(live, start="new" if start is None else start, idle_s=0.2):
        if one is None:
            break
        found.append(one)
        if len(found) == count:
            break
    return found


def test_units_of_any_size_come_out_as_they_went_in(ring):
    sizes = [1, 4055, 4056, 4057, 8112, 8113, 20_000]
    for number, size in enumerate(sizes):
        packets.publish(ring, unit(number, size, number == 0))
    found = taken(ring, len(sizes))
    assert [len(one.data) for one in found] == sizes
    assert all(one.data == unit(n, sizes[n], n == 0).data for n, one in enumerate(found))
    assert [one.key for one in found] == [True] + [False] * 6


def test_a_reader_begins_at_the_newest_key_frame(ring):
    for number in range(10):
        packets.publish(ring, unit(number, 100, number in (2, 7)))
    assert [one.meta.frame_id for one in taken(ring, 3)] == [7, 8, 9]


def test_a_lapped_reader_is_taken_on_to_the_next_key_frame(ring):
    live = LiveRing(ring.name)
    for number in range(3):
        packets.publish(ring, unit(number, 100, number == 0))
    reading = packets.follow(live, start=0, idle_s=0.2)
    assert next(reading).meta.frame_id == 0
    for number in range(3, 40):
        packets.publish(ring, unit(number, 100, number == 35))
    found = [one.meta.frame_id for one in (next(reading) for _ in range(5)) if one]
    assert found == [35, 36, 37, 38, 39]


def test_a_new_stream_begins_with_its_key_frame(ring):
    packets.publish(ring, unit(0, 100, True))
    packets.publish(ring, unit(1, 100, False, stream=2))
    packets.publish(ring, unit(2, 100, True, stream=2))
    assert [(one.meta.frame_id, one.stream) for one in taken(ring, 3)] == [(2, 2)]


def test_parameter_sets_are_found_in_front_of_a_key_frame():
    data = film.encoded()[0][0]
    sets = packets.parameter_sets(data)
    assert sets.startswith(b"\0\0\0\1\x67") and b"\0\0\0\1\x68" in sets and len(sets) < 100
    assert packets.parameter_sets(film.encoded()[1][0]) == b""
    assert packets.parameter_sets(b"") == b""


def test_several_viewers_get_live_video_while_they_ask_for_it_and_nothing_is_encoded_otherwise(rig):
    """The real recorder: no recording, two readers, joined at a key frame; numbers come from the pixels."""
    made = rig(gop_s=0.5)
    made.start_hub()
    camera = made.camera(slots=128)
    stop = threading.Event()
    camera.begin_filming()
    shown: dict[int, list[int | None]] = {0: [], 1: []}

    def view(who):
        decoder, live = av.CodecContext.create("h264", "r"), LiveRing(f"/{made.prefix}.cam0.h264")
        live.wait_ready(10)
        for one in packets.follow(live, start=packets.latest_key(live) or 0, idle_s=0.2):
            if one is None or stop.is_set() or len(shown[who]) > 40:
                return
            for frame in decoder.decode(av.Packet(one.data)):
                shown[who].append(frame_number_code.read(frame.to_ndarray(format="gray")))

    try:
        made.start()
        made.ready()
        made.answers()
        camera.wait_frames(15)
        assert "encoder opened" not in made.log()
        assert made.ask("watch seconds=4").ok
        viewers = [threading.Thread(target=view, args=(who,)) for who in shown]
        [viewer.start() for viewer in viewers]
        until(lambda: all(len(ids) > 40 for ids in shown.values()), 15, made.log())
        [viewer.join(10) for viewer in viewers]
        assert not list(made.recordings.rglob("*.mp4*")) if made.recordings.exists() else True
        # A recording begins while somebody watches: the same encoder serves both.
        made.ask("watch seconds=10")
        assert made.ask("record start").ok
        made.recorded(20)
        assert made.ask("record stop").ok
        assert len(made.clips()) == 1
    finally:
        stop.set()
    for ids in shown.values():
        assert ids == list(range(ids[0], ids[0] + len(ids)))


def test_a_ring_that_a_killed_recorder_left_goes_at_the_next_clean_end_though_nobody_watched(rig):
    made = rig(live="always", gop_s=0.2)
    film_of = made.camera(slots=64)
    ring = Path("/dev/shm") / f"{made.prefix}.cam0.h264"
    first = made.start()
    made.ready()
    for _ in range(100):
        film_of.run(0.1)
        with suppress(RingNotReady), RingReader.open(f"/{ring.name}") as reader:
            if reader.latest() is not None:
                break
    first.kill()
    first.wait()
    assert ring.exists()
    made.write_config(recorder={"threads": 1})
    second = made.start()
    made.ready(times=2)
    assert made.stop(second) == 0
    assert not ring.exists()


def test_a_viewer_that_cannot_go_on_gets_a_key_frame(tmp_path):
    live = LivePackets("/unused.cam0.h264", tmp_path, "cam0", RecorderSettings())
    live.watch(5)
    assert not live.needs_key, "who just goes on watching costs no key frame"
    live.watch(5, key=True)
    live.watch(5)
    assert live.needs_key, "the frame pipeline makes the next frame one, and takes it back"
