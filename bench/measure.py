"""The common harness: what a row is, paired runs, medians and ratios."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Table = list[dict[str, Json]]


@dataclass(frozen=True)
class Row:
    """One claim."""

    name: str
    unit: str
    bound: float | None
    """What the median must not exceed (or fall below, with better="higher"); None: shown, not judged."""
    claim: str
    better: Literal["lower", "higher"] = "lower"

    def holds(self, value: float) -> bool:
        """Tell whether a measured value keeps the claim."""
        if self.bound is None:
            return True
        return value <= self.bound if self.better == "lower" else value >= self.bound


@dataclass(frozen=True)
class Measured:
    """A row's figure."""

    value: float
    detail: str = ""
    tables: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A row that could not be measured here, and why."""

    reason: str


Outcome = Measured | Skipped


def paired(subjects: Mapping[str, Callable[[], float]], repeats: int = 5, seed: int = 0) -> dict[str, list[float]]:
    """Run every subject once per repeat, in a new random order each time; the seed is fixed so that runs compare.

    A subject returns its own figure (seconds, µs …). Returns: per subject one figure per repeat, so that the i-th
    figures of all subjects were taken close together.
    """
    order = list(subjects)
    shuffle = random.Random(seed).shuffle
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(repeats):
        shuffle(order)
        for name in order:
            figures[name].append(subjects[name]())
    return figures


def ratios(figures: Mapping[str, Sequence[float]], subject: str, reference: str) -> list[float]:
    """Divide pair by pair."""
    return [a / b for a, b in zip(figures[subject], figures[reference], strict=True)]


def compared(figures: Mapping[str, Sequence[float]], subject: str, reference: str, unit: str = "µs") -> Measured:
    """Make a row's figure of a pair: the median of the ratios, with their spread and both medians in the detail."""
    pairs = ratios(figures, subject, reference)
    ours, theirs = statistics.median(figures[subject]), statistics.median(figures[reference])
    spread = f"{min(pairs):.3f} … {max(pairs):.3f}"
    return Measured(
        statistics.median(pairs),
        f"{len(pairs)} pairs {spread}; {subject} {ours:.4g} {unit}, {reference} {theirs:.4g} {unit}",
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile by the nearest rank; nan for no values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def timed_us(action: Callable[[], object], times: int) -> float:
    """Return the mean duration of an action, microseconds."""
    started = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - started) / times * 1e6
