"""Capture restarts, new generations of the ring, wall clocks that jump, recorders that are lapped."""

from __future__ import annotations

import os
import signal
import time

from shmcam.runtime.clock import now_ns
from tests.machine import until, within
from tests.recorder.rig import PERIOD_NS, check_clip, decoded, numbers, rows, timing_of


def film(camera, count, start_ns, **more):
    for number in range(count):
        camera.publish(start_ns + number * PERIOD_NS, **more)
        time.sleep(0.004)
    return start_ns + count * PERIOD_NS


def test_a_restarted_capture_and_a_new_generation_go_on_in_the_same_file(rig):
    """kill -9 of capture leaves the segment for the next one; a retired ring is followed by another."""
    made = rig(auto_start=True, on_close="plain")
    made.start()
    made.ready()
    first = made.camera(slots=64)
    at_ns = film(first, 30, now_ns())
    until(lambda: "recording began" in made.log(), 10, made.log())
    first.writer.close()  # what a kill leaves: the segment, the lock free
    second = made.camera(slots=64)
    assert second.writer.took_over
    at_ns = film(second, 30, at_ns + 2 * PERIOD_NS)
    second.close()  # retired and unlinked
    third = made.camera(slots=80)
    assert third.writer.generation != second.writer.generation
    film(third, 30, at_ns + 1_000_000_000)
    made.cameras.clear()
    made.written(90)
    third.close()
    assert made.stop(made.processes[-1]) == 0
    (clip,) = made.clips()
    assert numbers(clip) == list(range(90))
    first.published += second.published + third.published
    check_clip(clip, first)


def test_a_wall_clock_that_jumps_changes_no_time_and_overwrites_no_file(rig):
    """Steps of -1 day, +6 h and back to 1970: times inside files are the sensor's, names stay apart."""
    made = rig(auto_start=True, mode="rolling", recording_duration_minutes=0.5 / 60, on_close="plain")
    made.start()
    made.ready()
    camera, next_ns = made.camera(slots=256, size=(320, 180)), now_ns()
    for step_s in (0, -86_400, 21_600, -1_790_000_000, 0):
        camera.clock_set_ns = step_s * 1_000_000_000
        next_ns = film(camera, 20, next_ns)
    made.written(100)
    assert made.stop(made.processes[-1]) == 0
    clips = sorted(made.clips(), key=lambda clip: numbers(clip)[0])
    assert [number for clip in clips for number in check_clip(clip, camera)] == list(range(100))
    assert len({clip.name for clip in clips}) == len(clips) >= 6
    for clip in clips:
        pts = [time_us for time_us, _ in decoded(clip)]
        assert pts == sorted(pts) and pts[0] == 0


def test_frames_that_were_overwritten_before_they_could_be_taken_are_counted_everywhere(rig):
    """A stopped recorder is lapped: what it lost is in CSV, status and log, and nothing torn is in the file."""
    made = rig(auto_start=True, on_close="plain")
    process = made.start()
    made.ready()
    camera = made.camera(slots=24)  # more than the film before and after: only the stop costs frames
    at_ns = film(camera, 20, now_ns())
    made.written(20)
    os.kill(process.pid, signal.SIGSTOP)
    at_ns = film(camera, 100, at_ns)
    os.kill(process.pid, signal.SIGCONT)
    made.written(30)
    film(camera, 20, at_ns)
    until(lambda: any("\n139," in path.read_text() for path in made.clips("*.csv.part")), 20, made.log())
    assert made.stop(process) == 0
    (clip,) = made.clips()
    ids = numbers(clip)
    lost = 140 - len(ids)
    assert 60 < lost < 100 and ids[0] == 0 and ids[-1] == 139
    assert check_clip(clip, camera, drops=lost) == ids
    assert int(rows(timing_of(clip))[-1]["total_hardware_drops"]) == 0, "none of the camera's"
    assert f"lost={lost}" in made.log()


def test_a_storm_of_sigterms_costs_no_frame_and_no_time(rig):
    """Also during the close: the first one counts, the file is whole."""
    made = rig(auto_start=True, on_close="plain")
    process = made.start()
    made.ready()
    camera = made.camera(slots=64)
    film(camera, 60, now_ns())
    made.written(60)
    for _ in range(50):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
    with within(10.0):
        code = process.wait(120)
    assert code in (0, -signal.SIGTERM), "the last ones may meet an interpreter that has ended"
    (clip,) = made.clips()
    assert check_clip(clip, camera) == list(range(60))
    assert not made.clips("*.part")
