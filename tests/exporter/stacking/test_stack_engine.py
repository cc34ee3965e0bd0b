"""The stack engine against theory and against numpy's own slow ways, on simulated noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.stacking import align, dark_frames
from exporter.stacking.median import build_network, median_of, middle_of, sum_middle
from exporter.stacking.sigma_clip import BRIGHTEST, SigmaStack
from shm_ring import FrameMeta
from shm_ring.formats import geometry, planes
from shmcam.imaging.accumulate import (
    SCALE_TO_16_BITS,
    ExtremeStack,
    MeanStack,
    RunningMean,
    Stack,
    TrimmedStack,
    to_8_bits,
)

SIZE = 60_000
"""Pixels: a gain is measured to 0.03 decibel."""


def scene(rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    return rng.uniform(60, 190, size)


def noisy(truth: np.ndarray, rng: np.random.Generator, count: int, sigma: float) -> list[np.ndarray]:
    return [np.clip(np.rint(truth + rng.normal(0, sigma, truth.size)), 0, 255).astype(np.uint8) for _ in range(count)]


def stacked(stack: Stack, frames: list[np.ndarray]) -> np.ndarray:
    for frame in frames:
        stack.add(frame)
    return stack.to_16_bits()


def error(deep: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((deep / SCALE_TO_16_BITS - truth) ** 2)))


def gain_db(deep: np.ndarray, frames: list[np.ndarray], truth: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean((frames[0] - truth) ** 2)) / error(deep, truth)))


@pytest.mark.parametrize("sigma", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("count", [4, 16, 64, 100])
def test_the_gain_of_a_mean_is_ten_log_n_within_a_tenth_of_a_decibel(count, sigma):
    rng = np.random.default_rng(count)
    truth = scene(rng)
    frames = noisy(truth, rng, count, sigma)
    assert gain_db(stacked(MeanStack(SIZE), frames), frames, truth) == pytest.approx(10 * np.log10(count), abs=0.1)


def test_truncating_to_8_bits_as_the_first_service_did_throws_7_to_13_decibel_away():
    rng = np.random.default_rng(7)
    truth = scene(rng)
    for count, at_least in ((16, 7.0), (64, 12.0)):
        frames = noisy(truth, rng, count, 1.0)
        first = np.mean([frame.astype(np.float32) for frame in frames], axis=0).astype(np.uint8).astype(np.uint16)
        ours = stacked(MeanStack(SIZE), frames)
        assert gain_db(ours, frames, truth) - gain_db(first * SCALE_TO_16_BITS, frames, truth) >= at_least


@pytest.mark.parametrize("count", [1, 2, 3, 5, 257, 300])
def test_the_mean_is_exact(count):
    rng = np.random.default_rng(count)
    frames = [rng.integers(0, 256, 3333, dtype=np.uint8) for _ in range(count)]
    exact = np.sum(frames, axis=0, dtype=np.uint64) * SCALE_TO_16_BITS / count
    assert np.abs(stacked(MeanStack(3333), frames) - exact).max() <= 0.51  # rounding; ties may go either way


@pytest.mark.parametrize("stack", [MeanStack, TrimmedStack, SigmaStack, ExtremeStack])
def test_black_and_white_stay_black_and_white(stack):
    for value, deep in ((0, 0), (255, 65_535)):
        assert set(stacked(stack(1000), [np.full(1000, value, np.uint8)] * 9)) == {deep}
        assert set(to_8_bits(np.full(10, deep, np.uint16))) == {value}


@pytest.mark.parametrize("stack", [MeanStack, TrimmedStack, SigmaStack, ExtremeStack])
def test_an_empty_stack_says_so(stack):
    with pytest.raises(ValueError, match="add a frame first"):
        stack(10).to_16_bits()


def test_a_stack_keeps_no_reference_to_a_frame_and_takes_read_only_ones():
    frame = np.full(100, 7, np.uint8)
    stacks = [MeanStack(100), TrimmedStack(100), SigmaStack(100), ExtremeStack(100), RunningMean(4)]
    frame.flags.writeable = False
    for stack in stacks:
        stack.add(frame)
    frame.flags.writeable = True
    frame[:] = 99
    assert all(set(stack.to_16_bits()) == {7 * SCALE_TO_16_BITS} for stack in stacks)


def test_max_and_min_are_numpys():
    rng = np.random.default_rng(3)
    frames = [rng.integers(0, 256, 3333, dtype=np.uint8) for _ in range(9)]
    assert np.array_equal(stacked(ExtremeStack(3333), frames), np.max(frames, axis=0) * np.uint16(257))
    low = stacked(ExtremeStack(3333, brightest=False), frames)
    assert np.array_equal(low, np.min(frames, axis=0) * np.uint16(257))


def test_a_running_mean_is_the_plain_mean_at_first_and_settles_at_the_gain_of_its_length():
    rng = np.random.default_rng(4)
    truth = scene(rng)
    frames = noisy(truth, rng, 80, 5.0)
    running = RunningMean(8)
    assert np.abs(stacked(running, frames[:2]) - np.mean(frames[:2], axis=0) * SCALE_TO_16_BITS).max() <= 1
    assert gain_db(stacked(running, frames[2:]), frames, truth) == pytest.approx(10 * np.log10(8), abs=0.2)
    assert running.to_8_bits().dtype == np.uint8 and np.abs(running.to_8_bits() - truth).mean() < 3
    running.add(np.zeros(10, np.uint8))  # the camera changed its size
    assert running.count == 1 and running.to_16_bits().size == 10


@pytest.mark.parametrize("count", [*range(1, 21), 32, 63, 64, 129])
def test_the_median_is_bit_equal_to_numpys(count):
    rng = np.random.default_rng(count)
    frames = [rng.integers(0, 256, 5003, dtype=np.uint8) for _ in range(count)]
    assert np.array_equal(sum_middle(frames), (2 * np.median(frames, axis=0)).astype(np.uint16))
    assert np.abs(median_of(frames) - np.median(frames, axis=0) * SCALE_TO_16_BITS).max() <= 0.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_the_network_finds_the_middle_of_any_values(values):
    got = sum_middle([np.full(5, value, np.uint8) for value in values])
    assert set(got) == {int(2 * np.median(values))}


def test_the_network_leaves_out_comparators_that_cannot_matter():
    assert len(build_network(16)) == 53 and middle_of(16) == (7, 8) and middle_of(5) == (2, 2)
    with pytest.raises(ValueError, match="median of 0 frames"):
        median_of([])


def with_satellite(frames: list[np.ndarray], stay: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A satellite crosses the picture: every pixel of its track is bright for `stay` frames in a row."""
    track = np.arange(0, SIZE, 40)
    frames = [frame.copy() for frame in frames]
    for step, pixels in enumerate(np.array_split(track, len(frames) - stay + 1)):
        for frame in frames[step : step + stay]:
            frame[pixels] = 250
    return frames, track


@pytest.mark.parametrize("sigma", [1.0, 4.0])
@pytest.mark.parametrize("count", [10, 16, 40])
@pytest.mark.parametrize("stay", [1, 2, BRIGHTEST])
def test_sigma_clip_removes_a_satellite_completely_and_keeps_95_percent_of_the_gain(stay, count, sigma):
    rng = np.random.default_rng(count)
    truth = scene(rng)
    frames, track = with_satellite(noisy(truth, rng, count, sigma), stay)
    elsewhere = np.ones(SIZE, bool)
    elsewhere[track] = False
    deep = stacked(SigmaStack(SIZE), frames) / SCALE_TO_16_BITS
    residual = np.mean((deep - truth)[track])
    plain = np.mean((stacked(MeanStack(SIZE), frames) / SCALE_TO_16_BITS - truth)[track])
    assert plain > 3 * abs(residual) and plain > 3
    assert abs(residual) < 0.25 * sigma  # completely: less than the noise of one frame by far
    gained = np.std(frames[0][elsewhere] - truth[elsewhere]) / np.sqrt(np.mean((deep - truth)[elsewhere] ** 2))
    assert gained >= 0.95 * np.sqrt(count)
    on_track = np.sqrt(np.mean((deep - truth)[track] ** 2))
    assert on_track < 1.3 * sigma / np.sqrt(count - stay)


def test_the_trimmed_mean_loses_little_and_hides_one_visit():
    rng = np.random.default_rng(9)
    truth = scene(rng)
    frames = noisy(truth, rng, 16, 3.0)
    loss = gain_db(stacked(MeanStack(SIZE), frames), frames, truth) - gain_db(
        stacked(TrimmedStack(SIZE), frames), frames, truth
    )
    assert loss <= 0.15
    frames, track = with_satellite(frames, 1)
    deep = stacked(TrimmedStack(SIZE), frames)
    assert abs(np.mean((deep / SCALE_TO_16_BITS - truth)[track])) < 1


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("stack", [TrimmedStack, SigmaStack])
def test_small_stacks_of_equal_frames_are_that_frame(stack, count):
    frame = np.arange(0, 250, dtype=np.uint8)
    assert np.array_equal(stacked(stack(250), [frame] * count), frame * np.uint16(SCALE_TO_16_BITS))


def landscape(width: int, height: int, dx: float, dy: float, noise: float, seed: int) -> np.ndarray:
    """A smooth random scene, drawn at any sub-pixel place."""
    waves = np.random.default_rng(5)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    value = np.full((height, width), 120.0)
    for _ in range(60):
        kx, ky = waves.normal(0, 0.12, 2)
        value += waves.uniform(2, 9) * np.sin(kx * (x - dx) + ky * (y - dy) + waves.uniform(0, 7))
    value += np.random.default_rng(seed).normal(0, noise, value.shape)
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 5.0, 20.0])
@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.4, -0.3), (3.3, 1.75), (-7.6, 5.2)])
def test_alignment_recovers_known_shifts_within_a_fifth_of_a_pixel(dx, dy, noise):
    found = align.Aligner(landscape(640, 360, 0, 0, noise, 1)).estimate_shift(landscape(640, 360, dx, dy, noise, 2))
    assert found is not None and abs(found.dx - dx) < 0.2 and abs(found.dy - dy) < 0.2


def test_another_scene_and_tiny_frames_are_not_aligned():
    aligner = align.Aligner(landscape(640, 360, 0, 0, 2, 1))
    other = np.random.default_rng(8).integers(0, 256, (360, 640), dtype=np.uint8)
    assert aligner.estimate_shift(other) is None
    assert aligner.estimate_shift(np.zeros((360, 640), np.uint8)) is None
    assert align.Aligner(np.zeros((9, 9), np.uint8)).estimate_shift(np.zeros((9, 9), np.uint8)) is None


def test_an_aligned_stack_of_a_shaking_camera_beats_an_unaligned_one_by_3_decibel():
    rng = np.random.default_rng(11)
    layout = geometry("yuv420p", 640, 360)
    truth = landscape(640, 360, 0, 0, 0, 0).astype(float)
    aligner, aligned, plain = None, MeanStack(layout.payload_bytes), MeanStack(layout.payload_bytes)
    for number in range(12):
        dx, dy = (0, 0) if number == 0 else rng.normal(0, 3, 2)
        payload = np.full(layout.payload_bytes, 128, np.uint8)
        planes(payload, layout)[0][...] = landscape(640, 360, dx, dy, 8, number)
        aligner = aligner or align.Aligner(planes(payload, layout)[0])
        shift = aligner.estimate_shift(planes(payload, layout)[0])
        assert shift is not None
        plain.add(payload)
        aligned.add(align.shift_back(payload, layout, shift))
    middle_part = (slice(20, -20), slice(20, -20))

    def luma_error(stack: MeanStack) -> float:
        return error(planes(stack.to_16_bits(), layout)[0][middle_part], truth[middle_part])

    assert 20 * np.log10(luma_error(plain) / luma_error(aligned)) >= 3


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "bgr24", "gray"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (33, 17)])
def test_shifting_back_works_on_planes_of_any_format_and_odd_size(pixel_format, width, height):
    layout = geometry(pixel_format, width, height)
    payload = np.full(layout.payload_bytes, 50, np.uint8)
    planes(payload, layout)[0][8, 12] = 255
    moved = align.shift_back(payload, layout, align.Shift(4, 2, 1))
    assert np.all(planes(moved, layout)[0][6, 8] == 255) and np.all(planes(moved, layout)[0][8, 12] == 50)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "bgr24", "gray"])
def test_a_dark_frame_removes_warm_and_hot_pixels(pixel_format, tmp_path):
    rng = np.random.default_rng(12)
    layout = geometry(pixel_format, 96, 64)
    warm = rng.random((64, 96)) < 0.05
    hot = rng.random((64, 96)) < 0.002

    def exposed(light: float) -> np.ndarray:
        payload = np.full(layout.payload_bytes, 128, np.uint8)
        luma = light + 8 + 6 * warm + 150 * hot + rng.normal(0, 1, warm.shape)
        plane = planes(payload, layout)[0]
        plane[...] = np.clip(luma, 0, 255).astype(np.uint8).reshape(64, 96, *[1] * (plane.ndim - 2))
        return payload

    dark = dark_frames.measure_dark(median_of([exposed(0) for _ in range(dark_frames.MIN_FRAMES)]), layout)
    facts = dark_facts("cam0", 2_000_000, 6.0, layout)
    dark_frames.save_dark(dark, tmp_path, facts)
    again = dark_frames.choose_dark(tmp_path, facts, layout.payload_bytes, 0).dark
    assert again is not None and np.array_equal(again.level, dark.level) and np.array_equal(again.hot, dark.hot)
    stack = stacked(MeanStack(layout.payload_bytes), [exposed(40) for _ in range(16)])
    clean = dark_frames.subtract_dark(stack, layout, again)
    before = planes(stack, layout)[0].astype(float) / SCALE_TO_16_BITS
    after = planes(clean, layout)[0].astype(float) / SCALE_TO_16_BITS
    assert before[warm].mean() - before[~warm & ~hot].mean() > 4
    assert abs(after[warm].mean() - after[~warm & ~hot].mean()) < 0.6
    assert np.abs(after[hot] - after[~hot].mean()).max() < 4


def dark_facts(camera: str, exposure_us: int, gain: float, layout, camera_id: str = "", taken_s: int = 0):
    meta = FrameMeta(1, 0, taken_s * 10**9, exposure_us=exposure_us, analogue_gain=gain)
    return dark_frames.facts_of(camera, meta, layout, camera_id)


def test_the_nearest_dark_frame_of_this_camera_is_taken_and_a_refused_one_says_why(tmp_path):
    layout = geometry("yuv420p", 64, 48)
    day_ns = 86_400 * 10**9

    def save(
        exposure_us: int, gain: float, level: int, shape=layout, camera="cam0", camera_id="imx219 A", day=1
    ) -> None:
        dark = dark_frames.DarkFrame(
            np.full(shape.payload_bytes, level, np.uint16), np.zeros(shape.payload_bytes, np.bool_)
        )
        dark_frames.save_dark(dark, tmp_path, dark_facts(camera, exposure_us, gain, shape, camera_id, day * 86_400))

    def choose(exposure_us: int, gain: float = 6.0, shape=layout, camera="cam0", camera_id="imx219 A"):
        wanted = dark_facts(camera, exposure_us, gain, shape, camera_id)
        return dark_frames.choose_dark(tmp_path, wanted, shape.payload_bytes, 13 * day_ns)

    assert choose(2_000_000) == dark_frames.NO_DARK  # none was ever taken: nothing to tell
    for exposure_us, level in ((1_000_000, 1000), (1_500_000, 1500), (2_000_000, 2000)):
        save(exposure_us, 6.0, level)
    assert choose(1_900_000).words == "cam0_64x48_yuv420p_2000000us_6.00x.npz, 2 s, 12 days old"
    assert {choose(us).dark.level[0] for us in (2_000_000, 3_000_000)} == {2000}  # nearest, and never scaled up
    assert choose(1_600_000).dark.level[0] == 1500 and choose(1_400_000).dark.level[0] == 1400  # scaled to the time
    refusals = {
        "twice or half and more": choose(100_000),
        "has gain 6, the stack 2": choose(2_000_000, gain=2.0),
        "is 64x48 yuv420p, the stack 32x24 yuv420p": choose(2_000_000, shape=geometry("yuv420p", 32, 24)),
        "is of another camera (imx219 A; now imx477 B)": choose(2_000_000, camera_id="imx477 B"),
        "does not tell its exposure": choose(0),
    }
    for words, choice in refusals.items():
        assert choice.dark is None and words in choice.words, choice.words
    assert choose(2_000_000, camera_id="").dark is not None  # capture is away: the name is all there is
    for shape, level in ((geometry("yuv420p", 32, 24), 11), (geometry("nv12", 64, 48), 12)):
        save(2_000_000, 6.0, level, shape)  # of another size: it took the place of the first one
        assert choose(2_000_000, shape=shape).dark.level[0] == level and choose(2_000_000).dark.level[0] == 2000
    save(2_000_000, 6.0, 2222, day=9)
    assert choose(2_000_000).words.endswith("4 days old") and choose(2_000_000).dark.level[0] == 2222
    save(2_000_000, 6.0, 7, camera="front_door")
    assert choose(2_000_000, camera="front") == dark_frames.NO_DARK
    assert choose(2_000_000, camera="front_door").dark.level[0] == 7


def test_a_dark_frame_of_an_older_version_is_still_found(tmp_path):
    layout = geometry("gray", 16, 16)
    with (tmp_path / "cam0_2000000us_6.00x.npz").open("wb") as file:
        np.savez_compressed(file, level=np.full(256, 5, np.uint16), hot=np.zeros(256, np.bool_))
    found = dark_frames.choose_dark(tmp_path, dark_facts("cam0", 2_000_000, 6.0, layout, "any"), 256, 0)
    assert found.dark is not None and found.dark.level[0] == 5
    newer = dark_frames.DarkFrame(np.full(256, 9, np.uint16), np.zeros(256, np.bool_))
    facts = dark_facts("cam0", 2_000_000, 6.0, layout, taken_s=4_000_000_000)
    path = dark_frames.save_dark(newer, tmp_path, facts)
    assert dark_frames.choose_dark(tmp_path, facts, 256, 0).dark.level[0] == 9, "the one taken last"
    path.unlink()
    other = dark_frames.choose_dark(tmp_path, dark_facts("cam0", 2_000_000, 6.0, layout), 999, 0)
    assert other.dark is None and "has 256 bytes, the stack 999" in other.words


@pytest.mark.parametrize("stack", [MeanStack, TrimmedStack, SigmaStack, ExtremeStack])
def test_memory_does_not_grow_with_the_number_of_frames(stack):
    import tracemalloc

    frame = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)
    tracemalloc.start()
    one = stack(SIZE)
    one.add(frame)
    few = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        one.add(frame)
    many, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert many - few < 10_000 and peak < 20 * SIZE
