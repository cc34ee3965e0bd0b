"""Which frames of the ring a pastStack takes: pure decisions on metadata."""

from __future__ import annotations

import pytest

from exporter.ring_frames import Candidate, select_span
from shm_ring import Flags, FrameMeta

SECOND = 1_000_000_000
NIGHT = int(Flags.NIGHT)


def ring_of(count: int, period_s: float, **meta) -> list[Candidate]:
    """Frames that end at second 100."""
    values = {"exposure_us": round(period_s * 1e6), "analogue_gain": 4.0, "flags": NIGHT, **meta}
    times = [100 * SECOND - round((count - 1 - number) * period_s * SECOND) for number in range(count)]
    return [Candidate(number, FrameMeta(number, at, at, **values)) for number, at in enumerate(times)]


@pytest.mark.parametrize(
    ("held", "exposure_s", "least", "count"),
    [
        (40, 2.0, 16, 16),  # two seconds of the past hold one such frame
        (10, 2.0, 16, 10),  # as far as the ring reaches
        (40, 10.0, 16, 16),  # the span holds none at all, yet the camera delivers
        (40, 10.0, 1, 1),
        (40, 0.1, 16, 21),  # the span holds enough
        (40, 2.0, 0, 2),  # stack_count = 0: all of the span
    ],
)
def test_a_stack_reaches_back_to_the_frames_it_needs(held, exposure_s, least, count):
    ring = ring_of(held, exposure_s)
    received_ns = 100 * SECOND + (round(exposure_s * SECOND) if exposure_s == 10.0 else 0)
    chosen = select_span(ring, received_ns - 2 * SECOND, least)
    assert [candidate.sequence for candidate in chosen] == list(range(held - count, held))


def test_frames_of_the_day_and_of_another_exposure_are_not_reached_for():
    ring = ring_of(10, 2.0, flags=0) + ring_of(10, 2.0, analogue_gain=1.0) + ring_of(5, 2.0)
    assert len(select_span(ring[:10] + ring[20:], 98 * SECOND, 16)) == 5
    assert len(select_span(ring[10:], 98 * SECOND, 16)) == 5


def test_settling_frames_do_not_count_and_a_camera_that_is_away_gives_nothing():
    ring = ring_of(20, 2.0)
    for number in (15, 16, 17):
        ring[number] = Candidate(number, ring[number].meta._replace(flags=NIGHT | int(Flags.SETTLING)))
    chosen = [candidate.sequence for candidate in select_span(ring, 98 * SECOND, 6)]
    assert chosen == [11, 12, 13, 14, 18, 19]
    assert select_span(ring, 300 * SECOND, 6) == [] == select_span([], 0, 6)
