"""Keogram and brightness strip: drawn as the day goes, bounded, carried over restarts, saved when the day is over."""

import os
import time
from datetime import datetime
from types import SimpleNamespace

import av
import numpy as np
import pytest

from analyzer.frame_sample import cut_column
from analyzer.keogram.daily_keogram import KeogramKeeper
from analyzer.keogram.day_file import CSV_HEAD, day_time_of
from analyzer.keogram.drawing import Column, column_dtype_of, draw_brightness_strip, draw_keogram, resize_strip
from analyzer.settings import AnalyzerSettings
from shm_ring.formats import geometry, planes
from shmcam.imaging.png import to_png
from shmcam.library.sidecar import read

SETTINGS = AnalyzerSettings(keogram_height=16, keogram_column_s=60.0)
NOON = int(datetime(2026, 6, 1, 12, 0).timestamp())


@pytest.fixture
def places(tmp_path):
    (tmp_path / "run").mkdir()
    return SimpleNamespace(captures=tmp_path / "captures", run=tmp_path / "run")


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
    assert drawn.shape == (16, 10, 3)
    assert drawn[0, :, 0].tolist() == [minute * 20 for minute in range(10)]
    assert picture(strip_path).shape == (120, 10, 3)


def test_a_gap_stays_black_and_is_as_wide_as_it_was_long(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 2)
        fill(keeper, NOON + 5 * 60, 2)
        drawn = picture(keeper.draw()[0])
    assert drawn[0, :, 0].tolist() == [100, 100, 0, 0, 0, 100, 100]


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
    entry = read(saved[0])
    assert (entry.kind, entry.camera, entry.duration_s, entry.frames) == ("keogram", "cam0", 300.0, 10)
    assert entry.started_utc_ns == NOON * 10**9
    assert read(saved[1]).companions == ("cam0_20260601_brightness.csv",)


def test_without_frames_the_clock_ends_the_day(places):
    with KeogramKeeper(SETTINGS, places, "cam0") as keeper:
        fill(keeper, NOON, 3)
        assert keeper.end_day_if_over(int((NOON + 3600) * 1e9)) == []
        assert len(keeper.end_day_if_over(int((NOON + 86_400) * 1e9))) == 3


def test_a_day_left_behind_by_a_crash_is_saved_at_the_next_start(places):
    killed = KeogramKeeper(SETTINGS, places, "cam0")
    fill(killed, NOON, 5)
    with KeogramKeeper(SETTINGS, places, "cam0"):
        pass
    assert (places.captures / "keogram" / "cam0_20260601_keogram.png").exists()
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
    assert set(torn._file_of(torn._day).load(2000)) == {720, 721, 723, 724, 725}


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
    at = day_time_of(int((NOON - 60) * 1e9), 12 * 3600)
    assert at.day.isoformat() == "2026-05-31"
    assert at.second == pytest.approx(86_400 - 60)
    assert day_time_of(int(NOON * 1e9), 12 * 3600).day.isoformat() == "2026-06-01"


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
    assert (row["index"], row["frames"], row["level"], row["ev"], row["night"]) == (7, 2, 30.0, -3.0, 0.5)
    assert (row["rgb"] == 15).all()


def test_full_hours_are_marked():
    columns = np.zeros(180, column_dtype_of(20))
    columns["index"] = np.arange(180) + 660  # 11:00 to 14:00
    drawn = draw_keogram(columns, 60.0, 0.0)
    marked = np.flatnonzero((drawn[-1] == 255).all(axis=1))
    assert marked.tolist() == [0, 60, 120]
    assert (drawn[-10:, 60] == 255).all()  # 12:00 is higher
    assert (drawn[-10, 0] == 0).all()
    assert draw_brightness_strip(columns, 60.0, 0.0).shape == (120, 180, 3)


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
    strip = cut_column(planes(payload, shape), pixel_format, 0.5, limited=False, bt709=False)
    assert strip.shape == (size[1], 3)
    assert (strip == 128).all()


def test_a_red_frame_gives_a_red_column():
    shape = geometry("yuv420p", 8, 8)
    payload = np.empty(shape.payload_bytes, np.uint8)
    luma, blue, red = planes(payload, shape)
    luma[:], blue[:], red[:] = 76, 85, 255  # BT.601 full range red
    strip = cut_column((luma, blue, red), "yuv420p", 1.0, limited=False, bt709=False)
    assert np.abs(strip.astype(int) - (254, 0, 0)).max() <= 2


def test_drawing_happens_by_itself_every_refresh(places, monkeypatch):
    with KeogramKeeper(AnalyzerSettings(keogram_refresh_s=1.0, keogram_height=8), places, "cam0") as keeper:
        keeper.add(result_of(NOON), night=False)
        assert not (places.run / "keogram_cam0.png").exists()
        later_s = time.monotonic() + 5.0
        monkeypatch.setattr(time, "monotonic", lambda: later_s)
        keeper.add(result_of(NOON + 2), night=False)
        assert (places.run / "keogram_cam0.png").exists()
