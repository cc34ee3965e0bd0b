"""Simulates whole days with the analyzer's controller, beside the first service's logic: the proof of docs/night.md.

    python -m bench.night.days            20 seeds of every scenario: a table, and the plots in docs/img
    python -m bench.night.days --seeds 2  a quick look

Many days run in step: their sensor is one array, so that a day costs seconds. A step is one frame, 2 s apart at night
and in twilight (at 30 fps real frames come 60 times more often, so evidence here is scarcer than in life) and 8 s in
full daylight. A new exposure shows after 6 frames, as with picamera2's 6 buffers: 12 s at night, one step by day.

The sensor is a small Pi sensor: linear, 8000 electrons full well, 3 electrons read noise, info noise,
8-bit sRGB, libcamera's imx219 calibration; auto exposure up to 1/30 s x 8 in video mode.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.night import exposure_control
from analyzer.night.brightness import estimate_brightness, measure
from analyzer.night.controller import FrameAssessment, NightController
from analyzer.night.decision import frame_of
from analyzer.night.exposure_estimate import reported_exposure_of
from analyzer.night.settling import FrameInfo
from analyzer.night.transfer_curve import Response, response_of
from analyzer.settings import NightSettings

Floats = NDArray[np.float64]

ALTITUDE_DEG = (-90, -18, -12, -9, -6, -3, 0, 5, 10, 30, 90)
LOG10_LUX = (-3.2, -3.2, -2.1, -0.9, 0.53, 1.6, 2.6, 3.5, 4.0, 4.7, 5.0)
LATITUDE_DEG = 50.0
DAY_S = 86_400.0
PIXELS = 256
LAMP_PIXELS = 20
"""8 % of the frame: a street lamp with its glare."""
FULL_WELL_E, READ_NOISE_E = 8000.0, 3.0
LUX_TO_SIGNAL = 0.194 / 998.0 / 27.685e-3
LAG_FRAMES = 6
OPTIMUM = 3
"""A day from midnight to midnight: night at its start, day, night."""
FIRST_SERVICE_FRAMES = 10
VIDEO_FRAMES = 60
"""Frames of 30 fps video in a step."""


def clear_lux(second: Floats) -> Floats:
    """Illuminance over an equinox day, without moon or cloud."""
    hour_angle = (second / DAY_S - 0.5) * 2 * np.pi
    altitude = np.degrees(np.arcsin(np.cos(np.radians(LATITUDE_DEG)) * np.cos(hour_angle)))
    return np.asarray(10 ** np.interp(altitude, ALTITUDE_DEG, LOG10_LUX))


def steps() -> Floats:
    """Times of the frames of a day, in seconds: 2 s apart below 1000 lux, 8 s above."""
    fine = np.arange(0, DAY_S, 2.0)
    return np.asarray(fine[(clear_lux(fine) < 1000) | (fine % 8 == 0)])


@dataclass(frozen=True)
class Scene:
    """What the camera looks at over one day: light on everything, and on the lamp's pixels beside it, in lux."""

    lux: Floats
    lamp: Floats
    own_lamp_lux: float = 0.0
    """Light of a lamp that burns while the camera is in night mode, on everything."""


def clear(second: Floats, rng: np.random.Generator) -> Scene:
    """Nothing but the sun."""
    return Scene(clear_lux(second), np.zeros_like(second))


def moonlit(second: Floats, rng: np.random.Generator) -> Scene:
    """A full moon all night."""
    return Scene(clear_lux(second) + 0.2, np.zeros_like(second))


def cloudy(second: Floats, rng: np.random.Generator) -> Scene:
    """Clouds that wander by 2.5 stops either way within minutes (an Ornstein-Uhlenbeck walk, 10 minutes, 1 stop)."""
    walk, stops = 0.0, np.empty_like(second)
    for at, gap in enumerate(np.diff(second, prepend=second[0])):
        walk += -walk * gap / 600.0 + np.sqrt(2 * gap / 600.0) * rng.normal()
        stops[at] = walk
    return Scene(clear_lux(second) * 2.0 ** np.clip(stops, -2.5, 2.5), np.zeros_like(second))


def headlights(second: Floats, rng: np.random.Generator) -> Scene:
    """Twenty cars an hour, each 30 to 300 lux for 2 to 8 s."""
    lux = clear_lux(second)
    for start in rng.uniform(0, DAY_S, 480):
        lux = lux + np.where((second >= start) & (second < start + rng.uniform(2, 8)), rng.uniform(30, 300), 0.0)
    return Scene(lux, np.zeros_like(second))


def storm(second: Floats, rng: np.random.Generator) -> Scene:
    """Clouds, cars, and lightning: 200 flashes of 1e4 lux in single frames."""
    lux = cloudy(second, rng).lux + headlights(second, rng).lux - clear_lux(second)
    lux[rng.integers(0, len(second), 200)] += 1e4
    return Scene(lux, np.zeros_like(second))


def lamp(second: Floats, rng: np.random.Generator) -> Scene:
    """A lamp in view is switched on and off through the evening and at night; it lights the scene a little."""
    on = np.zeros_like(second)
    for start in rng.uniform(18 * 3600, DAY_S, 8):
        on[(second >= start) & (second < start + rng.uniform(60, 1800))] = 1.0
    on[(second > 600) & (second < 5 * 3600)] = 1.0
    return Scene(clear_lux(second) + 0.5 * on, 2000.0 * on)


def drift(second: Floats, rng: np.random.Generator) -> Scene:
    """Brightness lingers at the dark threshold for an hour each evening, flickering by a tenth of a stop."""
    lux = clear_lux(second)
    at = (second > 18.2 * 3600) & (second < 19.2 * 3600)
    threshold_lux = 0.0212 / (LUX_TO_SIGNAL * exposure_control.reference_s_of(NightSettings()))
    lux[at] = threshold_lux * 2.0 ** np.linspace(0.6, -0.6, at.sum())
    return Scene(lux * 2.0 ** rng.normal(0, 0.1, len(second)), np.zeros_like(second))


def dark_start(second: Floats, rng: np.random.Generator) -> Scene:
    """The service starts in a cellar: no light at all until the morning."""
    lux = clear_lux(second)
    lux[second < 5 * 3600] = 0.0
    return Scene(lux, np.zeros_like(second))


def own_lamp(second: Floats, rng: np.random.Generator) -> Scene:
    """The camera lights its own scene at night, brighter than the bright threshold (43 lux)."""
    return Scene(clear_lux(second), np.zeros_like(second), float(rng.uniform(60, 600)))


SCENARIOS: dict[str, Callable[[Floats, np.random.Generator], Scene]] = {
    scenario.__name__: scenario
    for scenario in (clear, moonlit, cloudy, headlights, storm, lamp, drift, dark_start, own_lamp)
}


@dataclass
class Day:
    """What became of one simulated day."""

    scenario: str
    seed: int
    switches: list[tuple[float, bool, float]] = field(default_factory=list)
    """(second, night, stops the scene brightness moved from before the switch to after it)."""
    first_service: list[tuple[float, bool]] = field(default_factory=list)
    level: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    """Plain mean of the same frames."""
    first_mean: list[float] = field(default_factory=list)
    """Plain mean of the first service's own frames."""

    @property
    def count(self) -> int:
        """Switches, the first one included."""
        return len(self.switches)

    @property
    def least_gap_s(self) -> float:
        """Shortest time between two switches."""
        times = [second for second, _, _ in self.switches]
        return float(np.diff(times).min()) if len(times) > 1 else np.inf


class Sensor:
    """n cameras in step."""

    def __init__(self, count: int, seed: int, curve: Response) -> None:
        self._rng = np.random.default_rng(seed)
        reflectance = np.exp(self._rng.normal(0, 0.6, (count, PIXELS)))
        self._reflectance = reflectance / reflectance.mean(axis=1, keepdims=True)
        self.pixels = np.zeros((count, PIXELS), np.uint8)
        """The newest frames."""
        self._offset = np.arange(count)[:, None] * 256
        grey = np.linspace(0, 1, 8192)
        self._coded = np.rint(curve.luma(grey)).astype(np.int64)

    def histograms(self, lux: Floats, lamp_lux: Floats, exposure_s: Floats, gain: Floats) -> Floats:
        """Expose one frame each; (n, 256) shares. `lux`, `lamp_lux`, `exposure_s`, `gain`: (n,)."""
        light = self._reflectance * lux[:, None]
        light[:, :LAMP_PIXELS] += lamp_lux[:, None]
        electrons = light * (LUX_TO_SIGNAL * exposure_s * FULL_WELL_E)[:, None]
        noise = self._rng.standard_normal(electrons.shape, dtype=np.float32)
        electrons = electrons + noise * np.sqrt(electrons + READ_NOISE_E**2)
        signal = np.clip(electrons * (gain / FULL_WELL_E)[:, None], 0, 1)
        luma = self._coded[(signal * 8191).astype(np.int64)]
        self.pixels = luma.astype(np.uint8)
        flat = np.bincount((luma + self._offset).ravel(), minlength=256 * len(lux))
        return flat.reshape(len(lux), 256) / PIXELS


def auto_exposure(now_s: Floats, light: Floats, limit_s: float) -> Floats:
    """Video mode: the exposure product that brings the mean to 18 %; 60 frames pass in a step, so at once."""
    wanted = now_s * np.clip(0.18 / np.maximum(light, 1e-6), 1 / 256, 256)
    return np.asarray(np.clip(wanted, 20e-6, limit_s))


class Exposures:
    """Exposure products of n cameras, each command acting LAG_FRAMES later."""

    def __init__(self, count: int, start_s: float) -> None:
        self.now_s = np.full(count, start_s)
        self._pending: list[tuple[int, int, float]] = []
        self.auto = np.ones(count, bool)

    def command(self, run: int, frame: int, product_s: float) -> None:
        """Ask camera `run` for a product; 0: auto exposure."""
        lag = 1 if self.auto[run] else LAG_FRAMES  # six frames of video pass within a step
        self._pending.append((frame + lag, run, product_s))

    def advance(self, frame: int, light: Floats, limit_s: float) -> None:
        """Come to the next frame."""
        automatic = auto_exposure(self.now_s, light, limit_s)
        self.now_s = np.where(self.auto, automatic, self.now_s)
        due = [command for command in self._pending if command[0] <= frame]
        self._pending = [command for command in self._pending if command[0] > frame]
        for _, run, product_s in due:
            self.auto[run] = product_s == 0
            self.now_s[run] = product_s or limit_s

    def split(self, longest_s: float) -> tuple[Floats, Floats]:
        """Exposure times and gains: time first."""
        exposure = np.minimum(self.now_s, np.where(self.auto, 1 / 30, longest_s))
        return exposure, self.now_s / exposure


def simulate(
    names: list[str],
    seeds: range,
    settings: NightSettings,
    *,
    keep: bool = False,
    seed: int = 0,
    camera: Response | None = None,
    tells: bool = True,
) -> list[Day]:
    """Run every scenario of `names` with every seed, all in step. `keep`: also what every frame came to.

    `camera`: the curve and black level the sensor really has; the analyzer takes it for sRGB in any case.
    `tells`: frames carry their exposure; False: it must be learned.
    """
    second = steps()
    days = [Day(name, number) for name in names for number in seeds]
    scenes = [SCENARIOS[day.scenario](second, np.random.default_rng(1000 + day.seed)) for day in days]
    lux = np.stack([scene.lux for scene in scenes])
    lamps = np.stack([scene.lamp for scene in scenes])
    own = np.array([scene.own_lamp_lux for scene in scenes])
    curve = camera or response_of("srgb")
    _run_analyzer(days, second, lux, lamps, own, settings, Sensor(len(days), seed, curve), keep=keep, tells=tells)
    _run_first_service(days, second, lux, lamps, own, settings, Sensor(len(days), seed, curve), keep=keep)
    return days


def _run_analyzer(
    days: list[Day],
    second: Floats,
    lux: Floats,
    lamps: Floats,
    own: Floats,
    settings: NightSettings,
    sensor: Sensor,
    *,
    keep: bool,
    tells: bool,
) -> None:
    curve, limit_s = response_of("srgb"), exposure_control.reference_s_of(settings)
    cameras, controllers = Exposures(len(days), limit_s), [NightController(settings) for _ in days]
    jumps = [_Jump() for _ in days]
    wanted_night = np.zeros(len(days), bool)
    for frame, now in enumerate(second):
        exposure, gain = cameras.split(settings.exposure_us * 1e-6)
        light = lux[:, frame] + own * wanted_night
        measurement = measure(sensor.histograms(light, lamps[:, frame], exposure, gain), curve)
        exposed = []
        for run, controller in enumerate(controllers):
            reported = reported_exposure_of(round(exposure[run] * 1e6) if tells else 0, gain[run], 1.0, np.nan)
            info = FrameInfo(int(now * 1e9), reported, is_night=bool(wanted_night[run]))
            gathered, saturated = float(measurement.light[run]), float(measurement.saturated[run])
            exposed.append(controller.estimate_exposure(info, sensor.pixels[run], gathered, saturated, curve))
        brightness = estimate_brightness(measurement, curve, np.array([item.ratio_to(limit_s) for item in exposed]))
        for run, controller in enumerate(controllers):
            assessment = controller.decide(exposed[run], *frame_of(brightness, run))
            jumps[run].watch(assessment, float(lux[run, frame]), days[run], float(now))
            if assessment.request:
                wanted_night[run] = assessment.request.mode != "video"
                cameras.command(run, frame, assessment.request.exposure.product_s)
            if keep:
                days[run].level.append(assessment.level)
                days[run].mean.append(float(measurement.dark_score[run]))
        cameras.advance(frame + 1, measurement.light, limit_s)


class _Jump:
    """Notes each switch, and how far the measured brightness moved over it beyond what the light did."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None

    def watch(self, assessment: FrameAssessment, lux: float, day: Day, now: float) -> None:
        """Takes one frame's assessment."""
        if self._before is not None and assessment.settled:
            ev, lux_then = self._before
            second, night, _ = day.switches[-1]
            day.switches[-1] = (second, night, assessment.ev - ev - float(np.log2((lux + 1e-9) / lux_then)))
            self._before = None
        if assessment.decision:
            day.switches.append((now, assessment.decision.night, float("nan")))
            self._before = assessment.ev, lux + 1e-9


def _run_first_service(
    days: list[Day],
    second: Floats,
    lux: Floats,
    lamps: Floats,
    own: Floats,
    settings: NightSettings,
    sensor: Sensor,
    *,
    keep: bool,
) -> None:
    """The first service, as described: plain mean, two thresholds, ten frames, one fixed exposure at night."""
    curve, limit_s = response_of("srgb"), exposure_control.reference_s_of(settings)
    cameras = Exposures(len(days), limit_s)
    night = np.zeros(len(days), bool)
    counted = np.zeros(len(days), int)
    for frame, now in enumerate(second):
        exposure, gain = cameras.split(settings.exposure_us * 1e-6)
        light = lux[:, frame] + own * night
        measurement = measure(sensor.histograms(light, lamps[:, frame], exposure, gain), curve)
        mean = measurement.dark_score
        past = np.where(night, mean > settings.bright_threshold, mean < settings.dark_threshold)
        counted = np.where(past, counted + np.where(night, 1, VIDEO_FRAMES), 0)
        for run in np.flatnonzero(counted >= FIRST_SERVICE_FRAMES).tolist():
            night[run], counted[run] = not night[run], 0
            days[run].first_service.append((float(now), bool(night[run])))
            cameras.command(run, frame, settings.exposure_us * 1e-6 * settings.gain if night[run] else 0.0)
        if keep:
            for run, day in enumerate(days):
                day.first_mean.append(float(mean[run]))
        cameras.advance(frame + 1, measurement.light, limit_s)


def table(days: list[Day]) -> list[dict[str, object]]:
    """One row per scenario: least, median and most switches of both."""
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(day.scenario for day in days):
        of_it = [day for day in days if day.scenario == name]
        ours, first = [day.count for day in of_it], [len(day.first_service) for day in of_it]
        jumps = [abs(jump) for day in of_it for _, _, jump in day.switches if np.isfinite(jump)]
        rows.append(
            {
                "scenario": name,
                "days": len(of_it),
                "shmcam": f"{min(ours)} … {max(ours)}",
                "first service": f"{min(first)} … {max(first)}",
                "closest pair s": round(min(day.least_gap_s for day in of_it)),
                "median jump EV": round(float(np.median(jumps)), 3) if jumps else None,
            }
        )
    return rows


def main() -> int:
    """Run, print the table, draw the plots."""
    parser = argparse.ArgumentParser(prog="python -m bench.night.days")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--plots", type=Path, default=Path(__file__).parents[2] / "docs" / "img")
    options = parser.parse_args()
    settings = NightSettings(min_dark_frames=3, min_bright_frames=3)
    days = simulate(list(SCENARIOS), range(options.seeds), settings)
    for row in table(days):
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    from bench.night.plots import draw

    for path in draw(days, simulate(["clear", "storm"], range(1), settings, keep=True), settings, options.plots):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
