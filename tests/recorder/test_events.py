"""Events of other processes become clips: motion that lasts, night; through a real hub."""

from __future__ import annotations

import pytest

from shmcam.config.settings import Settings
from shmcam.control.client import ControlClient
from shmcam.control.messages import MotionBegan, MotionEnded, NightBegan
from shmcam.library import Catalogue
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop
from tests.machine import until
from tests.recorder.rig import TOLD_LATE, check_clip


@pytest.fixture
def scene(rig):
    """A camera that films, a recorder that waits for events, and somebody who announces them."""
    made = rig(mode="event", events=["motion", "night"], pre_roll_s=1.0, post_roll_s=0.5)
    made.start_hub()
    film = made.camera(slots=256, size=(320, 180))
    film.begin_filming()
    made.start()
    made.ready()
    made.answers()
    with ControlClient("analyzer", "cam0", socket_path=made.socket, stop=Stop()) as analyzer:
        until(lambda: analyzer.is_connected, 10)
        yield made, film, analyzer


def test_motion_is_recorded_from_before_it_began_until_after_it_ended(scene):
    made, film, analyzer = scene
    film.wait_frames(36)
    began_ns = now_ns()
    analyzer.announce(MotionBegan(camera="cam0", captured_ns=began_ns, score=3.0))
    film.wait_frames(30)
    ended_ns = now_ns()
    analyzer.announce(MotionEnded(camera="cam0", captured_ns=ended_ns))
    until(lambda: "recording ended" in made.log(), 15, made.log())
    (clip,) = until(made.clips, 5)
    times = {meta.frame_id: meta.captured_ns for meta in film.published}
    wanted = [number for number, at_ns in times.items() if began_ns - 10**9 <= at_ns < ended_ns + 5 * 10**8]
    ids = check_clip(clip, film)
    assert ids == list(range(wanted[0], ids[-1] + 1)) and wanted[-1] <= ids[-1] <= wanted[-1] + TOLD_LATE
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        (entry,) = until(lambda: library.find(kinds=["clip"]), 10)
    assert entry.trigger == "motion" and entry.is_triggered


def test_the_coming_of_night_is_recorded_and_other_cameras_events_are_not(scene):
    made, film, analyzer = scene
    analyzer.announce(MotionBegan(camera="cam9", captured_ns=now_ns()))
    film.wait_frames(20)
    assert not made.clips("*.part")
    analyzer.announce(NightBegan(camera="cam0", captured_ns=now_ns()))
    until(lambda: "trigger=night" in made.log(), 10, made.log())
    until(lambda: len(made.clips()) == 1, 10)


@pytest.mark.parametrize("ends", ["while it is dead", pytest.param("after the restart", marks=pytest.mark.slow)])
def test_motion_that_outlives_a_killed_recorder_goes_on_in_another_clip(scene, ends):
    """With what the ring held meanwhile: no frame is in both, none is missing."""
    made, film, analyzer = scene
    film.wait_frames(36)
    analyzer.announce(MotionBegan(camera="cam0", captured_ns=now_ns()))
    film.wait_frames(40)
    made.processes[-1].kill()
    made.processes[-1].wait()
    if ends == "while it is dead":
        analyzer.announce(MotionEnded(camera="cam0", captured_ns=(ended_ns := now_ns())))
    film.wait_frames(25)
    film.held = True  # or a busy machine takes longer for a start than the ring holds
    made.start()
    made.ready(times=2)
    film.held = False
    if ends == "after the restart":
        film.wait_frames(15)
        analyzer.announce(MotionEnded(camera="cam0", captured_ns=(ended_ns := now_ns())))
    until(lambda: len(made.clips()) == 2 and not made.clips("*.part"), 15, made.log())
    ids = [number for clip in sorted(made.clips()) for number in check_clip(clip, film)]
    ids.sort()
    assert ids == list(range(ids[0], ids[-1] + 1)), "each frame once, none missing"
    times = {meta.frame_id: meta.captured_ns for meta in film.published}
    wanted = [number for number, at_ns in times.items() if at_ns < ended_ns + 5 * 10**8]
    assert wanted[-1] <= ids[-1] <= wanted[-1] + TOLD_LATE, "with its post-roll"
    with Catalogue.of(Settings.load(made.folder / "config.toml", environ={})) as library:
        entries = until(lambda: len(found := library.find(kinds=["clip"])) == 2 and found, 10)
    assert [entry.trigger for entry in entries] == ["motion", "motion"]
    assert len({entry.path.parent for entry in entries}) == 1, "one folder"
