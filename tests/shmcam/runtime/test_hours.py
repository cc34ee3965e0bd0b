"""Spans of the day, such as 22:00-06:00."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmcam.runtime.timers import DAY_MINUTES, HOURS, is_within_hours


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("08:00-17:30", (480, 1049), (479, 1050, 0)),
        ("22:00-06:00", (1320, 1439, 0, 359), (360, 1319)),
        ("18:00-24:00", (1080, 1439), (0, 1079)),
        ("00:00-24:00", (0, 1439), ()),
        ("07:00-07:00", (0, 419, 420, 1439), ()),
        ("", (0, 1439), ()),
    ],
)
def test_the_end_does_not_belong_to_a_span_and_midnight_may_lie_in_it(hours, inside, outside):
    assert not hours or re.fullmatch(HOURS, hours)
    assert all(is_within_hours(hours, minute) for minute in inside)
    assert not any(is_within_hours(hours, minute) for minute in outside)


@given(st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES - 1))
def test_a_minute_lies_either_in_a_span_or_in_the_rest_of_the_day(begin, end, minute):
    one, rest = (f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in ((begin, end), (end, begin)))
    assert begin == end or is_within_hours(one, minute) != is_within_hours(rest, minute)


@pytest.mark.parametrize("text", ["24:00-06:00", "6:00-7:00", "08:00", "08:60-09:00", "08:00-24:01", "08:00-09:00 "])
def test_what_is_no_span_is_refused(text):
    assert not re.fullmatch(HOURS, text)
