"""Cameras that stall, fail, vanish, are held by others, or never come back from a call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from capture.sources.base import CameraBusy, CameraError
from capture.sources.picamera2.device import STOP_S, list_cameras, name_lock_holders
from tests.picamera2.camera import Camera, descriptors

pytestmark = pytest.mark.picamera2


def test_a_stalled_camera_is_seen_and_goes_on(camera, rig):
    one = camera()
    one.frames(3)
    rig.put("stall-0")
    while one.source.wait(0.5):  # what was on its way
        one.source.write(one.payload)
    assert not one.source.wait(0.5)
    rig.remove("stall-0")
    one.frames(3)


@pytest.mark.parametrize("fault", ["error", "short"])
def test_damaged_frames_are_passed_over(camera, rig, fault):
    one = camera()
    one.frames(3)
    rig.put(f"{fault}-0")
    while one.source.wait(0.5):
        one.source.write(one.payload)
    rig.remove(f"{fault}-0")
    one.frames(20)
    numbers = [number for number, _ in one.frames(5)]
    assert numbers == list(range(numbers[0], numbers[0] + 5)), "the damaged frames' buffers went back"


def test_an_unplugged_camera_delivers_nothing_and_opens_again_when_it_is_back(camera, rig):
    one = camera()
    one.frames(3)
    rig.put("unplug-0")
    while one.source.wait(0.5):
        one.source.write(one.payload)
    one.close()
    with pytest.raises(CameraError, match="imx708@10 is gone: libcamera sees imx296"):
        one.source.open(one.request, one.stop)
    rig.remove("unplug-0")
    one.source.open(one.request, one.stop)
    one.frames(3)


def test_a_camera_absent_at_boot_is_found_when_it_comes(rig):
    rig.put("unplug-0")
    rig.put("unplug-1")
    assert list_cameras(afresh=True) == ()
    for _ in range(2):
        with pytest.raises(CameraError, match="no Picamera2 camera 0: libcamera sees none"):
            Camera()
    rig.clear()
    one = Camera()
    one.frames(2)
    one.close()
    assert len(list_cameras(afresh=True)) == 2


def test_attempts_that_fail_leak_nothing(camera, rig):
    camera().close()
    rig.put("unplug-0")
    counts = []
    for _ in range(8):
        with pytest.raises(CameraError):
            Camera()
        counts.append(descriptors())
    assert counts[-1] == counts[1]


def test_a_camera_held_by_another_process_is_reported_with_its_name(rig):
    command = "from tests.picamera2.camera import Camera; Camera().frame(); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"open\n"
            assert name_lock_holders() == f"python (pid {other.pid})"
            before = descriptors()
            for _ in range(3):
                with pytest.raises(CameraBusy, match=rf"imx708 is held by python \(pid {other.pid}\)"):
                    Camera()
            assert descriptors() <= before + 1  # libcamera keeps its own eventfd once it runs
        finally:
            other.kill()
    one = Camera()
    one.frames(2)
    one.close()


@pytest.mark.parametrize("how", ["close()", "exit"])
def test_a_stop_that_never_returns_ends_the_process(rig, how):
    """The bindings hold the interpreter lock in stop(): no thread of ours could do anything about it."""
    leaving = "one.close()" if how == "close()" else "raise SystemExit(0)"
    command = f"""
from tests.picamera2.camera import Camera
one = Camera()
one.frames(2)
print('running', flush=True)
input()
{leaving}
"""
    with subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"running\n"
            rig.put("hangstop-0")
            began = time.monotonic()
            process.stdin.write(b"\n")
            process.stdin.close()
            assert process.wait(STOP_S + 10) == 1
            assert time.monotonic() - began < STOP_S + 8
            assert b"Timeout" in process.stderr.read()
        finally:
            os.kill(process.pid, signal.SIGKILL) if process.poll() is None else None
            rig.clear()
