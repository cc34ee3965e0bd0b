"""What hooks does with an event and its queue, without threads and processes."""

import pytest

from shmcam.config.settings import Settings
from shmcam.control.messages import MotionBegan
from shmcam.hooks.delivery_queue import DeliveryQueue
from shmcam.hooks.delivery_thread import DeliveryThread
from shmcam.hooks.hook import hooks_of
from shmcam.hooks.loop import Hooks, take_event
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff

CONFIG = """
[hooks]
enable = true
[hooks.actions.bell]
events = ["motion_began"]
command = ["touch", "{note}"]
min_interval_s = {min_interval_s}
queue_max = 2
"""


@pytest.fixture
def queue(tmp_path):
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        yield queue


def make_hooks(tmp_path, queue, min_interval_s=0):
    text = CONFIG.format(note=tmp_path / "rang", min_interval_s=min_interval_s)
    (tmp_path / "config.toml").write_text(text)
    settings = Settings.load(tmp_path / "config.toml", environ={})
    return Hooks(settings, None, queue, {hook.name: DeliveryThread(hook, queue, Stop()) for hook in hooks_of(settings)})


def test_an_event_that_a_limit_left_out_does_not_come_after_a_restart(tmp_path, queue):
    hooks = make_hooks(tmp_path, queue, min_interval_s=60)
    for announced_ns in (100, 101):
        take_event(MotionBegan(camera="cam0"), (7, announced_ns), hooks)
    assert hooks.threads["bell"].counts.limited == 1
    take_event(MotionBegan(camera="cam0"), (7, 101), make_hooks(tmp_path, queue, min_interval_s=60))
    assert queue.count() == {"bell": 1} and queue.get_since_ns() == 101


def test_dropped_events_are_those_that_the_queue_dropped(tmp_path, queue):
    hooks = make_hooks(tmp_path, queue)
    for announced_ns in range(5):
        take_event(MotionBegan(camera="cam0"), (7, announced_ns), hooks)
    assert hooks.threads["bell"].counts.dropped == 3 and queue.count() == {"bell": 2}


def test_a_command_that_a_restart_could_repeat_is_not_run_on_a_full_disk(tmp_path, queue):
    hooks = make_hooks(tmp_path, queue)
    thread, note = hooks.threads["bell"], tmp_path / "rang"
    take_event(MotionBegan(camera="cam0"), (7, 1), hooks)
    queue._file.execute("PRAGMA query_only = 1")
    take_event(MotionBegan(camera="cam0"), (7, 2), hooks)
    for _ in range(2):  # the one in the file, and the one in memory
        assert thread._handle(queue.find_first("bell"), Backoff(1.0, 1.0)) == 0.0
    assert queue.find_first("bell") is None and not note.exists()
    assert (thread.counts.given_up, thread.counts.delivered) == (2, 0) and "the disk takes nothing" in thread.last
    queue._file.execute("PRAGMA query_only = 0")
    take_event(MotionBegan(camera="cam0"), (7, 3), hooks)
    thread._handle(queue.find_first("bell"), Backoff(1.0, 1.0))
    assert note.exists() and thread.counts.delivered == 1 and queue.count() == {}
