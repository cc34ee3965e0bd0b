"""Every night gives its picture: moonlit, city, clouded, with the clock set, over a reboot. No ring, no processes."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from analyzer.night import exposure_control
from analyzer.settings import NightSettings
from exporter.continuous import startrails
from exporter.continuous.startrails import StarTrails, lower_sky
from shm_ring import Flags, FrameMeta
from shm_ring.color import luma
from shm_ring.formats import Geometry, geometry, planes
from shmcam.imaging.exposure_target import TRAIL_SKY, luma_of

WIDTH, HEIGHT = 160, 120
HOUR_S = 3600


@dataclass
class FakeFrame:
    """A frame as StarTrails sees it."""

    payload: np.ndarray
    picture: Geometry
    meta: FrameMeta

    @property
    def geometry(self) -> Geometry:
        return self.picture


def sky_of(level, layout: Geometry, star_x: int = 20, seed: int = 0) -> np.ndarray:
    """A noisy sky of a brightness (a number or a picture) with one star."""
    payload = np.full(layout.payload_bytes, 128, np.uint8)
    plane = planes(payload, layout)[0]
    noisy = np.random.default_rng(seed).normal(level, 2, (HEIGHT, WIDTH))
    noisy[60, star_x] = 255
    noisy = np.clip(noisy, 0, 255)
    plane[...] = noisy if plane.ndim == 2 else noisy[..., None]
    return payload


class Night:
    """One night, told frame by frame."""

    def __init__(self, tmp_path) -> None:
        self.layout = geometry("yuv420p", WIDTH, HEIGHT)
        self.trails = StarTrails("cam0", lambda: tmp_path)
        self.now_s, self.wall_s, self.number, self.ended = 100, 1_790_000_000, 0, []

    def go(self, level, frames: int, *, step_s: int = 60, flags: int = Flags.NIGHT) -> None:
        for _ in range(frames):
            self.now_s, self.wall_s, self.number = self.now_s + step_s, self.wall_s + step_s, self.number + 1
            meta = FrameMeta(self.number, self.now_s * 10**9, self.wall_s * 10**9, flags=int(flags))
            payload = sky_of(level, self.layout, 20 + self.number % 100, self.number)
            if ended := self.trails.add(FakeFrame(payload, self.layout, meta)):
                self.ended.append(ended)


@pytest.mark.parametrize("sky_luma", [0.3, 1, 4, 8, 12, 20, 30, 39])
def test_a_night_at_any_sky_brightness_that_is_night_gives_trails(sky_luma, tmp_path):
    """Moonlit and city nights gave no picture: the ladder exposes for luma 124, startrails left out all above 89."""
    rules = NightSettings()
    reference_s = exposure_control.reference_s_of(rules)
    value = sky_luma / 255
    light = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
    exposure = exposure_control.choose_first(light, rules)
    for _ in range(20):  # as the analyzer does: until it stays
        seen = light * exposure.product_s / reference_s
        following = exposure_control.choose_next(min(seen, 1.0), float(seen >= 1.0), exposure.product_s, rules)
        if following is None:
            break
        exposure = following
    night = Night(tmp_path)
    night.go(luma_of(min(1.0, light * exposure.product_s / reference_s)), 100)
    stack = night.trails.night
    assert stack is not None and stack.trails.count == 100 and not stack.left_out
    shown = luma(stack.trails.value, night.layout)
    background = np.median(shown)
    assert background < TRAIL_SKY + 12 and shown[60, 21:119].min() > background + 80


@pytest.mark.parametrize("moon_h", [3, 5, 9])
def test_one_night_is_one_picture_though_the_moon_is_up_for_hours(moon_h, tmp_path):
    night = Night(tmp_path)
    for hours, level in ((1, 20), (moon_h, 120), (1, 20)):
        night.go(level, hours * 60)
    assert not night.ended and night.trails.night.trails.count == (moon_h + 2) * 60
    assert night.trails.night.lowered == moon_h * 60
    night.go(200, 3, flags=0)
    assert len(night.ended) == 1 and night.ended[0].brightest.duration_s == pytest.approx((moon_h + 2) * HOUR_S, abs=60)


@pytest.mark.parametrize("jump_h", [-9, 9, 24 * 365])
def test_a_clock_that_is_set_does_not_divide_the_night(jump_h, tmp_path):
    """A Pi without a clock battery boots with yesterday's time and is set when the network comes."""
    night = Night(tmp_path)
    night.go(20, 30)
    night.wall_s += jump_h * HOUR_S
    night.go(20, 30)
    assert not night.ended and night.trails.night.trails.count == 60
    assert night.trails.night.brightest.duration_s == 59 * 60


def test_a_night_goes_on_over_a_reboot_and_ends_after_a_day_without_power(tmp_path, monkeypatch):
    night = Night(tmp_path)
    night.go(20, 30)
    night.trails.save_state(10**18, 1)
    for boot, off_s, count in (("second", 600, 60), ("third", 20 * HOUR_S, 30)):
        monkeypatch.setattr(startrails, "boot_id", lambda boot=boot: boot)
        night.trails = StarTrails("cam0", lambda: tmp_path)
        night.trails.load_state()
        night.now_s, night.wall_s = 50, night.wall_s + off_s
        night.go(20, 30)
        assert night.trails.night.trails.count == count
        assert night.trails.night.duration_ns == {60: 59 * 60 + 600, 30: 29 * 60}[count] * 10**9
        night.trails.save_state(10**18, 1)
    assert [ended.trails.count for ended in night.ended] == [60]


def test_a_night_that_an_earlier_version_began_goes_on(tmp_path):
    """Its state had no `seen`, `boot_id`, `duration_ns` and `left_out`, and the night so far was set aside."""
    night = Night(tmp_path)
    night.go(20, 30)
    night.trails.save_state(10**18, 1)
    state = night.trails._paths[0]
    with np.load(state) as stored:
        arrays = dict(stored)
    facts = json.loads(str(arrays["facts"]))
    old = {name: facts[name] for name in ("geometry", "first", "last")} | {"counts": [30, 30, 7]}
    np.savez(state, **{**arrays, "facts": np.array(json.dumps(old))})
    night.trails = StarTrails("cam0", lambda: tmp_path)
    night.trails.load_state()
    assert night.trails.night.duration_ns == 29 * 60 * 10**9
    night.go(20, 30)
    again = night.trails.night
    assert not night.ended and (again.trails.count, again.left_out, again.lowered) == (60, {"unknown": 7}, 0)
    assert again.duration_ns == 59 * 60 * 10**9


def test_what_is_left_out_is_counted_by_reason_and_survives_a_kill(tmp_path):
    night = Night(tmp_path)
    night.go(255, 10)
    night.go(20, 5, flags=Flags.NIGHT | Flags.SETTLING)
    night.go(20, 20)
    night.trails.save_state(10**18, 1)
    again = StarTrails("cam0", lambda: tmp_path)
    again.load_state()
    assert again.night.summary == {
        "frames": 20,
        "left_out": 15,
        "left_out_why": {"white": 10, "settling": 5},
        "bright_sky_lowered": 0,
        "hours": pytest.approx(19 / 60, abs=0.001),
    }
    assert again.night.describe() == "20 frames, 15 left out (white 10, settling 5)"
    assert again.night.first.frame_id == 16  # the first frame used


def test_a_bright_hour_does_not_hide_the_trails_of_the_dark_ones(tmp_path):
    night = Night(tmp_path)
    night.go(10, 50)
    glow = np.linspace(30, 220, HEIGHT)[:, None] * np.ones((1, WIDTH))  # moonlight from below
    night.go(glow, 50)
    shown = luma(night.trails.night.trails.value, night.layout).astype(int)
    without_star = np.delete(shown, 60, axis=0)
    assert np.percentile(without_star, 95) < TRAIL_SKY + 15
    assert (shown[60, 21:119] > 150).all()


@pytest.mark.parametrize(
    ("pixel_format", "color_range"),
    [("yuv420p", "pc"), ("yuv420p", "tv"), ("nv12", "pc"), ("bgr24", "pc"), ("gray", "pc")],
)
def test_the_sky_is_lowered_in_every_pixel_format(pixel_format, color_range):
    layout = geometry(pixel_format, WIDTH, HEIGHT, color_range=color_range)
    dark, bright = sky_of(25, layout), sky_of(150, layout)
    assert lower_sky(dark, layout) is dark
    before = bright.copy()
    lowered = luma(lower_sky(bright, layout), layout)
    assert np.array_equal(bright, before)
    assert 35 < np.median(lowered) < 60 and lowered[60, 20] > 130
