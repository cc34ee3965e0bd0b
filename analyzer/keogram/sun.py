"""Computes when the sun rises and sets, for marks on the keogram. Pure.

Source: Astronomical Almanac, low precision formulas for the sun; they are good to 0.01 degrees, a few seconds of time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HORIZON_DEG = -0.833
"""Altitude of the sun's centre when its upper edge touches the horizon: refraction and half its width."""
STEP_S = 60.0
J2000_UTC_S = 946_728_000
"""2000-01-01 12:00."""

Floats = NDArray[np.float64]


def find_crossings(begin_s: float, end_s: float, position: tuple[float, float]) -> list[tuple[float, bool]]:
    """Returns (UTC seconds, it rises) of every sunrise and sunset between two instants; none in a polar summer.

    `position`: latitude and longitude in degrees, north and east positive.
    """
    times = np.arange(begin_s, end_s + STEP_S, STEP_S)
    above = altitude_deg_of(times, position) - HORIZON_DEG
    at = np.flatnonzero((above[:-1] < 0) != (above[1:] < 0))
    exact = times[at] + STEP_S * above[at] / (above[at] - above[at + 1])
    return [(float(when), bool(above[index] < 0)) for when, index in zip(exact, at, strict=True) if when < end_s]


def altitude_deg_of(utc_s: Floats, position: tuple[float, float]) -> Floats:
    """Returns the sun's altitude in degrees, without refraction."""
    days = (utc_s - J2000_UTC_S) / 86_400
    anomaly = np.radians(357.528 + 0.985_600_3 * days)
    longitude = np.radians(280.460 + 0.985_647_4 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 0.000_000_4 * days)
    ascension = np.arctan2(np.cos(tilt) * np.sin(longitude), np.cos(longitude))
    declination = np.arcsin(np.sin(tilt) * np.sin(longitude))
    sidereal = np.radians(280.460_618_37 + 360.985_647_366_29 * days + position[1])
    latitude = np.radians(position[0])
    sine = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(
        sidereal - ascension
    )
    return np.asarray(np.degrees(np.arcsin(sine)))
