"""What viewers may ask for, and which frames a rate lets through."""

import pytest

from streamer.pictures.variant import InvalidVariant, RateLimiter, Variant, parse_variant
from streamer.settings import MjpegServerSettings

SETTINGS = MjpegServerSettings()


def test_no_wish_is_what_the_settings_say():
    assert parse_variant({}, MjpegServerSettings(fps=12.0, quality=70, width=640)) == Variant(
        12.0, 640, 70, gray=False, stack=1
    )


def test_equal_wishes_are_one_variant():
    first, second = (
        parse_variant({"width": "320", "gray": "1"}, SETTINGS),
        parse_variant({"gray": "true", "width": "321"}, SETTINGS),
    )
    assert first == second
    assert hash(first) == hash(second)


def test_a_long_exposure_is_a_variant_of_its_own():
    live, long = (
        parse_variant({"exposure": "live"}, SETTINGS),
        parse_variant({"exposure": "long", "gray": "1"}, SETTINGS),
    )
    assert live == parse_variant({}, SETTINGS)
    assert (live.long, long.long, long.gray) == (False, True, True)
    assert str(long) == "full q80 30fps gray long"


def test_a_viewer_cannot_ask_for_more_than_the_settings_allow():
    assert parse_variant({"fps": "60"}, MjpegServerSettings(fps=10.0)).fps == 10.0


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"fps": "0"}, "fps='0': must be a number 0.05..240"),
        ({"fps": "nan"}, "fps='nan': must be a number"),
        ({"fps": "-1"}, "must be a number"),
        ({"fps": "1e400"}, "must be a number"),
        ({"width": "9"}, "width=9: must be 0 \\(as captured\\) or 16..8192"),
        ({"width": "abc"}, "width='abc': must be a number 0..8192"),
        ({"quality": "101"}, "quality='101': must be a number 10..100"),
        ({"gray": "perhaps"}, "gray='perhaps': must be 0 or 1"),
        ({"exposure": "short"}, "exposure='short': must be live or long"),
        ({"exposure": ""}, "exposure='': must be live or long"),
        ({"exposure": "long", "stack": "8"}, "exposure=long is a stack already: leave out stack"),
        ({"stack": "65"}, "stack='65': must be a number 1..64"),
        ({"stack": "9" * 5000}, "must be a number 1..64"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_would(query, text):
    with pytest.raises(InvalidVariant, match=text):
        parse_variant(query, SETTINGS)


def taken(fps: float, times_s: list[float]) -> int:
    limiter = RateLimiter(fps)
    return sum(limiter.accept(round(at * 1e9)) for at in times_s)


def test_a_camera_at_exactly_the_rate_keeps_every_frame_although_it_jitters():
    jitter = [0.0, 0.004, -0.004, 0.007, -0.007]
    times = [n / 30 + jitter[n % 5] for n in range(300)]
    assert taken(30, times) == 300


@pytest.mark.parametrize(("camera", "limit", "seconds"), [(30, 10, 20), (60, 25, 20), (31, 30, 20), (25, 30, 20)])
def test_the_rate_is_kept_over_time(camera, limit, seconds):
    count = taken(limit, [n / camera for n in range(camera * seconds)])
    assert count == pytest.approx(min(camera, limit) * seconds, abs=2)


def test_a_slow_camera_is_not_held_back():
    assert taken(30, [2.0 * n for n in range(50)]) == 50


def test_a_burst_after_a_pause_does_not_catch_up():
    """After 10 s without frames the rate still holds: no 300 frames at once."""
    limiter = RateLimiter(10)
    assert limiter.accept(0)
    assert sum(limiter.accept(round((10 + n / 100) * 1e9)) for n in range(100)) <= 12


def test_a_clock_that_begins_anew_is_followed():
    limiter = RateLimiter(10)
    assert limiter.accept(10**15)
    assert limiter.accept(5_000), "another boot, another source: not silent for 11 days"


def test_the_feed_may_sleep_until_a_frame_is_due_and_not_longer():
    """It never sleeps through a frame that would be accepted, whatever the clock of the frames."""
    limiter, woken = RateLimiter(10), 0
    assert limiter.get_wait_ns(0) == 0
    for number in range(90):
        captured_ns = round(number * 1e9 / 30)
        is_asleep = limiter.get_wait_ns(captured_ns) > 0
        woken += not is_asleep
        assert not (limiter.accept(captured_ns) and is_asleep)
    assert woken == pytest.approx(30, abs=1)
    assert RateLimiter(10).get_wait_ns(10**15) == 0
    assert limiter.get_wait_ns(5_000) == 0, "frames of another clock are not waited for"
