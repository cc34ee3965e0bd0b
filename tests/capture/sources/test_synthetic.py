"""The synthetic camera behaves like a camera, twice the same way."""

import itertools

import cv2
import numpy as np
import pytest

from capture.settings import SyntheticSettings
from capture.sources.base import CameraError, CameraRequest
from capture.sources.synthetic.scene import illuminance_lux, sun_altitude_deg
from capture.sources.synthetic.sensor import CONTROL_LAG, MAX_VIDEO_GAIN, Exposure, signal_of
from capture.sources.synthetic.source import CONTROLS, SyntheticSource
from shm_ring.color import luma
from shmcam.imaging import frame_number_code
from shmcam.runtime.stop import Stop

SIZE = (320, 240)


class Camera:
    """A synthetic camera that runs as fast as possible."""

    def __init__(self, *, size=SIZE, codec="auto", mode="video", exposure_us=0, gain=0.0, controls=None, **own):
        self.source = SyntheticSource(SyntheticSettings(**own))
        self.asked = {"width": size[0], "height": size[1], "framerate": 0, "codec": codec}
        request = CameraRequest(**self.asked, mode=mode, exposure_us=exposure_us, gain=gain, controls=controls or {})
        self.opened = self.source.open(request, Stop())
        self.payload = np.zeros(self.opened.geometry.payload_bytes, np.uint8)
        self.number = 0

    def shoot(self, count=1):
        for _ in range(count):
            shot = self.source.write(self.payload, frame_id=self.number)
            self.number += 1
        return shot, luma(self.payload, self.opened.geometry)


def test_the_same_seed_gives_the_same_frames_and_another_seed_others():
    one, two, other = Camera(seed=4), Camera(seed=4), Camera(seed=5)
    for _ in range(10):
        one.shoot(), two.shoot(), other.shoot()
        assert (one.payload == two.payload).all()
    assert (one.payload != other.payload).mean() > 0.3


@pytest.mark.parametrize("codec", ["yuv420", "nv12", "rgb888", "bgr888"])
@pytest.mark.parametrize("size", [(320, 240), (333, 241), (1280, 720)])
def test_the_frame_number_is_readable_in_every_format(codec, size):
    camera = Camera(size=size, codec=codec)
    camera.number = 123_456
    for number in range(123_456, 123_459):
        _, bright = camera.shoot()
        assert frame_number_code.read(bright) == number


def test_all_formats_show_the_same_picture():
    from shm_ring.color import to_bgr

    pictures = []
    for codec in ("yuv420", "nv12", "rgb888", "bgr888"):
        camera = Camera(codec=codec)
        camera.shoot(3)
        pictures.append(to_bgr(camera.payload, camera.opened.geometry).astype(int))
    assert all(np.abs(pictures[0] - other).max() <= 2 for other in pictures[1:])


def test_an_impossible_format_is_refused_in_words():
    with pytest.raises(CameraError, match="synthetic camera makes"):
        Camera(codec="mjpeg")


def test_unknown_controls_are_reported_as_refused():
    camera = Camera(controls={"LensPosition": 1.0, "Brightness": 0.1})
    assert list(camera.opened.refused) == ["LensPosition"]
    assert "Brightness" in CONTROLS


@pytest.mark.parametrize("stops", [1, 2, 3])
def test_the_response_is_linear_in_exposure_until_it_saturates(stops):
    """In the unsaturated middle, linearised values double with the exposure (noise off)."""
    values = []
    for exposure_us in (500, 500 * 2**stops):
        camera = Camera(mode="still", exposure_us=exposure_us, gain=1.0, noise=False, moving=False)
        _, bright = camera.shoot(CONTROL_LAG + 2)
        coded = bright[120:].astype(float) / 255
        values.append(np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4))
    usable = (values[0] > 0.01) & (values[1] < 0.9)
    assert usable.mean() > 0.3
    assert np.median(values[1][usable] / values[0][usable]) == pytest.approx(2**stops, rel=0.06)


def test_noise_grows_with_gain_and_can_be_switched_off():
    spread = {}
    for gain in (1.0, 4.0, 16.0):
        camera = Camera(mode="still", exposure_us=round(8000 / gain), gain=gain, moving=False)
        camera.shoot(CONTROL_LAG + 2)
        frames = [camera.shoot()[1].astype(float) for _ in range(12)]
        spread[gain] = np.std(frames, axis=0)[40:].mean()
    assert spread[4.0] / spread[1.0] == pytest.approx(2, rel=0.15), "shot noise: the square root of the gain"
    assert spread[16.0] / spread[4.0] == pytest.approx(2, rel=0.15)
    camera = Camera(noise=False, moving=False)
    camera.shoot(40)
    one, two = (camera.shoot()[1].copy() for _ in range(2))
    assert (one[40:] == two[40:]).all()


def test_controls_act_frames_later_and_each_frame_tells_what_it_was_taken_with():
    camera = Camera(mode="still", exposure_us=1000, gain=1.0)
    camera.shoot(10)
    camera.source.apply(CameraRequest(**camera.asked, mode="still", exposure_us=4000, gain=2.0))
    told = [(shot.exposure_us, shot.analogue_gain) for shot, _ in (camera.shoot() for _ in range(8))]
    change = told.index((4000, 2.0))
    assert CONTROL_LAG <= change <= CONTROL_LAG + 2
    assert told == [(1000, 1.0)] * change + [(4000, 2.0)] * (8 - change)


@pytest.mark.parametrize("scene", ["day", "dusk"])
def test_auto_exposure_settles_without_swinging(scene):
    camera = Camera(scene=scene)
    totals = [shot.exposure_us * shot.analogue_gain for shot, _ in (camera.shoot() for _ in range(90))]
    assert max(totals[60:]) / min(totals[60:]) < 1.05
    steps = [np.sign(b - a) for a, b in itertools.pairwise(totals) if abs(b / a - 1) > 0.02]
    assert sum(a != b for a, b in itertools.pairwise(steps)) <= 1, "one direction, at most one overshoot"
    if scene == "day":
        assert 90 < camera.shoot()[1][40:].mean() < 140
    else:
        assert totals[-1] == pytest.approx(16_666 * MAX_VIDEO_GAIN, rel=0.01), "at its limits when it is dim"


def test_nights_are_dark_in_video_mode_and_show_stars_in_long_exposures():
    video, still = Camera(scene="night"), Camera(scene="night", mode="still", exposure_us=2_000_000, gain=6)
    assert video.shoot(60)[1][40:].mean() < 15
    _, bright = still.shoot(10)
    sky = bright[24:140]
    stars = cv2.connectedComponents((sky > 60).astype(np.uint8))[0] - 1
    assert stars >= 10
    assert np.median(sky) < 25


def test_the_day_follows_the_sun():
    assert sun_altitude_deg(12) == pytest.approx(40)
    assert sun_altitude_deg(0) == pytest.approx(-40)
    assert sun_altitude_deg(6) == pytest.approx(0, abs=1e-6)
    hours = [illuminance_lux("curve", hour * 3600, 86_400, 0) for hour in range(24)]
    assert hours[0] < 0.01 and hours[12] > 20_000
    assert illuminance_lux("curve", 50, 100, 0) == pytest.approx(hours[12]), "a day in 100 s"
    assert illuminance_lux("step", 4, 10, 0) > 1000 > 1 > illuminance_lux("step", 6, 10, 0)
    assert signal_of(998, Exposure(27_685, 1)) == pytest.approx(0.194), "libcamera's calibration"


def test_something_moves_across_the_picture():
    camera = Camera(noise=False, code=False)
    camera.shoot(60)
    one = camera.shoot()[1].astype(int)
    two = camera.shoot(30)[1].astype(int)
    changed = np.abs(two - one) > 10
    assert 0.002 < changed.mean() < 0.1


def test_its_timestamps_are_exactly_a_period_apart():
    source = SyntheticSource(SyntheticSettings())
    opened = source.open(CameraRequest(64, 48, 200.0), Stop())
    payload, stamps = np.zeros(opened.geometry.payload_bytes, np.uint8), []
    while len(stamps) < 100:
        if source.wait(1):
            stamps.append(source.write(payload).captured_ns)
    gaps = [b - a for a, b in itertools.pairwise(stamps)]
    assert all(gap % 5_000_000 in (0, 1, 4_999_999) for gap in gaps)
    assert min(gaps) >= 4_999_999


@pytest.mark.parametrize(
    "controls", [{"ExposureTime": 500}, {"ExposureTime": 2000}, {"AnalogueGain": 4.0}, {"AnalogueGain": 2.0}]
)
def test_what_is_left_automatic_makes_up_for_what_is_fixed(controls):
    camera = Camera(controls=controls)
    shot, bright = camera.shoot(90)
    assert shot.exposure_us == controls.get("ExposureTime", shot.exposure_us)
    assert shot.analogue_gain == controls.get("AnalogueGain", shot.analogue_gain)
    assert 90 < bright[40:].mean() < 140
