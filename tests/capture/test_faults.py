"""Cameras that fail in every way a script can think of; the process stays, says so, and frames come back."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shm_ring import Flags, RingReader
from tests.capture.harness import ROOT, Processes
from tests.machine import until, within

SCRIPTED = "tests.capture.scripted"


def test_a_camera_absent_at_boot_is_waited_for_and_frames_come_within_5_s_of_its_arrival():
    with Processes() as world:
        world.start_hub()
        world.script.write_text("absent")
        capture = world.start_capture(SCRIPTED, frames=False)
        until(lambda: world.beat().get("state") == "no camera", 20)
        assert "no such device" in world.beat()["reason"]
        time.sleep(4)  # so that the delays have grown to their limit
        assert capture.poll() is None
        assert world.log().count("no camera: no such device") == 1, "trouble is said once"
        world.script.write_text("ok")
        with within(5.0):
            until(lambda: world.head() > 0)
        until(lambda: world.beat().get("state") == "running", 20)


@pytest.mark.parametrize(
    ("fault", "state", "words"),
    [
        ("absent", "no camera", "no such device"),
        ("error", "no camera", "Input/output error"),
        ("stall", "stalled", "no frame for"),
    ],
)
def test_a_camera_that_fails_while_it_runs_is_reported_within_3_s_and_comes_back(fault, state, words):
    with Processes() as world:
        world.start_hub()
        capture = world.start_capture(SCRIPTED)
        until(lambda: world.beat().get("state") == "running", 10)
        with world.reader() as ring:
            world.script.write_text(fault)
            with within(3.0):
                until(lambda: world.beat()["state"] == state)
            assert words in world.beat()["reason"]
            head = ring.head
            world.script.write_text("ok")
            with within(5.0):
                until(lambda: ring.head > head)
            assert not ring.retired, "the same ring goes on"
            with ring.borrow(head) as frame:
                assert frame.meta.flags & Flags.SETTLING or fault == "stall"
        assert capture.poll() is None


def test_another_size_or_format_inside_a_source_is_a_new_generation_of_an_open_camera():
    """A camera that turned grey at night stayed grey by day, and one that changed its size was closed for it."""
    with Processes(ring={"size": 64, "downscale": {"enable": True, "width": 80, "height": 60}}) as world:
        world.start_hub()
        world.start_capture(SCRIPTED)
        with world.reader() as ring:
            before = ring.copy(ring.latest())
            world.script.write_text("grey")
            until(lambda: ring.retired, 10)
        until(lambda: world.head() > before.meta.frame_id + 5, 10)
        with world.reader() as ring:
            after = ring.copy(ring.latest())
        with world.reader(stream="lores") as small:
            assert small.copy(small.latest()).geometry.pixel_format == "gray"
        assert (after.geometry.pixel_format, after.geometry.width) == ("gray", 160)
        assert world.log().count("opened scripted camera") == 1
        assert "frames are now 160x240 gray" in world.log()
        until(lambda: world.beat().get("state") == "running", 10)


def test_a_stall_that_lasts_ends_in_a_new_attempt():
    with Processes(camera={"lost_after_s": 2.0}) as world:
        world.start_hub()
        world.start_capture(SCRIPTED)
        world.script.write_text("stall")
        until(lambda: "no frame for " in world.log() and world.beat().get("state") == "no camera", 20)
        world.script.write_text("ok")
        head = world.head()
        until(lambda: world.head() > head + 5, 20)


def test_a_short_frame_is_never_published_and_costs_a_second_at_most():
    with Processes() as world:
        world.start_hub()
        world.start_capture(SCRIPTED)
        with world.reader() as ring:
            world.script.write_text("short")
            until(lambda: "short frame: 12 bytes" in world.log(), 10)
            head = ring.head
            until(lambda: ring.head > head + 20, 10)
            for sequence in ring.last(20):
                with ring.borrow(sequence) as frame:
                    assert (frame.luma[40:] == frame.frame_id % 256).all()


def test_what_the_device_lost_is_counted_in_the_slot_and_in_the_status():
    with Processes() as world:
        world.start_hub()
        world.start_capture(SCRIPTED)
        with world.reader() as ring:
            world.script.write_text("lose")
            found = until(lambda: [m for s in ring.last(60) if (m := ring.meta(s)).dropped_before == 3], 10)
            assert found[0].total_dropped >= 3
        until(lambda: world.beat()["figures"].get("dropped", 0) >= 3, 20)


def test_a_hang_in_the_driver_stops_the_heartbeat_so_that_the_watchdog_sees_it():
    with Processes() as world:
        world.start_hub()
        capture = world.start_capture(SCRIPTED)
        until(lambda: world.beat().get("state") == "running", 10)
        world.script.write_text("hang")
        until(lambda: world.beat()["state"] == "silent", 10)
        world.script.write_text("ok")
        world.stop(capture, signal.SIGKILL)  # what the watchdog does
        with RingReader.open(world.name()) as ring:
            head = ring.head
            world.start_capture(SCRIPTED)
            until(lambda: ring.head > head + 3, 20)


def test_a_hang_in_close_ends_with_sigkill_as_supervisord_does_it_and_harms_nothing():
    with Processes() as world:
        capture = world.start_capture(SCRIPTED)
        world.script.write_text("hang_close")
        capture.send_signal(signal.SIGTERM)
        time.sleep(1)  # in which it could end
        assert capture.poll() is None, "it hangs in the driver"
        capture.kill()
        capture.wait()
        world.script.write_text("ok")
        with world.reader() as ring:
            head = ring.head
        world.start_capture(SCRIPTED)
        until(lambda: world.head() > head, 10)


def test_swap_pressure_slows_then_pauses_then_ends():
    with Processes() as world:
        meminfo = world.folder / "meminfo"

        def swap(percent):
            new = world.folder / "new"
            new.write_text(f"SwapTotal: 1000 kB\nSwapFree: {1000 - percent * 10} kB\n")
            new.rename(meminfo)

        swap(0)
        world.start_hub()
        world.start_capture(SCRIPTED)
        with world.reader() as ring:
            until(lambda: ring.meta(ring.latest()).frame_duration_us == 33_333, 20)
            swap(75)
            until(lambda: ring.meta(ring.latest()).frame_duration_us == 66_667, 20)
            swap(90)
            until(lambda: world.beat().get("state") == "paused", 20)
            assert "swap above 85 %" in world.beat()["reason"]
            head = ring.head
            time.sleep(0.5)  # fifteen frames that must not come
            assert ring.head == head
            swap(10)
            until(lambda: ring.head > head + 5, 20)
            assert ring.meta(ring.latest()).frame_duration_us == 33_333
            assert ring.meta(head).dropped_before == 0, "a pause is no loss"
        assert "swap pressure none → slow swap=75 %" in world.log()
        assert "swap pressure slow → pause" in world.log() and "swap pressure pause → none" in world.log()


def test_a_camera_that_takes_long_to_open_is_not_taken_for_a_hang():
    with Processes() as world:
        world.start_hub()
        world.script.write_text("slow_open")
        world.start_capture(SCRIPTED, frames=False)
        states = set()
        until(lambda: states.add(world.beat().get("state")) or world.head() > 0, 20)
        assert states <= {None, "missing", "starting", "running"}


@pytest.mark.slow  # the decision itself: test_decisions
def test_a_ring_that_a_reader_keeps_small_says_so_and_grows_when_it_lets_go():
    """In a private mount namespace with a /dev/shm of 6 MB."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this machine forbids unprivileged user namespaces")
    script = f"mount -t tmpfs -o size=6m tmpfs /dev/shm && exec {sys.executable} -m tests.capture.tiny_shm"
    command = ["unshare", "-Urm", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_segment_that_cannot_be_understood_ends_nobody_and_is_read_once_it_is_replaced():
    """Left by another version or overwritten: streamer, recorder and analyzer gave up one after the other."""
    with Processes() as world:
        world.start_hub()
        world.stop(world.start_capture(), signal.SIGKILL)
        with Path(f"/dev/shm{world.name()}").open("r+b") as file:
            file.seek(4)  # the version
            file.write(b"\x63\0\0\0")
        readers = {role: world.start(role) for role in ("analyzer", "recorder", "streamer")}
        until(lambda: "layout version 99" in str(world.beat("analyzer").get("reason")), 30, world.log)
        until(lambda: all("ring cannot be read" in world.log(role) for role in readers), 30, world.log)
        assert all(child.poll() is None for child in readers.values()), world.log()
        world.start_capture()
        until(lambda: world.beat("analyzer").get("state") == "running", 30, world.log)
        assert all(child.poll() is None for child in readers.values()), world.log()


def test_a_second_capture_that_is_refused_leaves_the_camera_found():
    with Processes() as world:
        world.start_hub()
        world.start_capture()
        state = lambda: world.ask("status").data["cameras"][0]["state"]  # noqa: E731
        until(lambda: state() == "found", 20, world.log)
        second = world.start_capture(frames=False)
        until(lambda: "is writing it already" in world.log(), 20, world.log)
        assert state() == "found"
        world.stop(second)
        assert state() == "found"
