"""What differs between machines: fences, the futex call, memory limits."""

from __future__ import annotations

import functools
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
import time

import pytest

from shm_ring import RingError, RingReader, segment
from shm_ring.machine import available_memory, sync
from tests.shm_ring.frames import meta, pattern


def test_machines_that_keep_order_need_no_fences_and_others_do():
    assert sync.fences(machine="x86_64") == (None, None)
    for machine in ("aarch64", "riscv64", "armv7l", "ppc64le"):
        real = sync.fences(machine=machine)
        assert real.acquire is not None
        assert real.release is not None
        real.acquire()
        real.release()


def test_the_copy_of_a_frame_is_fenced_on_every_machine(make_writer, ring_name):
    """Also where plain stores keep their order: memcpy's non-temporal ones do not."""
    for machine in ("x86_64", "aarch64"):
        release = sync.fences(machine=machine).release
        before, after = sync.around_copy(release)
        assert before is not None and after is not None
        for _ in range(2):
            before()
            before()  # an abandoned slot is begun again
            after()
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        calls = []
        before, after = writer._before_copy, writer._after_copy
        writer._before_copy = lambda: (calls.append(("A", writer._words[1024])), before())
        writer._after_copy = lambda: (calls.append(("B", bytes(writer._places[0].payload[:2]))), after())
        writer.publish(b"ab", meta(0))
        assert calls == [("A", 1), ("B", b"ab")]
        assert reader.copy(0).payload.tobytes() == b"ab"


def test_a_missing_libatomic_is_named_with_its_package(monkeypatch, make_writer, ring_name):
    with make_writer() as writer:
        writer.publish(b"", meta(0))
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")

        def missing(name: str) -> None:
            raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setattr(sync.ctypes, "PyDLL", missing)
        with pytest.raises(RingError, match="this CPU needs libatomic for memory fences: apt install libatomic1"):
            sync.fences()
        with pytest.raises(RingError, match="libatomic1"):
            RingReader.open(ring_name)
        with pytest.raises(RingError, match="libatomic1"):
            make_writer()
        monkeypatch.undo()


def test_frames_pass_with_real_fences(make_writer, ring_name):
    with make_writer(force_fences=True) as writer, RingReader.open(ring_name, force_fences=True) as reader:
        for number in range(20):
            writer.publish(pattern(number, 400), meta(number))
            assert reader.wait(number, 1)
            assert (reader.copy(number).payload == pattern(number, 400)).all()


def test_the_futex_call_follows_kernel_and_word_size():
    assert sync.find_call_number("x86_64", 8) == 202
    assert sync.find_call_number("aarch64", 8) == 98
    assert sync.find_call_number("aarch64", 4) == 240  # a 32-bit Raspberry Pi OS under its 64-bit kernel
    assert sync.find_call_number("armv7l", 4) == 240
    assert sync.find_call_number("sparc64", 8) is None


def test_where_the_call_is_unknown_readers_poll(monkeypatch, make_writer, ring_name):
    monkeypatch.setattr(sync, "find_call_number", lambda machine, pointer_bytes: None)
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        timer = threading.Timer(0.05, writer.publish, (b"late", meta(0)))
        timer.start()
        deadline_s = time.monotonic() + 10
        while not reader.wait(0, 0.5):
            assert time.monotonic() < deadline_s
        timer.join()
        assert reader.copy(0).payload.tobytes() == b"late"


def test_a_sleeper_is_woken_through_another_mapping(make_writer, ring_name):
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        timer = threading.Timer(0.05, writer.publish, (b"", meta(0)))
        began_s = time.monotonic()
        timer.start()
        assert reader.wait(0, 30)
        assert time.monotonic() - began_s < 30
        timer.join()
        assert reader.wait(0, math.inf)
        assert not reader.wait(1, 0.01)


def write_group(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_memory_limits_of_containers_count(tmp_path):
    """cgroup v1 and v2, a limit above the process's own group, files that the kernel drops, a container's own view."""
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    find = functools.partial(available_memory.find_group_limits, groups, root)
    assert list(find()) == [], "no control groups at all"
    stat = "anon 5\ninactive_file 100\n"
    write_group(root / "a/b", memory__max="max\n", memory__current="350\n", memory__stat=stat)
    write_group(root / "memory/c", memory__limit_in_bytes="2000\n", memory__usage_in_bytes="900\n")
    (root / "memory/c/memory.stat").write_text("inactive_file 1\ntotal_inactive_file 400\n")
    (root / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    for name in ("max", "current", "stat"):
        (root / f"a/memory.{name}").write_text({"max": "1000\n", "current": "300\n", "stat": stat}[name])
    groups.write_text("0::/a/b\n")
    assert list(find()) == [(1000, 200)]
    groups.write_text("9:name=systemd:/\n4:cpu,memory:/c\n0::/\n")
    assert list(find()) == [(2000, 500)]
    groups.write_text("4:memory:/docker/0123\n")  # of the host, which this container does not see
    shutil.move(root / "memory/c", root / "kept")
    shutil.rmtree(root / "memory")
    shutil.move(root / "kept", root / "memory")
    assert list(find()) == [(2000, 500)]
    room = available_memory.available_room()
    assert room.usable_bytes > 0 and room.memory_bytes <= available_memory.total_memory_bytes()


def test_a_process_is_known_by_pid_and_start_time():
    me = os.getpid()
    assert segment.is_alive(me, segment.start_time_of(me))
    assert not segment.is_alive(me, segment.start_time_of(me) + 1)
    assert not segment.is_alive(0, 0)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    started = segment.start_time_of(child.pid)
    deadline_s = time.monotonic() + 20
    while segment.is_alive(child.pid, started):  # a zombie is dead, although its pid is still taken
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    child.wait()
    assert not segment.is_alive(child.pid, 0), "a header of zeros names nobody"
