"""Keogram and brightness strip: drawn as the day goes, bounded, carried over restarts, saved when the day is over."""

import errno
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from datetime import time as Time
from types import SimpleNamespace

import av
import numpy as np
import pytest

from analyzer.frame_sample import cut_column
from analyzer.keogram import daily_keogram
from analyzer.keogram.daily_keogram import KeogramKeeper, save_days_of_removed_cameras
from analyzer.keogram.day_file import CSV_HEAD
from analyzer.keogram.drawing import BOTTOM, LEFT, RIGHT, TOP, UNSEEN_RGB, Column, column_dtype_of, resize_strip
from analyzer.keogram.local_day import day_at
from analyzer.keogram.sun import find_crossings
from analyzer.settings import AnalyzerSettings
from shm_ring.color import LUMA_WEIGHTS
from shm_ring.formats import geometry, planes
from shmcam.config.settings import Settings
from shmcam.imaging.png import to_png
from shmcam.library.disks.mounts import Mounts
from shmcam.library.sidecar import Owner, read
from shmcam.runtime.atomic_files import open_atomic

SETTINGS = AnalyzerSettings(keogram_height=16, keogram_column_s=60.0)
NOON = int(datetime(2026, 6, 1, 12, 0).timestamp())


@pytest.fixture
def places(tmp_path):
    (tmp_path / "config.toml").touch()
    (tmp_path / "run").mkdir()
    return Settings.load(tmp_path / "config.toml", environ={}).paths


def result_of(utc_s, grey=100, level=90.0, settled=True):
    """One frame as the keogram sees it."""
    column = np.full((32, 3), grey, np.uint8)
    meta = SimpleNamespace(captured_utc_ns=int(utc_s * 1e9), captured_ns=int(utc_s * 1e9))
    return SimpleNamespace(
        sample=SimpleNamespace(column=column, meta=meta),
        measurement=SimpleNamespace(dark_score=np.array([float(grey)])),
        assessment=SimpleNamespace(level=level, ev=-3.0, settled=settled),
    )


def picture(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def plot_of(drawn):
    """The columns of a picture, without what is written around them."""
    return drawn[TOP:-BOTTOM, LEFT:-RIGHT]


def fill(keeper, begin_s, minutes, grey=lambda minute: 100):
    saved = []
    for minute in range(minutes):
        for second in (5, 30):
            saved += keeper.add(result_of(begin_s + minute * 60 + second, grey(minute)), night=minute > 5)
    return saved


def test_columns_stand_side_by_side_in_the_order_of_time(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 10, grey=lambda minute: minute * 20)
        keogram_path, strip_path = keeper.draw()
        assert keeper.columns == 10
    drawn = picture(keogram_path)
    plot = plot_of(drawn)
    assert plot.shape == (16, 1440, 3)  # the whole day
    assert plot[0, 720:730, 0].tolist() == [minute * 20 for minute in range(10)]
    assert (plot[:, 730:] == UNSEEN_RGB).all() and (plot[:, :720] == UNSEEN_RGB).all()
    assert picture(strip_path).shape[1] == drawn.shape[1]


def test_a_gap_stays_grey_and_is_as_wide_as_it_was_long(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 2)
        fill(keeper, NOON + 5 * 60, 2)
        drawn = picture(keeper.draw()[0])
    assert plot_of(drawn)[0, 720:727, 0].tolist() == [100, 100, *[UNSEEN_RGB[0]] * 3, 100, 100]


def test_a_restart_in_the_middle_of_the_day_loses_only_the_column_under_way(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 5)
    killed = KeogramKeeper(SETTINGS, places, "cam0")  # never left: as after SIGKILL
    fill(killed, NOON + 5 * 60, 3)
    after = KeogramKeeper(SETTINGS, places, "cam0")  # not entered: that would look at today's date, which is another
    fill(after, NOON + 20 * 60, 1)
    assert {index - 720 for index in after._rows} == {0, 1, 2, 3, 4, 5, 6}
    assert after.columns == 8


def test_the_day_that_is_over_is_saved_and_its_columns_removed(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 5)
        saved = keeper.add(result_of(NOON + 86_400), night=False)
        assert keeper.columns == 1
    assert [path.name for path in saved] == [
        "cam0_20260601_keogram.png",
        "cam0_20260601_brightness.png",
        "cam0_20260601_brightness.csv",
    ]
    lines = saved[2].read_text().splitlines()
    assert lines[0] == CSV_HEAD
    assert lines[1].startswith("12:00:00,90.00,-3.000,100.00,0.00,2")
    assert len(lines) == 6
    left = sorted(path.name for path in (places.captures / "keogram").iterdir())
    assert ".cam0_20260601.columns" not in left
    entry = read(saved[0], Owner.of(places.library))
    assert (entry.kind, entry.camera, entry.duration_s, entry.frames) == ("keogram", "cam0", 300.0, 10)
    assert entry.started_utc_ns == NOON * 10**9
    another = Owner(("another installation",))
    assert [read(path, another) for path in saved[:2]] == [None, None], "they bear our id"
    assert read(saved[1], Owner.of(places.library)).companions == ("cam0_20260601_brightness.csv",)


def test_without_frames_the_clock_ends_the_day(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 3)
        assert keeper.end_day_if_over(int((NOON + 3600) * 1e9)) == []
        assert len(keeper.end_day_if_over(int((NOON + 86_400) * 1e9))) == 3


MIDNIGHT = NOON + 43_200


def test_a_long_exposure_over_midnight_makes_no_second_keogram(places):
    """Each night with exposures above a quarter second left two: the idle loop ended the day before its last frame."""
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, MIDNIGHT - 600, 10)
        saved = keeper.end_day_if_over(int((MIDNIGHT + 0.3) * 1e9))
        saved += keeper.add(result_of(MIDNIGHT - 1), night=True)  # 2 s of exposure, by the time at which they began
        saved += keeper.add(result_of(MIDNIGHT + 1), night=True)
        saved += keeper.add(result_of(MIDNIGHT - 2), night=True)  # NTP sets the clock back by some seconds
        saved += keeper.add(result_of(MIDNIGHT + 2), night=True)
        assert set(keeper._rows) == {-1, 0}
    assert [path.name for path in saved][0::3] == ["cam0_20260601_keogram.png"]
    assert saved[2].read_text().count("\n") == 11 and ",3," in saved[2].read_text()  # all frames of its last minute


@pytest.mark.parametrize(("zone", "first"), [("UTC", "20261231"), ("Europe/Berlin", "20260228")], indirect=["zone"])
def test_a_day_that_the_disk_refused_is_saved_once_when_it_has_room(zone, first, places, monkeypatch):
    """Full at midnight, a day was saved at the next start of the analyzer, without columns that the disk refused."""
    monkeypatch.setattr(daily_keogram, "open_atomic", refuse := Refusing())
    begin_s = datetime.strptime(first, "%Y%m%d").timestamp()
    clock = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.s)
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, begin_s + 3600, 5)
        keeper._folder.joinpath(f".cam0_{first}.columns").unlink()  # as if the disk had been full all day
        for count in (0, 1, 2):  # the disk takes so many files and then no more
            refuse.after, clock.s = count, clock.s + 61
            assert keeper.add(result_of(begin_s + 86_400 + count), night=True) == []
            left = [path.name for path in (places.captures / "keogram").iterdir()]
            assert not [name for name in left if not name.startswith(".")], "a part of a day is none"
        refuse.after = 99
        assert keeper.add(result_of(begin_s + 86_460), night=True) == [], "not at once again"
        clock.s += 61
        saved = keeper.end_day_if_over(int((begin_s + 86_470) * 1e9))
        assert keeper.columns == 2
    assert [path.name for path in saved] == [
        f"cam0_{first}_{what}" for what in ("keogram.png", "brightness.png", "brightness.csv")
    ]
    assert len(saved[2].read_text().splitlines()) == 6


class Refusing:
    """open_atomic on a disk that takes `after` more files."""

    after = 99

    @contextmanager
    def __call__(self, path):
        with open_atomic(path) as file:
            yield file
            self.after -= 1
            if self.after < 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_nothing_is_written_where_a_disk_is_not_mounted(places, monkeypatch):
    """Each minute left a column in the bare mount point, and each midnight a day."""
    monkeypatch.setattr(Mounts, "is_away", lambda _self, folder: folder == places.captures / "keogram")
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 3)
        fill(keeper, NOON + 86_400, 3)
        assert keeper.columns == 3 and len(keeper.draw()) == 2
        assert not (places.captures / "keogram").exists()
        monkeypatch.undo()
        keeper._next_try_s = 0.0
        assert len(keeper.add(result_of(NOON + 86_600), night=False)) == 3, "saved once it is back"


def test_a_start_with_yesterdays_clock_does_not_end_today(places, monkeypatch):
    """A board without a clock battery starts with the time of its last shutdown; NTP comes later."""
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, MIDNIGHT + 60, 5)
    monkeypatch.setattr(time, "time_ns", lambda: int((MIDNIGHT - 1800) * 1e9))
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, MIDNIGHT - 1800, 2)
        saved = keeper.add(result_of(MIDNIGHT + 3600), night=True)
        assert keeper.columns == 6 and saved[0].name == "cam0_20260601_keogram.png"


def test_a_day_left_behind_by_a_crash_is_saved_at_the_next_start(places):
    killed = KeogramKeeper(SETTINGS, places, "cam0")
    fill(killed, NOON, 5)
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        assert (places.captures / "keogram" / "cam0_20260601_keogram.png").exists()
        saved = keeper.add(result_of(NOON + 86_400), night=False)
        assert len(saved) == 3, "reported, so that the library has them"
    assert not (places.captures / "keogram" / ".cam0_20260601.columns").exists()


def test_a_clock_that_jumps_back_overwrites_no_saved_picture(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 2)
        fill(keeper, NOON + 86_400, 2)  # saves the first day
        fill(keeper, NOON, 2)  # and the clock goes back
        saved = fill(keeper, NOON + 86_400, 2)
    assert "cam0_20260601_keogram_2.png" in [path.name for path in saved]


def test_a_torn_tail_and_columns_of_another_height_are_survived(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 4)
    file = places.captures / "keogram" / ".cam0_20260601.columns"
    file.write_bytes(file.read_bytes()[:-7])
    with KeogramKeeper(AnalyzerSettings(keogram_height=40), places, "cam0"):
        pass  # another height: set aside or saved, never a crash
    torn = KeogramKeeper(SETTINGS, places, "cam1")
    fill(torn, NOON, 4)
    other = places.captures / "keogram" / ".cam1_20260601.columns"
    other.write_bytes(other.read_bytes()[:-7])
    fill(torn, NOON + 4 * 60, 3)
    assert other.stat().st_size % column_dtype_of(16).itemsize == 0
    assert set(torn._load(torn._day)) == {720, 721, 723, 724, 725}


@pytest.mark.skipif(os.geteuid() != 0 and os.access("/proc/1", os.W_OK), reason="needs a folder that refuses writing")
def test_a_disk_that_refuses_costs_columns_on_disk_only_and_is_logged_once(places, caplog):
    places.captures.write_text("a file where the folder should be")
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 6)
        assert keeper.columns == 6
        assert len(keeper.draw()) == 2
    assert caplog.text.count("keogram not written") == 1


def test_unsettled_frames_and_switched_off_keograms_draw_nothing(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        assert keeper.add(result_of(NOON, settled=False), night=False) == []
        assert keeper.draw() == ()
    with KeogramKeeper(AnalyzerSettings(keogram=False), places, "cam0") as keeper:
        assert keeper.column_position(0) is None


def test_one_sample_a_second_is_taken(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        due = [keeper.column_position(n * 33_000_000) is not None for n in range(100)]
    assert sum(due) == 4


def test_memory_is_bounded_by_the_day(places):
    with KeogramKeeper(AnalyzerSettings(keogram_height=8), places, "cam0") as keeper:
        for minute in range(0, 1440 * 3, 7):
            keeper.add(result_of(NOON + minute * 60), night=False)
            assert keeper.columns <= 1440 // 7 + 2


def test_a_day_may_begin_at_noon():
    day = day_at((NOON - 60) * 10**9, Time(12))
    assert day.date.isoformat() == "2026-05-31" and day.end_s == NOON
    assert day_at(NOON * 10**9, Time(12)).date.isoformat() == "2026-06-01"


@pytest.fixture
def zone(request, monkeypatch):
    """The local time zone of one test."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def utc(*when):
    return datetime(*when, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("zone", ["Europe/Berlin"], indirect=True)
@pytest.mark.parametrize("starts", ["00:00", "02:30", "12:00"])
def test_the_hour_that_the_clock_shows_twice_is_kept_twice(zone, starts, places):
    """The second 02:00-03:00 of the night the clocks go back overwrote the first."""
    settings = AnalyzerSettings(keogram_height=16, day_starts_at=starts)
    begin_s, saved = utc(2026, 10, 24, 22, 30), []  # 00:30 CEST
    with KeogramKeeper(settings, places, "cam0") as keeper:
        for minute in range(300):  # to 04:30 CET
            hour = minute + 30
            grey = 10 if 120 <= hour < 180 else 200 if 180 <= hour < 240 else 100
            saved += keeper.add(result_of(begin_s + minute * 60 + 5, grey), night=True)
        saved += keeper.end_day_if_over(int(utc(2026, 10, 27, 0, 0) * 1e9))
    tables = [path.read_text().splitlines()[1:] for path in saved if path.suffix == ".csv"]
    rows = [row.split(",") for table in tables for row in table]
    assert len(rows) == 300 and sum(int(row[5]) for row in rows) == 300
    assert sum(row[3] == "10.00" for row in rows) == 60 == sum(row[3] == "200.00" for row in rows)
    twice = [row[6] for row in rows if row[0] == "02:15:00"]
    assert twice == ["2026-10-25T00:15:00.000Z", "2026-10-25T01:15:00.000Z"]
    entries = [read(path, Owner.of(places.library)) for path in saved if path.name.endswith("keogram.png")]
    assert sum(entry.duration_s for entry in entries) == 5 * 3600
    assert entries[0].started_utc_ns == begin_s * 10**9


@pytest.mark.parametrize(
    ("zone", "frame", "width"),
    [
        ("Europe/Berlin", (2026, 10, 25, 9, 0), 1500),  # clocks went back in the night before
        ("Europe/Berlin", (2026, 3, 29, 8, 0), 1380),  # and forward
        ("Asia/Kathmandu", (2026, 6, 1, 8, 0), 1440),
        ("America/St_Johns", (2026, 11, 1, 20, 0), 1500),
        ("Australia/Lord_Howe", (2026, 4, 5, 0, 0), 1470),  # half an hour
        ("Pacific/Apia", (2026, 6, 1, 8, 0), 1440),
    ],
    indirect=["zone"],
)
def test_the_library_knows_when_a_keogram_began_and_the_day_is_as_long_as_it_was(zone, frame, width, places):
    when_s = utc(*frame)
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, when_s, 10)
        assert plot_of(picture(keeper.draw()[0])).shape[1] == width
        saved = keeper.end_day_if_over(int((when_s + 2 * 86_400) * 1e9))
    entry = read(saved[0], Owner.of(places.library))
    assert (entry.started_utc_ns, entry.duration_s) == (when_s * 10**9, 600)


def test_a_clock_that_is_set_back_within_the_day_overwrites_no_column(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 10, grey=lambda _: 100)
        fill(keeper, NOON + 5 * 60, 10, grey=lambda _: 200)  # five minutes come again
        assert keeper.columns == 15
        plot = plot_of(picture(keeper.draw()[0]))
    assert plot[0, 720:735, 0].tolist() == [100] * 5 + [150] * 5 + [200] * 5
    again = KeogramKeeper(SETTINGS, places, "cam0")
    again.add(result_of(NOON + 3600), night=False)  # reads the file
    assert int(again._join_columns()["frames"].sum()) == 41


def test_hours_and_sun_are_marked_around_the_columns(places):
    there = AnalyzerSettings(keogram_height=16, position=(52.5, 13.4))
    with KeogramKeeper(SETTINGS, places, "cam0") as plain, KeogramKeeper(there, places, "cam1") as placed:
        for keeper in (plain, placed):
            fill(keeper, NOON, 2)
        drawn, marked = (picture(keeper.draw()[0]) for keeper in (plain, placed))
    ticks = np.flatnonzero((drawn[16 + TOP] > 200).all(axis=1)) - LEFT
    assert ticks.tolist() == list(range(0, 1441, 60))
    assert drawn[TOP + 16 + 8 : TOP + 16 + 22].max() > 200  # hours
    assert not (drawn[22:36] > 60).any() and (marked[22:36] > 200).any()
    dawn, dusk = find_crossings(utc(2026, 6, 21), utc(2026, 6, 22), (52.52, 13.405))
    assert (dawn[1], dusk[1]) == (True, False)
    assert abs(dawn[0] - utc(2026, 6, 21, 2, 43)) < 60 and abs(dusk[0] - utc(2026, 6, 21, 19, 33)) < 60
    assert find_crossings(utc(2026, 6, 21), utc(2026, 6, 22), (69.65, 18.96)) == []  # the sun does not set


@pytest.mark.parametrize("position", [(91.0, 0.0), (0.0, 181.0), (52.0,)])
def test_a_position_that_is_none_is_refused(position):
    with pytest.raises(ValueError, match=r"position: .* must be"):
        AnalyzerSettings(position=position)


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 1080])
def test_strips_of_any_length_are_fitted(rows):
    strip = np.repeat(np.linspace(0, 255, rows, dtype=np.uint8)[:, None], 3, axis=1)
    fitted = resize_strip(strip, 16)
    assert fitted.shape == (16, 3)
    assert fitted.mean() == pytest.approx(strip.mean(), abs=40)
    assert np.all(np.diff(fitted[:, 0]) >= 0)


def test_a_column_is_the_mean_of_its_samples():
    column = Column(7, 4)
    column.add(np.full((4, 3), 10, np.uint8), 20.0, -2.0, 10.0, night=False)
    column.add(np.full((4, 3), 20, np.uint8), 40.0, -4.0, 20.0, night=True)
    row = column.to_row()[0]
    assert (row["utc_s"], row["frames"], row["level"], row["ev"], row["night"]) == (7, 2, 30.0, -3.0, 0.5)
    assert (row["rgb"] == 15).all()


def test_png_is_read_by_others_and_keeps_its_notes(tmp_path):
    rng = np.random.default_rng(1)
    given = rng.integers(0, 256, (33, 57, 3), np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(to_png(given, {"Camera": "cam0"}))
    assert np.array_equal(picture(path), given)
    assert b"tEXtCamera\0cam0" in path.read_bytes()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "bgr24", "rgb24", "gray"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 48)])
def test_the_column_of_every_format_has_the_colour_of_the_frame(pixel_format, size):
    shape = geometry(pixel_format, *size)
    payload = np.full(shape.payload_bytes, 128, np.uint8)
    strip = cut_column(planes(payload, shape), pixel_format, 0.5, limited=False, weights=LUMA_WEIGHTS["smpte170m"])
    assert strip.shape == (size[1], 3)
    assert (strip == 128).all()


def test_a_red_frame_gives_a_red_column():
    shape = geometry("yuv420p", 8, 8)
    payload = np.empty(shape.payload_bytes, np.uint8)
    luma, blue, red = planes(payload, shape)
    luma[:], blue[:], red[:] = 76, 85, 255  # BT.601 full range red
    strip = cut_column((luma, blue, red), "yuv420p", 1.0, limited=False, weights=LUMA_WEIGHTS["smpte170m"])
    assert np.abs(strip.astype(int) - (254, 0, 0)).max() <= 2


def test_drawing_happens_by_itself_every_refresh(places, monkeypatch):
    with KeogramKeeper(AnalyzerSettings(keogram_refresh_s=1.0, keogram_height=8), places, "cam0") as keeper:
        keeper.add(result_of(NOON), night=False)
        assert not (places.run / "keogram_cam0.png").exists()
        later_s = time.monotonic() + 5.0
        monkeypatch.setattr(time, "monotonic", lambda: later_s)
        keeper.add(result_of(NOON + 2), night=False)
        assert (places.run / "keogram_cam0.png").exists()


def test_days_of_a_camera_that_was_removed_are_saved_and_those_of_another_instance_stay(places):
    for camera in ("gone", "elsewhere"):
        with KeogramKeeper(SETTINGS, places, camera) as keeper:
            fill(keeper, NOON, 3)
    folder = places.captures / "keogram"
    old = time.time() - 2 * 86_400
    os.utime(folder / ".gone_20260601.columns", (old, old))
    save_days_of_removed_cameras(SETTINGS, places, ["cam0"])
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".json") == [
        ".elsewhere_20260601.columns", "gone_20260601_brightness.csv", "gone_20260601_brightness.png",
        "gone_20260601_keogram.png",
    ]  # fmt: skip
