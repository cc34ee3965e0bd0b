"""Draws the plots of docs/night.md from simulated days (bench/night/days.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from analyzer.settings import NightSettings
from bench.night.days import SCENARIOS, Day, clear_lux, steps

OURS, FIRST, NIGHT = "#1f5fa8", "#c2542d", "#dfe4f2"


def draw(days: list[Day], kept: list[Day], settings: NightSettings, folder: Path) -> list[Path]:
    """Switches per day of every scenario, and what the scores of two days looked like. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_counts(days, folder / "night-switches.png"), *(_day(day, settings, folder) for day in kept)]


def _figure(height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, height), constrained_layout=True)
    return figure, axes


def _counts(days: list[Day], path: Path) -> Path:
    figure, axes = _figure(4.2)
    for row, name in enumerate(SCENARIOS):
        of_it = [day for day in days if day.scenario == name]
        jitter = np.linspace(-0.18, 0.18, len(of_it)) if len(of_it) > 1 else np.zeros(1)
        axes.plot([day.count for day in of_it], row + jitter, ".", color=OURS, label="shmcam" if not row else None)
        first = [len(day.first_service) for day in of_it]
        axes.plot(first, row + jitter, ".", color=FIRST, label="first service (plain mean)" if not row else None)
    axes.axvline(3, color="#888888", lw=0.8, ls=":")
    axes.set(xscale="log", xlabel="switches between day and night in 24 h (dotted: the three there should be)")
    axes.set_yticks(range(len(SCENARIOS)), [name.replace("_", " ") for name in SCENARIOS])
    axes.invert_yaxis()
    axes.legend(loc="center", frameon=False)
    figure.savefig(path, dpi=110)
    return path


def _day(day: Day, settings: NightSettings, folder: Path) -> Path:
    figure, axes = _figure(4.6)
    hour = steps() / 3600
    span = (hour > 17.5) & (hour < 20.5)
    axes.plot(
        hour[span], np.array(day.first_mean)[span], color=FIRST, lw=0.7, label="first service: plain mean of its frames"
    )
    axes.plot(hour[span], np.array(day.mean)[span], color="#9db9d6", lw=0.9, label="shmcam: plain mean of its frames")
    axes.plot(
        hour[span], np.array(day.level)[span], color=OURS, lw=1.4, label="shmcam: scene brightness, which decides"
    )
    for threshold in (settings.dark_threshold, settings.bright_threshold):
        axes.axhline(threshold, color="#888888", lw=0.8, ls=":")
    began = [second / 3600 for second, night, _ in day.switches if night and 17.5 < second / 3600 < 20.5]
    for start in began:
        axes.axvspan(start, 20.5, color=NIGHT, zorder=0)
    flips = [second / 3600 for second, _ in day.first_service if 17.5 < second / 3600 < 20.5]
    axes.plot(flips, np.full(len(flips), 262.0), "|", color=FIRST, ms=9, label=f"first service switches ({len(flips)})")
    light = axes.twinx()
    light.plot(hour[span], np.log10(clear_lux(steps()))[span], color="#bbbbbb", lw=0.8)
    light.set_ylabel("log10 lux, clear sky (grey)")
    axes.set(
        xlabel="hour", ylabel="mean luma 0-255", ylim=(-4, 272), title=f"dusk, {day.scenario} day: shaded = night mode"
    )
    axes.legend(loc="upper right", bbox_to_anchor=(0.99, 0.93), frameon=True, fontsize=8)
    path = folder / f"night-{day.scenario}.png"
    figure.savefig(path, dpi=110)
    return path
