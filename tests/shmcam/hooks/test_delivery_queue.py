"""The queue on disk: order, bounds, ids of events, damage, a disk that takes nothing."""

import os
import resource
import subprocess
import sys
import time

import pytest

from shmcam.hooks import delivery_queue
from shmcam.hooks.delivery_queue import Delivery, DeliveryQueue

LIMITS = {"a": 3, "b": 100}


def put(queue, *words, hook="a", event_id=None, picture=None):
    return queue.put([Delivery(hook, word.encode(), picture) for word in words], event_id, LIMITS)[hook]


def take(queue, hook="a"):
    found = []
    while (first := queue.find_first(hook)) is not None:
        queue.remove(first.number)
        found.append(first.payload.decode())
    return found


def test_deliveries_of_a_hook_keep_their_order_and_the_oldest_make_room(tmp_path):
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        assert [put(queue, word) for word in "12345"] == [0, 0, 0, 1, 1]
        put(queue, "x", hook="b")
        assert queue.count() == {"a": 3, "b": 1}
        assert take(queue) == ["3", "4", "5"] and take(queue, "b") == ["x"]


@pytest.mark.parametrize("step_s", [-8 * 3600, 5 * 86_400])
def test_a_clock_that_is_set_makes_no_event_older(tmp_path, monkeypatch, step_s):
    """A board without a clock battery gave up what waited (`on_night` a minute, a webhook a day) when NTP came."""
    offset_ns = delivery_queue.utc_offset_ns()
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        put(queue, "before")
        created_utc_s = queue.find_first("a").created_utc_s
        monkeypatch.setattr(delivery_queue, "utc_offset_ns", lambda: offset_ns + step_s * 10**9)
        monkeypatch.setattr(time, "time", lambda: created_utc_s + step_s + 1)
        put(queue, "after")
        for word, age_s in (("before", 1), ("after", 0)):
            first = queue.find_first("a")
            assert first.payload == word.encode() and time.time() - first.created_utc_s == pytest.approx(age_s, abs=0.1)
            queue.remove(first.number)


def test_what_was_put_is_there_after_a_kill(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from shmcam.hooks.delivery_queue import Delivery, DeliveryQueue
queue = DeliveryQueue(Path({str(tmp_path / "q")!r}), "run")
for number in range(3):
    queue.put([Delivery("a", str(number).encode(), b"jpeg")], (7, 100 + number), {{"a": 9}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        assert queue.get_since_ns() == 102 and queue.is_seen((7, 101)) and not queue.is_seen((7, 103))
        assert queue.find_first("a").picture == b"jpeg" and take(queue) == ["0", "1", "2"]
    with DeliveryQueue(tmp_path / "q", "another run") as queue:
        assert queue.get_since_ns() == 0 and not queue.is_seen((7, 101))


def test_the_rows_of_a_hook_that_is_gone_go_too(tmp_path):
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        put(queue, "1", "2")
        put(queue, "x", hook="b")
        assert queue.remove_others(["b"]) == 2 and queue.count() == {"b": 1}


def test_old_pictures_go_before_the_queue_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery_queue, "PICTURES_BYTES_MAX", 2500)
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        for word in "123":
            put(queue, word, hook="b", picture=bytes(1000))
        first = queue.find_first("b")
        assert (first.payload, first.picture) == (b"1", None)
        assert put(queue, "4", hook="b") == 0 and queue.count() == {"b": 4}


def test_a_damaged_file_is_put_aside(tmp_path):
    (tmp_path / "q").write_bytes(b"no database" * 1000)
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        put(queue, "1")
        assert not queue.problem and take(queue) == ["1"]
    assert (tmp_path / "q.damaged").exists()


def test_a_folder_that_takes_nothing_is_told_and_the_queue_is_in_memory(tmp_path):
    with DeliveryQueue(tmp_path / "not there" / "q", "run") as queue:
        assert queue.problem == "the queue is in memory only: unable to open database file"
        put(queue, "1", event_id=(7, 1))
        assert queue.is_seen((7, 1)) and take(queue) == ["1"]


def test_a_disk_that_fills_up_costs_nothing_that_waits(tmp_path):
    """In a process of its own whose files may not grow any more (RLIMIT_FSIZE stands for a full disk)."""
    code = f"""
import resource, signal
from pathlib import Path
from shmcam.hooks.delivery_queue import Delivery, DeliveryQueue
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
queue = DeliveryQueue(Path({str(tmp_path / "q")!r}), "run")
queue.put([Delivery("a", b"before")], None, {{"a": 99}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for number in range(20):
    queue.put([Delivery("a", b"%d" % number + bytes(4000))], (7, number + 1), {{"a": 99}})
assert queue.problem.startswith("the queue is in memory only"), queue.problem
assert queue.count() == {{"a": 21}}, queue.count()
assert queue.find_first("a").payload == b"before" and queue.is_seen((7, 20))
print("well")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ})
    assert done.stdout == "well\n", done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.fixture
def queue_of_full_disk(tmp_path):
    """Three events of `a` on the disk; then it takes nothing until `queue._file` may write again."""
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        put(queue, "0")
        take(queue)
        put(queue, "1", "2", "3")
        set_full(queue, True)
        yield queue


def set_full(queue, is_full):
    queue._file.execute(f"PRAGMA query_only = {int(is_full)}")


def test_an_event_of_one_hook_costs_no_other_hook_its_events_on_a_full_disk(queue_of_full_disk):
    assert queue_of_full_disk.put([Delivery("b", b"x")], (7, 1), {"b": 100}) == {"b": 0}
    assert queue_of_full_disk.count() == {"a": 3, "b": 1} and queue_of_full_disk.is_seen((7, 1))


def test_a_delivery_under_way_when_the_disk_fills_up_is_the_one_that_is_removed(queue_of_full_disk):
    under_way = queue_of_full_disk.find_first("a")
    put(queue_of_full_disk, "4")
    assert not queue_of_full_disk.remove(under_way.number)
    assert queue_of_full_disk.count() == {"a": 3}
    assert take(queue_of_full_disk) == ["2", "3", "4"] and queue_of_full_disk.count() == {}


def test_events_in_memory_have_the_same_limit(queue_of_full_disk):
    assert [put(queue_of_full_disk, word) for word in "45678"] == [0, 0, 0, 1, 1]
    assert take(queue_of_full_disk) == ["1", "2", "3", "6", "7", "8"]


def test_a_disk_with_room_again_gets_all_that_waits(queue_of_full_disk, tmp_path):
    queue = queue_of_full_disk
    assert not queue.remove(queue.find_first("a").number)
    put(queue, "4", event_id=(7, 1))
    put(queue, "x", hook="b")
    assert queue.problem == "the queue is in memory only: attempt to write a readonly database"
    set_full(queue, False)
    assert queue.remove(queue.find_first("b").number) and not queue.problem
    with DeliveryQueue(tmp_path / "q", "run") as again:
        assert again.count() == {"a": 3} and again.is_seen((7, 1)) and take(again) == ["2", "3", "4"]


def test_hooks_that_are_gone_do_not_end_the_process_on_a_full_disk(queue_of_full_disk):
    assert queue_of_full_disk.remove_others(["b"]) == 0


def test_the_trouble_ends_with_room_although_no_event_comes(queue_of_full_disk, tmp_path):
    """It stayed in the status until the next event."""
    queue = queue_of_full_disk
    put(queue, "4", event_id=(7, 1))
    queue.retry()
    assert queue.problem
    set_full(queue, False)
    queue.retry()
    assert not queue.problem
    with DeliveryQueue(tmp_path / "q", "run") as again:
        assert take(again)[-3:] == ["2", "3", "4"] and again.is_seen((7, 1))


def test_a_file_that_could_not_be_opened_at_the_start_is_opened_later_and_no_row_is_lost(tmp_path):
    with DeliveryQueue(tmp_path / "later/q", "run") as before:
        assert "in memory only" in before.problem
        put(before, "1", "2")
        under_way = before.find_first("a")
        (tmp_path / "later").mkdir()
        with DeliveryQueue(tmp_path / "later/q", "run") as left_over:
            put(left_over, "0")
        before.retry()
        assert not before.problem and before.remove(under_way.number)
        assert take(before) == ["0", "2"]
