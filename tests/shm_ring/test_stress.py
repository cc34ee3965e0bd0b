"""Self-checking frames at full speed through few slots; and the proof that this test would notice a torn one.

Every defence is switched off once: with the second check left out the same readers accept torn frames, and the first
check alone and the second alone are each not enough.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter

import pytest

from shm_ring import FrameOverwritten, RingReader
from tests.shm_ring.frames import is_torn, start_writer

pytestmark = pytest.mark.alone

SIZE = 1 << 20
ENOUGH_TORN = 100  # proof enough that a check is missing


class NoSecondCheck(RingReader):
    """A reader that believes what it has read: the mutation that the stress test must catch."""

    def intact(self, sequence: int) -> bool:
        return True


def read_newest(reader: RingReader, reads: int, until_s: float, *, lag: int, dwell_s: float = 0.0) -> Counter:
    """Borrow frames `lag` behind the newest, and hold each for `dwell_s` first; count what came of it.

    Both make the writer run into the reader.
    """
    tally: Counter = Counter()
    newest_id = -1
    while tally["accepted"] < reads and tally["torn"] <= ENOUGH_TORN and time.monotonic() < until_s:
        newest = reader.latest()
        if newest is None or newest < lag:
            continue
        try:
            with reader.borrow(newest - lag) as frame:
                if dwell_s:
                    time.sleep(dwell_s)
                torn, number = is_torn(frame.payload, frame.frame_id), frame.frame_id
        except FrameOverwritten:
            tally["refused"] += 1
            continue
        tally["accepted"] += 1
        tally["torn"] += torn
        tally["backwards"] += number < newest_id
        newest_id = number
    return tally


def reader_process(name: str, kind: type[RingReader], reads: int, seconds: float, habits: dict, results) -> None:
    with kind.open(name) as reader:
        results.put(dict(read_newest(reader, reads, time.monotonic() + seconds, **habits)))


def tallies(name: str, kind: type[RingReader], reads: int, seconds: float, *, readers: int = 2, **habits) -> Counter:
    """Run some reader processes and add up what they counted."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    crowd = [
        spawn.Process(target=reader_process, args=(name, kind, reads, seconds, habits, results)) for _ in range(readers)
    ]
    for process in crowd:
        process.start()
    total: Counter = Counter()
    for _ in crowd:
        total.update(results.get(timeout=seconds + 200))
    for process in crowd:
        process.join(10)
    return total


@pytest.fixture
def fast_writer(ring_name, tmp_path):
    process = start_writer(ring_name, tmp_path, slots=2, size=SIZE)
    yield process
    process.kill()
    process.wait()


HABITS = [{"lag": 0}, {"lag": 1}, {"lag": 0, "dwell_s": 0.0001}]


@pytest.mark.parametrize("habits", HABITS, ids=str)
def test_no_torn_frame_is_accepted_at_full_speed_through_two_slots(ring_name, fast_writer, habits):
    total = tallies(ring_name, RingReader, 3000, 3, **habits)
    print(dict(total))
    assert total["torn"] == total["backwards"] == 0
    assert total["refused"] > 0, "the writer never ran into a reader: the test tested nothing"
    if habits == {"lag": 0}:
        assert total["accepted"] > 0


def test_the_same_readers_accept_torn_frames_when_the_second_check_is_removed(ring_name, fast_writer):
    total = tallies(ring_name, NoSecondCheck, 100_000, 40, **HABITS[-1])
    print(dict(total))
    assert total["torn"] > ENOUGH_TORN, "without the second check torn frames must come through: the test is blind"


def reads_and_kills(
    ring_name, tmp_path, reads: int, kills: int, kind: type[RingReader] = RingReader, *, life_s: float = 30
) -> Counter:
    """Read on while the writer is killed again and again; each new one takes the ring over.

    `life_s`: the longest life of a writer; far behind it a reader is lapped nearly each time.
    """
    total: Counter = Counter()
    reader = None
    done = 0
    while (done < kills or total["accepted"] < reads) and total["torn"] <= ENOUGH_TORN:
        process = start_writer(ring_name, tmp_path, slots=4, size=16384)
        reader = reader or kind.open(ring_name)
        share = max(1, (reads - total["accepted"]) // max(1, kills - done))
        total.update(read_newest(reader, share, time.monotonic() + life_s, lag=done % 4))
        process.kill()
        process.wait()
        done += 1
        total["odd"] += reader._words[(4096 + reader.head % 4 * 256) // 4] % 2
    total["kills"] = done
    assert reader.takeovers == done - 1
    reader.close()
    return total


def test_reads_while_the_writer_is_killed(ring_name, tmp_path):
    total = reads_and_kills(ring_name, tmp_path, reads=20_000, kills=12, life_s=3)
    print(dict(total))
    assert total["torn"] == total["backwards"] == 0
    assert total["accepted"] >= 20_000


def test_reads_while_the_writer_is_killed_notice_a_removed_check(ring_name, tmp_path):
    total = reads_and_kills(ring_name, tmp_path, reads=1_000_000, kills=40, kind=NoSecondCheck)
    print(dict(total))
    assert total["torn"] > ENOUGH_TORN


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_reads_with_two_hundred_writer_kills(ring_name, tmp_path):
    total = reads_and_kills(ring_name, tmp_path, reads=1_000_000, kills=200)
    print(dict(total))
    assert total["torn"] == total["backwards"] == 0
    assert total["odd"] > 20, "hardly a writer died inside a frame: the kills tested nothing"
