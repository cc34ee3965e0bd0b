"""Frame ids over reboots and power cuts: given out once, whatever was lost."""

import os
import secrets
import shutil
import signal
import threading

import pytest

from capture.frame_ids import AHEAD, MARK_BYTES, MARK_MAX, FrameIds
from capture.rings import Rings
from shm_ring.formats import geometry
from shm_ring.metadata import FrameMeta
from shmcam.runtime.atomic_files import read_state
from tests.capture.harness import Processes
from tests.machine import until

SHAPE = geometry("gray", 64, 48)


@pytest.fixture(autouse=True)
def a_disk_as_slow_as_this_machine(monkeypatch):
    monkeypatch.setattr("capture.frame_ids.JOIN_S", 20)


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
        until(lambda number=number: ids.advance_mark(number) or marked(path) >= number + AHEAD // 2, 20)
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
    ids.advance_mark(4)
    ids.end(5)
    assert caplog.text.count("may come again") == 1
    assert not (tmp_path / "unplugged").exists()


def rings_of(prefix, folder, mark):
    """The rings of a process that will be killed: what it leaves is what `leave` leaves, lock file apart."""
    return Rings(prefix, "cam0", folder / "run", FrameIds(mark))


def test_a_process_that_dies_between_the_jump_and_its_first_frame_does_not_turn_the_count_back(tmp_path):
    prefix, mark = f"t{secrets.token_hex(4)}", tmp_path / "mark"
    mark.write_text("5000")
    died = rings_of(prefix, tmp_path, mark)
    assert died.fit("main", SHAPE, 8).next_frame_id == 5000
    until(lambda: marked(mark) == 5000 + AHEAD, 20, "the mark")
    died.leave()
    (tmp_path / "run" / "cam0.main.lock").write_text("1 0 1")  # written before the jump: kill -9 leaves it at that
    with rings_of(prefix, tmp_path, mark) as rings:
        writer = rings.fit("main", SHAPE, 8)
        assert (writer.took_over, writer.next_frame_id) == (True, 5000 + AHEAD)
    assert marked(mark) == 5000 + AHEAD


@pytest.mark.parametrize("slots", [8, 12])
def test_frames_a_crash_has_left_are_counted_on_exactly_also_into_a_ring_of_another_size(tmp_path, slots):
    prefix, mark = f"t{secrets.token_hex(4)}", tmp_path / "mark"
    died = rings_of(prefix, tmp_path, mark)
    died.fit("main", SHAPE, 8).publish(b"", FrameMeta(41, captured_ns=1, captured_utc_ns=1))
    until(lambda: marked(mark) == AHEAD, 20, "the mark")
    died.leave()
    with rings_of(prefix, tmp_path, mark) as rings:
        writer = rings.fit("main", SHAPE, slots)
        assert (writer.took_over, writer.next_frame_id) == (slots == 8, 42)
    assert marked(mark) == 42


def test_a_mark_that_frames_left_by_a_crash_cannot_have_made_is_gone_on_from(tmp_path):
    (tmp_path / "mark").write_text(str(43 + AHEAD))
    assert FrameIds(tmp_path / "mark").begin(42, exact=True) == 43 + AHEAD


def test_a_mark_that_is_read_too_slowly_is_gone_on_from_late_and_never_lowered(tmp_path, monkeypatch, caplog):
    path, card = tmp_path / "mark", threading.Event()
    path.write_text("5000")
    monkeypatch.setattr("capture.frame_ids.read_state", lambda path: card.wait(60) and read_state(path))
    monkeypatch.setattr("capture.frame_ids.JOIN_S", 0.05)
    ids = FrameIds(path)
    assert ids.begin(3, exact=False) == 3
    assert "until a slow disk has given" in caplog.text
    assert ids.advance_mark(4) == 4
    ids.end(5)
    assert path.read_text() == "5000", "nothing is written before the mark is read"
    card.set()
    until(lambda: ids.advance_mark(5) == 5000, 20, "the late mark")
    assert "frame ids go on at 5000, not at 5" in caplog.text
    until(lambda: marked(path) == 5000 + AHEAD, 20)
    monkeypatch.setattr("capture.frame_ids.JOIN_S", 20)
    ids.end(5006)
    assert marked(path) == 5006


def test_a_fifo_in_the_place_of_the_mark_is_not_waited_for_and_the_mark_is_kept_once_it_is_gone(tmp_path, monkeypatch):
    """The thread waited for a writer of the FIFO until the process ended, and no mark was kept any more."""
    monkeypatch.setattr("capture.frame_ids.RETRY_NS", 0)
    path = tmp_path / "mark"
    os.mkfifo(path)
    ids = FrameIds(path)
    assert ids.begin(3, exact=False) == 3
    until(lambda: not ids._is_busy, 5, "the FIFO was waited for")
    path.unlink()
    until(lambda: ids.advance_mark(4) == 4 and path.exists() and marked(path) == 4 + AHEAD, 20)


def test_a_disk_that_is_mounted_late_keeps_its_mark_and_is_gone_on_from(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("capture.frame_ids.RETRY_NS", 0)
    mark, disk = tmp_path / "library" / "mark", tmp_path / "disk"
    disk.mkdir()
    (disk / "mark").write_text("5000000")
    ids = FrameIds(mark)
    assert ids.begin(3, exact=False) == 3
    until(lambda: "after a power cut frame ids may come again" in caplog.text, 20)
    disk.rename(mark.parent)
    until(lambda: ids.advance_mark(4) == 5_000_000, 20, "the disk's mark")
    assert marked(mark) == 5_000_000 + AHEAD
    assert "frame ids go on at 5000000, not at 4" in caplog.text
    assert ids.advance_mark(5_000_001) == 5_000_001
    ids.end(5_000_002)
    assert marked(mark) == 5_000_002


@pytest.mark.parametrize("found", ["150000", "5000000"])
def test_a_disk_that_comes_over_the_folder_is_not_lowered_by_the_end(tmp_path, found):
    mark = tmp_path / "mark"
    ids = FrameIds(mark)
    ids.begin(3, exact=False)
    until(lambda: marked(mark) == 3 + AHEAD, 20)
    mark.write_text(found)
    ids.end(40)
    assert marked(mark) == int(found)


def test_a_mark_that_could_not_be_synced_is_still_our_own(tmp_path, monkeypatch):
    monkeypatch.setattr("capture.frame_ids.RETRY_NS", 0)
    synced, mark = [], tmp_path / "mark"

    def fails_once(_):
        synced.append(marked(mark))
        if len(synced) == 1:
            raise OSError(5, "as a worn card does")

    monkeypatch.setattr("capture.frame_ids.os.fsync", fails_once)
    ids = FrameIds(mark)
    ids.begin(3, exact=False)
    until(lambda: ids.advance_mark(7) == 7 and len(synced) >= 2, 20)
    ids.end(8)
    assert marked(mark) == 8
