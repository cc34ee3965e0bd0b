"""The user's days: by the local clock, kept in UTC, so that an hour that comes twice or never is no special case."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from datetime import time as Time

from msgspec import Struct


class Day(Struct, frozen=True):
    """A day of the user: from one reading of the local clock to the next same one, 23 to 25 hours."""

    date: date
    begin_s: float
    """UTC, seconds since 1970."""
    end_s: float

    def index_of(self, utc_s: float, column_s: float) -> int:
        """Returns the number of columns from the day's begin."""
        return math.floor((utc_s - self.begin_s) / column_s + 1e-6)


def day_of(first: date, starts: Time) -> Day:
    """Returns the day that begins on this date."""
    begins = [datetime.combine(first + timedelta(days=days), starts).timestamp() for days in (0, 1)]
    return Day(first, *begins)


def day_at(utc_ns: int, starts: Time) -> Day:
    """Returns the day of an instant, by the rules of the local time zone."""
    utc_s = utc_ns / 1e9
    local = datetime.fromtimestamp(utc_s).date()
    days = [day_of(local + timedelta(days=shift), starts) for shift in (-1, 0, 1)]
    return next((day for day in days if day.begin_s <= utc_s < day.end_s), days[1])


class DayInfo(Struct, frozen=True):
    """The facts that belong to a day's columns."""

    camera: str
    day: Day
    column_s: float
    position: tuple[float, float] | None = None
    """Latitude and longitude of the camera in degrees; None: not configured."""
