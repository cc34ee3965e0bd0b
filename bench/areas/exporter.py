"""Stacks against theory, memcpy and numpy; saving against the bare encoder; what saving costs others. Issue 5."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.measure import Measured, Outcome, Row, paired, percentile, ratios
from exporter.pictures.save import PictureSaver, SaveOptions
from exporter.ring_frames import CameraFrames
from exporter.stacking import align
from exporter.stacking.median import median_of
from exporter.stacking.sigma_clip import SigmaStack
from shm_ring import Frame, FrameMeta
from shm_ring.formats import geometry, planes
from shmcam.config.settings import Settings
from shmcam.imaging.accumulate import SCALE_TO_16_BITS, MeanStack, Stack, TrimmedStack
from shmcam.imaging.jpeg import to_jpeg
from shmcam.library import Catalogue

Payload = NDArray[np.uint8]

LAYOUT = geometry("yuv420p", 1920, 1080)
MEAN_FRAMES = 64
MEDIAN_FRAMES = 16
LIST_FRAMES = 16  # 64 as float32 lists would take 1.6 GB
NOISE_PIXELS = 400_000
PACED_FPS = 30
MEMORY = "/dev/shm"

ROWS = (
    Row("mean_rate", "of memcpy", 0.60, "mean of 64 1080p frames: memcpy's time / ours", better="higher"),
    Row(
        "mean_vs_float_lists",
        "x",
        15,
        "the first service's float32 lists and np.mean / ours, per frame",
        better="higher",
    ),
    Row("median_vs_numpy", "x", 20, "np.median of 16 1080p frames / ours, bit-equal", better="higher"),
    Row("gain_error", "dB", 0.1, "worst |gain - 10 log10 N| of a mean, N = 4..100, sigma 1, 3 and 10"),
    Row("gain_over_8_bit", "dB", 7, "least gain over truncating to 8 bits at sigma 1, N = 16 and 64", better="higher"),
    Row(
        "sigma_clip_gain",
        "of the mean's",
        0.95,
        "gain of the sigma clip away from a satellite, N = 16",
        better="higher",
    ),
    Row("align_error", "px", 0.2, "worst error of known shifts up to 8 px at 20 DN of noise"),
    Row("jpg_save", "x encoder", 1.2, "save of a 1080p jpg with EXIF and library row (in memory) / the encoder alone"),
    Row(
        "paced_beside_saving",
        "x period",
        1.5,
        "p99 interval of a 30 fps writer while another process saves png and jpg",
    ),
    Row("sigma_per_frame", "x mean", None, "adding a frame to a sigma clip / to a mean"),
    Row("trimmed_per_frame", "x mean", None, "adding a frame to a trimmed mean / to a mean"),
)


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Measure every row."""
    yield from _speed(3 if quick else 7)
    yield from _theory()
    yield "jpg_save", _jpg_save(3 if quick else 9)
    yield "paced_beside_saving", _paced(3.0 if quick else 12.0)


def _speed(repeats: int) -> Iterator[tuple[str, Outcome]]:
    frames = _noise(MEAN_FRAMES)
    target = np.empty_like(frames[0])
    subjects: dict[str, Callable[[], float]] = {
        "memcpy": lambda: _per_frame(lambda: _copied(frames, target), MEAN_FRAMES),
        "mean": lambda: _stacking(MeanStack, frames),
        "sigma": lambda: _stacking(SigmaStack, frames[:16]),
        "trimmed": lambda: _stacking(TrimmedStack, frames[:16]),
        "lists": lambda: _per_frame(lambda: _float_lists(frames[:LIST_FRAMES]), LIST_FRAMES, 2),
    }
    figures = paired(subjects, repeats)
    yield "mean_rate", _ratio(figures, "memcpy", "mean")
    yield "mean_vs_float_lists", _ratio(figures, "lists", "mean")
    yield "sigma_per_frame", _ratio(figures, "sigma", "mean")
    yield "trimmed_per_frame", _ratio(figures, "trimmed", "mean")
    few = frames[:MEDIAN_FRAMES]
    assert np.abs(median_of(few) - np.median(few, axis=0) * SCALE_TO_16_BITS).max() <= 0.5
    both = {
        "numpy": lambda: _per_frame(lambda: np.median(few, axis=0), MEDIAN_FRAMES, 2),
        "ours": lambda: _per_frame(lambda: median_of(few), MEDIAN_FRAMES),
    }
    yield "median_vs_numpy", _ratio(paired(both, max(3, repeats - 2)), "numpy", "ours")


def _theory() -> Iterator[tuple[str, Outcome]]:
    rng = np.random.default_rng(0)
    truth = rng.uniform(60, 190, NOISE_PIXELS)
    worst, over = 0.0, []
    for sigma in (1.0, 3.0, 10.0):
        frames = [_noisy(truth, sigma, rng) for _ in range(100)]
        for count in (4, 16, 64, 100):
            gain = _gain(_stacked(MeanStack, frames[:count]), frames, truth)
            worst = max(worst, abs(gain - 10 * np.log10(count)))
            if sigma == 1.0 and count in (16, 64):
                first = np.mean([frame.astype(np.float32) for frame in frames[:count]], axis=0).astype(np.uint8)
                over.append(gain - _gain(first.astype(np.uint16) * np.uint16(SCALE_TO_16_BITS), frames, truth))
    yield "gain_error", Measured(float(worst), "12 combinations of sigma and N")
    yield "gain_over_8_bit", Measured(min(over), f"N=16: {over[0]:.1f} dB, N=64: {over[1]:.1f} dB")
    frames = [_noisy(truth, 4.0, rng) for _ in range(16)]
    gained = 10 ** (_gain(_stacked(SigmaStack, frames), frames, truth) / 20)
    yield "sigma_clip_gain", Measured(float(gained / np.sqrt(16)), "amplitude, sigma 4")
    errors = []
    for dx, dy in ((0.4, -0.3), (3.3, 1.75), (-7.6, 5.2)):
        found = align.Aligner(_landscape(0, 0, 1)).estimate_shift(_landscape(dx, dy, 2))
        errors.append(9.0 if found is None else max(abs(found.dx - dx), abs(found.dy - dy)))
    yield "align_error", Measured(max(errors), ", ".join(f"{error:.3f}" for error in errors))


def _jpg_save(repeats: int) -> Outcome:
    rng = np.random.default_rng(0)
    payload = np.full(LAYOUT.payload_bytes, 128, np.uint8)
    luma = planes(payload, LAYOUT)[0]
    luma[...] = np.clip(np.tile(_landscape(0, 0, 1, 0), (3, 3)) + rng.normal(0, 1.5, luma.shape), 0, 255)
    frame = _Still(payload)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, _saver(Path(folder)) as saver:
        number = 0

        def save() -> object:
            nonlocal number
            number += 1
            options = SaveOptions(formats=("jpg",))
            return saver.save_frame(cast(CameraFrames, _NoScores()), cast(Frame, frame), f"f{number}", options)

        def saving() -> float:
            for path in Path(folder).rglob("*.jpg"):
                path.unlink()  # memory that was used before: a virtual machine's first touch of a page costs more
            return _per_frame(lambda: [save() for _ in range(8)], 8, 8, time.thread_time)

        # CPU time: in memory nothing waits, and a busy neighbour then counts for neither.
        subjects = {
            "save": saving,
            "encoder": lambda: _per_frame(
                lambda: [to_jpeg(frame.payload, LAYOUT, 92) for _ in range(8)], 8, 8, time.thread_time
            ),
        }
        save()
        return _ratio(paired(subjects, repeats), "save", "encoder")


def _paced(seconds: float) -> Outcome:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with tempfile.TemporaryDirectory() as folder:
        saver = context.Process(target=_save_for_ever, args=(folder, stop))
        saver.start()
        time.sleep(2.0)  # it has started
        target, source = np.empty(LAYOUT.payload_bytes, np.uint8), np.zeros(LAYOUT.payload_bytes, np.uint8)
        began = due = time.monotonic()
        marks = []
        while due < began + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            np.copyto(target, source)
            marks.append(time.monotonic())
            due += 1 / PACED_FPS
        stop.set()
        saver.join(20)
        saved = len(list(Path(folder).rglob("*.jpg")))
    late = [(b - a) * PACED_FPS for a, b in pairwise(marks)]
    return Measured(
        percentile(late, 99), f"{len(late)} intervals, median {statistics.median(late):.3f}; {saved} saves beside"
    )


def _save_for_ever(folder: str, stop: Event) -> None:
    os.nice(10)  # as exporter/__main__.py
    frame = _Still(_noise(1)[0])
    with _saver(Path(folder)) as saver:
        number = 0
        while not stop.is_set():
            number += 1
            options = SaveOptions(formats=("jpg", "png"))
            saver.save_frame(cast(CameraFrames, _NoScores()), cast(Frame, frame), f"f{number}", options)


class _saver:
    """The exporter's own way to disk, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "config.toml").write_text("[library]\nfree_reserve_mb = 0\n")
        settings = Settings.load(folder / "config.toml", environ={})
        self._catalogue = Catalogue.of(settings)
        self._saver = PictureSaver(lambda: settings, self._catalogue, lambda _event: None)

    def __enter__(self) -> PictureSaver:
        return self._saver

    def __exit__(self, *_: object) -> None:
        self._catalogue.close()


class _Still:
    """A frame without a ring."""

    def __init__(self, payload: Payload) -> None:
        self.payload, self.picture = payload, LAYOUT
        self.meta = FrameMeta(1, 1, 1_700_000_000_000_000_000, 10_000, 2.0)
        self.frame_id, self.captured_ns = 1, 1


class _NoScores:
    name = "cam0"

    def find_score(self, _frame_id: int) -> None:
        """No analyzer."""


def _ratio(figures: dict[str, list[float]], subject: str, reference: str) -> Measured:
    pairs = ratios(figures, subject, reference)
    ours, theirs = (statistics.median(figures[name]) for name in (subject, reference))
    spread = f"{len(pairs)} pairs {min(pairs):.3f} … {max(pairs):.3f}"
    return Measured(statistics.median(pairs), f"{spread}; {subject} {ours:.0f} µs, {reference} {theirs:.0f} µs a frame")


def _per_frame(
    action: Callable[[], object], frames: int, tries: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Microseconds per frame, the best of some tries: on a shared machine the others are interrupted."""
    best = float("inf")
    for _ in range(tries):
        started = clock()
        action()
        best = min(best, clock() - started)
    return best / frames * 1e6


def _stacking(kind: Callable[[int], Stack], frames: list[Payload]) -> float:
    """Adding alone: making the accumulator and the result are once per picture, not per frame."""
    stack = kind(frames[0].size)
    stack.add(frames[0])
    return _per_frame(lambda: _added(stack, frames), len(frames))


def _added(stack: Stack, frames: list[Payload]) -> None:
    for frame in frames:
        stack.add(frame)


def _copied(frames: list[Payload], target: Payload) -> None:
    for frame in frames:
        np.copyto(target, frame)


def _stacked(kind: Callable[[int], Stack], frames: list[Payload]) -> NDArray[np.uint16]:
    stack = kind(frames[0].size)
    _added(stack, frames)
    return stack.to_16_bits()


def _float_lists(frames: list[Payload]) -> object:
    return np.mean([frame.astype(np.float32) for frame in frames], axis=0).astype(np.uint8)


def _noise(count: int) -> list[Payload]:
    one = np.random.default_rng(1).integers(0, 256, LAYOUT.payload_bytes, np.uint8)
    return [np.roll(one, 77 * number).copy() for number in range(count)]


def _noisy(truth: NDArray[np.float64], sigma: float, rng: np.random.Generator) -> Payload:
    return np.clip(np.rint(truth + rng.normal(0, sigma, truth.size)), 0, 255).astype(np.uint8)


def _gain(deep: NDArray[np.uint16], frames: list[Payload], truth: NDArray[np.float64]) -> float:
    before, after = np.std(frames[0] - truth), np.sqrt(np.mean((deep / SCALE_TO_16_BITS - truth) ** 2))
    return float(20 * np.log10(before / after))


def _landscape(dx: float, dy: float, seed: int, noise: float = 20) -> Payload:
    waves = np.random.default_rng(5)
    y, x = np.mgrid[0:360, 0:640].astype(np.float64)
    value = np.full((360, 640), 120.0)
    for _ in range(60):
        kx, ky = waves.normal(0, 0.12, 2)
        value += waves.uniform(2, 9) * np.sin(kx * (x - dx) + ky * (y - dy) + waves.uniform(0, 7))
    value += np.random.default_rng(seed).normal(0, noise, value.shape)
    return np.asarray(np.clip(np.rint(value), 0, 255), np.uint8)
