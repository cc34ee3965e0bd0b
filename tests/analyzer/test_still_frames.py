"""Frames that show nothing new are passed over; what moves, darkens or is exposed anew is found as if none were."""

import numpy as np
import pytest

from analyzer.frame_analyzer import LOOK_NS, FrameAnalyzer
from analyzer.frame_sample import FrameSample
from analyzer.night.brightness import cut_detail_rows, sample_grid
from analyzer.scores_writer import ScoresWriter
from analyzer.settings import AnalyzerSettings, MotionSettings, NightSettings
from shm_ring import Flags, FrameMeta
from shm_ring.records.scores import SCORE

FPS = 30


class Scene:
    """A textured scene with noise; two analyzers see the same frames, one of them each of them."""

    def __init__(self, **night):
        self.rng = np.random.default_rng(1)
        self.base = np.kron(self.rng.uniform(60, 160, (27, 48)), np.ones((10, 10)))
        self.every, self.some = (
            FrameAnalyzer(NightSettings(**night), AnalyzerSettings(), MotionSettings()) for _ in range(2)
        )
        self.number = self.looks = 0
        self.begun = {"every": [], "some": []}
        self.switched = {"every": [], "some": []}

    def see(self, frames, change=lambda picture, number: picture, **meta):
        for number in range(frames):
            picture = change(self.base.copy(), number) + self.rng.normal(0, 2, self.base.shape)
            self._see(np.clip(np.rint(picture), 0, 255).astype(np.uint8), meta)

    def _see(self, luma, more):
        self.number += 1
        captured_ns = round(self.number * 1e9 / FPS)
        meta = FrameMeta(self.number, captured_ns, captured_ns, **{"exposure_us": 10_000, "analogue_gain": 1.0, **more})
        height, width = luma.shape
        sample = FrameSample(meta, width, height, sample_grid(luma), False, cut_detail_rows(luma), None)
        self.every._measured = None
        self._note("every", self.every.analyze(sample))
        if not self.some.shows_nothing_new(sample):
            self.looks += 1
            self._note("some", self.some.analyze(sample))

    def _note(self, name, result):
        if result.motion_event and result.motion_event.began:
            self.begun[name].append(result.motion_event.frame_id)
        if result.decision:
            self.switched[name].append(result.decision.captured_ns)


def crossing(speed):
    """A square that moves so many pixels a frame."""

    def draw(picture, number):
        column = 20 + int(number * speed)
        picture[100:130, column : column + 30] = 220
        return picture

    return draw


def test_a_scene_that_stands_still_is_looked_at_a_few_times_a_second():
    scene = Scene()
    scene.see(60)
    before = scene.looks
    scene.see(4 * FPS)
    assert scene.looks - before < 4 * 1e9 / LOOK_NS * 1.2


@pytest.mark.parametrize("speed", [0.3, 1, 6])
@pytest.mark.parametrize("after", (60, 62, 65))
def test_motion_begins_with_the_same_frame_whenever_it_begins(speed, after):
    scene = Scene()
    scene.see(after)
    scene.see(40, crossing(speed))
    assert scene.begun["every"]
    assert scene.begun["some"] == scene.begun["every"]


def test_while_something_moves_every_frame_is_looked_at():
    scene = Scene()
    scene.see(90)
    scene.see(5, crossing(6))
    before = scene.looks
    scene.see(40, lambda picture, number: crossing(6)(picture, number + 5))
    assert scene.looks - before == 40


def test_night_begins_within_a_look_of_when_it_would():
    scene = Scene(dwell_s=2.0, min_dark_frames=30)
    scene.see(60)
    scene.see(120, lambda picture, number: picture * 0.05, exposure_us=33_333, analogue_gain=8.0)
    assert len(scene.switched["every"]) == len(scene.switched["some"]) == 1
    assert 0 <= scene.switched["some"][0] - scene.switched["every"][0] <= LOOK_NS


@pytest.mark.parametrize("meta", [{"exposure_us": 20_000}, {"flags": Flags.SETTLING}, {"flags": Flags.NIGHT}])
def test_another_exposure_or_flag_is_looked_at_at_once(meta):
    scene = Scene()
    scene.see(61)
    before = scene.looks
    scene.see(1, **meta)
    assert scene.looks == before + 1


class Published:
    """A ring that keeps what was published."""

    intact = True

    def __init__(self):
        self.rows = []

    def publish(self, payload, meta):
        self.rows.append(payload.view(SCORE)[0].copy())


def test_a_frame_that_is_passed_over_has_its_own_sharpness():
    """pastStack chooses by it: frames of a still scene are sharp and blurred in turn when the camera shakes."""
    scene, ring, sharpness = Scene(), Published(), {}
    writer = ScoresWriter(ring)
    for number in range(1, 60):
        picture = np.clip(scene.base + scene.rng.normal(0, 2 if number % 2 else 0.5, scene.base.shape), 0, 255)
        luma = np.rint(picture).astype(np.uint8)
        meta = FrameMeta(number, number * 33_000_000, number * 33_000_000, exposure_us=10_000, analogue_gain=1.0)
        sample = FrameSample(meta, 480, 270, sample_grid(luma), False, cut_detail_rows(luma), None)
        sharpness[number] = np.float32(sample.sharpness)
        if scene.some.shows_nothing_new(sample):
            writer.repeat(sample, {})
        else:
            writer.publish(scene.some.analyze(sample), scene.some, {})
    assert {row["frame_id"]: row["sharpness"] for row in ring.rows} == sharpness
