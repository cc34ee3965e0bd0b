"""Frame ids over reboots and power cuts: given out once, whatever was lost."""

import shutil
import signal

import pytest

from capture.frame_ids import AHEAD, MARK_BYTES, MARK_MAX, FrameIds
from tests.capture.harness import Processes
from tests.machine import until


def first_and_last(world):
    """Ids of the ring's first frame and of its newest."""
    with world.reader() as ring:
        return ring.meta(0).frame_id, ring.meta(ring.latest()).frame_id


def marked(path):
    return int((path.exists() and path.read_text()) or -1)


def power_cut(world, capture):
    """What it leaves: the files of the disk; the run folder is often in memory, too."""
    world.stop(capture, signal.SIGKILL)
    for segment in world.segments():
        segment.unlink()
    shutil.rmtree(world.settings.paths.run)


def test_no_frame_id_comes_twice_after_a_power_cut_and_none_is_skipped_by_a_reboot():
    with Processes(camera={"width": 64, "height": 48}, ring={"size": 2000}) as world:
        mark = world.folder / "library.cam0.frame_id"
        capture = world.start_capture()
        first, last = first_and_last(world)
        assert first == 0
        until(lambda: marked(mark) == AHEAD, 20, "the mark")
        power_cut(world, capture)
        capture = world.start_capture()
        first, _ = first_and_last(world)
        assert last < first == AHEAD
        assert f"frame ids go on at {AHEAD}, not at 0" in world.log()
        assert world.stop(capture) == 0
        shutil.rmtree(world.settings.paths.run)
        last = marked(mark)
        world.start_capture()
        assert first_and_last(world)[0] == last, "a clean end is remembered to the frame"


def test_the_mark_is_written_seldom_and_is_always_ahead(tmp_path, monkeypatch):
    synced, path = [], tmp_path / "mark"
    monkeypatch.setattr("capture.frame_ids.os.fsync", synced.append)
    ids = FrameIds(path)
    assert ids.begin(7, exact=False) == 7
    until(lambda: marked(path) == 7 + AHEAD, 20)
    for number in range(0, 10 * AHEAD, AHEAD // 10):
        until(lambda number=number: ids.reached(number) or marked(path) >= number + AHEAD // 2, 20)
    assert len(synced) <= 21
    ids.end(5)
    assert marked(path) == 10 * AHEAD - AHEAD // 10, "a replay's ids do not turn the count back"


@pytest.mark.parametrize("damage", [b"", b"\0" * 32, b"many", b"-5", str(MARK_MAX).encode(), b"9" * 5000])
def test_a_damaged_mark_is_told_and_replaced(tmp_path, damage, caplog):
    path = tmp_path / "mark"
    path.write_bytes(damage)
    assert FrameIds(path).begin(3, exact=False) == 3
    assert "is unreadable" in caplog.text
    until(lambda: path.read_bytes()[:MARK_BYTES].strip() == str(3 + AHEAD).encode(), 20, "a new mark")
    assert FrameIds(path).begin(0, exact=False) == 3 + AHEAD


def test_the_ring_of_a_killed_capture_knows_better_than_the_mark(tmp_path):
    (tmp_path / "mark").write_text("5000")
    assert FrameIds(tmp_path / "mark").begin(42, exact=True) == 42


def test_a_disk_that_is_away_stops_nobody_and_is_told_once(tmp_path, caplog):
    ids = FrameIds(tmp_path / "unplugged" / "mark")
    assert ids.begin(3, exact=False) == 3
    until(lambda: "frame ids may come again" in caplog.text, 20)
    ids.reached(4)
    ids.end(5)
    assert caplog.text.count("may come again") == 1
    assert not (tmp_path / "unplugged").exists()
