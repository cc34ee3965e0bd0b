"""A ring by its name, across restarts, resizes and unlinking of its writer."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from shm_ring import LiveRing, RingNotReady, attach, segment
from tests.machine import until, within
from tests.shm_ring.frames import meta, pattern, start_writer


class Asked:
    """A stop that a test can request."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

    def request(self) -> None:
        self._event.set()


def frames_of(ring, count, **options):
    """The first `count` (reader, sequence) that come, idle turns left out."""
    return list(islice((found for found in ring.sequences(**options) if found is not None), count))


def test_in_order_every_frame_comes(make_writer, ring_name):
    with make_writer(slots=16) as writer, LiveRing(ring_name) as ring:
        for number in range(10):
            writer.publish(b"", meta(number))
        assert [s for _, s in frames_of(ring, 10, start="oldest")] == list(range(10))
        assert [s for _, s in frames_of(ring, 3, start=7)] == [7, 8, 9]
        found = frames_of(ring, 1, start="oldest", newest_first=True)
        assert found[0][1] == 9
        assert (ring.laps, ring.lost, ring.skipped) == (0, 0, 9)


def test_new_starts_with_what_comes_after(make_writer, ring_name):
    with make_writer() as writer, LiveRing(ring_name) as ring:
        writer.publish(b"", meta(0))
        loop = ring.sequences(idle_s=0.01)
        assert next(loop) is None
        writer.publish(b"", meta(1))
        reader, sequence = next(loop)
        assert (reader.copy(sequence).frame_id, sequence) == (1, 1)


def test_a_lapped_reader_resumes_and_counts(make_writer, ring_name):
    with make_writer(slots=8) as writer, LiveRing(ring_name) as ring:
        loop = ring.sequences(start="oldest")
        writer.publish(b"", meta(0))
        assert next(loop)[1] == 0
        for number in range(1, 30):
            writer.publish(b"", meta(number))
        reader, sequence = next(loop)
        assert sequence == reader.oldest + 2 == 25
        assert reader.copy(sequence).frame_id == 25
        assert (ring.laps, reader.laps, ring.lost) == (1, 1, 24)


def test_without_a_ring_it_waits_and_lets_the_loop_do_its_other_work(ring_name):
    stop = Asked()
    with LiveRing(ring_name, stop) as ring:
        loop = ring.sequences(idle_s=0.02)
        assert [next(loop) for _ in range(3)] == [None] * 3
        with pytest.raises(RingNotReady):
            ring.reader()
        with pytest.raises(RingNotReady):
            ring.wait_ready(0.05)
        stop.request()
        assert list(loop) == []


def test_it_re_attaches_when_the_geometry_changes_and_finishes_the_old_generation_first(make_writer, ring_name):
    first = make_writer(payload_bytes=100)
    with LiveRing(ring_name) as ring:
        loop = (found for found in ring.sequences(start="oldest", idle_s=0.05) if found)
        first.publish(pattern(0, 100), meta(0))
        assert next(loop)[1] == 0
        first.publish(pattern(1, 100), meta(1))
        first.close()
        with make_writer(payload_bytes=200) as second:
            second.publish(pattern(2, 200), meta(second.next_frame_id))
            second.publish(pattern(3, 200), meta(second.next_frame_id))
            seen = [reader.copy(sequence) for reader, sequence in islice(loop, 3)]
            assert [frame.frame_id for frame in seen] == [1, 2, 3]
            assert [frame.payload.size for frame in seen] == [100, 200, 200]


@pytest.mark.parametrize("end", ["retired", "unlinked", "dead"])
def test_it_finds_the_next_writer_within_two_seconds(make_writer, ring_name, tmp_path, end):
    """It looks four times a second."""
    first = start_writer(ring_name, tmp_path / "run", slots=8, size=400, pause_s=0.01)
    try:
        with LiveRing(ring_name) as ring:
            loop = (found for found in ring.sequences(idle_s=0.05) if found)
            assert next(loop)[0].generation >= 1
            old = ring.reader().generation
            if end == "unlinked":
                segment.unlink(ring_name)
            first.kill()
            first.wait()
            with make_writer(payload_bytes=800 if end == "retired" else 400) as second:
                second.publish(b"new", meta(second.next_frame_id))
                wanted = second.generation, second.head - 1  # a generation of its own numbers from 0 again
                with within(2.0):
                    reader, sequence = next(one for one in loop if (one[0].generation, one[1]) >= wanted)
                assert reader.copy(sequence).payload.tobytes() == b"new"
                assert reader.generation == second.generation == old + (end != "dead")
    finally:
        first.kill()
        first.wait()


def mappings(name: str) -> int:
    """How many mappings of a ring that has lost its name this process has."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(f"/dev/shm{name} (deleted)" in line for line in lines)


def idle_through(loop, name: str, left: int = 0) -> None:
    """Let a follower idle until it holds no more than so many mappings of an ended ring."""
    deadline_s = time.monotonic() + 10
    while mappings(name) > left:
        assert time.monotonic() < deadline_s, "an ended ring stays mapped while nobody writes"
        assert next(loop) is None


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("end", ["retired", "unlinked"])
def test_an_idle_follower_gives_back_the_memory_of_a_ring_that_ended(make_writer, ring_name, end, newest_first):
    writer = make_writer()
    with LiveRing(ring_name) as ring:
        loop = ring.sequences(start="oldest", idle_s=0.05, newest_first=newest_first)
        writer.publish(b"one", meta(0))
        writer.publish(b"two", meta(1))
        kept = ring.reader().borrow(1).payload
        assert next(loop)[1] == int(newest_first)
        if end == "unlinked":
            segment.unlink(ring_name)
            writer.close()
        else:
            writer.retire()
        writer = None
        if not newest_first:
            assert next(found for found in loop if found)[1] == 1, "what the ended ring still holds comes first"
        assert mappings(ring_name) == 1
        assert [next(loop) for _ in range(10)] == [None] * 10
        assert mappings(ring_name) == 1
        assert kept.tobytes() == b"two", "a lent view keeps the memory"
        del kept
        idle_through(loop, ring_name)
        with make_writer() as second:
            second.publish(b"new", meta(2))
            assert next(found for found in loop if found)[1] == 0, "the next generation is read from its first frame"


def test_a_users_loop_that_waits_gives_it_back_too(make_writer, ring_name, prefix):
    writer, stop, seen = make_writer(), Asked(), []
    writer.publish(b"one", meta(0))

    def loop() -> None:
        for frame in ring.follow(start="oldest"):
            seen.append(frame.payload.tobytes())  # looked at: from here on the frame is the user's own

    with attach("cam0", prefix=prefix, stop=stop) as ring:
        thread = threading.Thread(target=loop)
        thread.start()
        try:
            until(lambda: seen == [b"one"])
            writer.retire()
            del writer
            until(lambda: not mappings(ring_name))
            with make_writer() as second:
                second.publish(b"two", meta(1))
                until(lambda: seen == [b"one", b"two"])
        finally:
            stop.request()
            thread.join(10)


def test_a_writer_that_died_inside_a_frame_costs_its_readers_nothing(make_writer, ring_name):
    """The odd slot is no reason to look again and again: readers sleep on head."""
    writer = make_writer(slots=2)
    writer.publish(b"whole", meta(0))
    writer.slot().__enter__()  # dies inside frame 1
    writer.close()
    with LiveRing(ring_name) as ring:
        began_s, cpu_s = time.monotonic(), time.thread_time()
        for newest_first in (False, True):
            loop = ring.sequences(start="oldest", idle_s=0.2, newest_first=newest_first)
            assert next(loop)[1] == 0
            assert [next(loop), next(loop)] == [None, None]
        assert time.thread_time() - cpu_s < 0.2 * (time.monotonic() - began_s)


def test_a_takeover_is_not_even_noticed(make_writer, ring_name):
    first = make_writer()
    with LiveRing(ring_name) as ring:
        loop = (found for found in ring.sequences(start="oldest", idle_s=0.05) if found)
        first.publish(b"", meta(0))
        reader, _ = next(loop)
        first.close()
        second = make_writer()
        second.publish(b"", meta(second.next_frame_id))
        assert next(loop) == (reader, 1)
        second.retire()


def test_stop_from_another_thread_ends_the_loop(make_writer, ring_name):
    stop = Asked()
    with make_writer(), LiveRing(ring_name, stop) as ring:
        threading.Timer(0.1, stop.request).start()
        assert list(ring.sequences(idle_s=60)) == []


def test_views_that_are_still_lent_do_not_hinder_a_re_attachment(make_writer, ring_name):
    first = make_writer(payload_bytes=400)
    first.publish(pattern(0, 400), meta(0))
    with LiveRing(ring_name) as ring:
        kept = ring.reader().borrow(0).payload
        first.close()
        with make_writer(payload_bytes=800):
            deadline_s = time.monotonic() + 10
            while ring.reader().payload_bytes != 800:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        assert (kept == pattern(0, 400)).all()


def test_a_segment_that_cannot_be_understood_is_no_problem_any_more_once_it_is_gone(ring_name):
    path = Path(f"/dev/shm{ring_name}")
    path.write_bytes(b"no ring at all" * 1000)
    ring = LiveRing(ring_name, waits_for_repair=True)
    with pytest.raises(RingNotReady):
        ring.reader()
    assert ring.problem
    path.unlink()
    with pytest.raises(RingNotReady):
        ring.reader()
    assert ring.problem == ""
