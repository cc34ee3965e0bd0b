"""One writer at a time; what a dead one leaves is carried on, replaced, or kept as a black box."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shm_ring import FrameOverwritten, RingBusy, RingNotReady, RingReader, RingWriter, layout, segment
from shm_ring.layout import FRAME_STRUCT, SEGMENT_HEADER, RingShape, offset_of
from shm_ring.ownership import discard
from tests.shm_ring.frames import REPOSITORY, is_torn, meta, pattern, start_writer

HEAD = offset_of(SEGMENT_HEADER, "head")


def test_a_second_writer_is_refused_with_the_pid_of_the_first(make_writer):
    with make_writer() as first:
        with pytest.raises(RingBusy, match=f"pid {os.getpid()} is writing it already"):
            make_writer()
        first.publish(b"still mine", meta(0))
    make_writer().retire()


def test_a_second_writer_in_another_process_is_refused_even_with_another_lock_folder(ring_name, tmp_path, make_writer):
    process = start_writer(ring_name, tmp_path / "elsewhere", pause_s=0.01)
    try:
        with pytest.raises(RingBusy, match=f"pid {process.pid} is writing it already"):
            make_writer()
        with RingReader.open(ring_name) as reader:
            position = reader.head + 3
            assert any(reader.wait(position, 1) for _ in range(10))  # the first writer noticed nothing
    finally:
        process.kill()
        process.wait()


def test_six_writers_at_once_leave_one(ring_name, tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom shm_ring import RingBusy, RingWriter\n"
        f"try:\n  w = RingWriter.create({ring_name!r}, slots=4, payload_bytes=99, lock_dir=Path({str(tmp_path)!r}), "
        "camera='c', stream='s')\n"
        "except RingBusy as e:\n  print('busy'); sys.exit()\n"
        "print('mine', flush=True); sys.stdin.read()"
    )
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    answers = [process.stdout.readline().strip() for process in crowd]
    for process in crowd:
        process.stdin.close()
        process.wait(30)
    assert sorted(answers) == ["busy"] * 5 + ["mine"]


def test_the_same_geometry_is_taken_over_with_its_frames_and_its_readers(make_writer, ring_name):
    first = make_writer()
    for number in range(10):
        first.publish(pattern(number, 400), meta(number))
    with RingReader.open(ring_name) as reader:
        first.close()
        assert not reader.writer_alive
        assert not reader.retired
        with make_writer() as second:
            assert second.took_over and second.knows_next_id
            assert (second.head, second.next_frame_id, second.generation) == (10, 10, first.generation)
            assert reader.writer_pid == os.getpid()
            assert reader.takeovers == 1
            assert (reader.copy(5).payload == pattern(5, 400)).all()
            second.publish(pattern(10, 400), meta(second.next_frame_id))
            assert reader.wait(10, 1)
            assert reader.copy(10).frame_id == 10
        assert reader.retired


def test_another_geometry_retires_the_old_ring_and_frame_ids_go_on(make_writer, ring_name):
    first = make_writer(slots=4, payload_bytes=100)
    for number in range(3):
        first.publish(pattern(number, 100), meta(number))
    with RingReader.open(ring_name) as old:
        first.close()
        with make_writer(slots=4, payload_bytes=200) as second:
            assert second.knows_next_id and not second.took_over
            assert (second.head, second.next_frame_id, second.generation) == (0, 3, first.generation + 1)
            assert old.retired
            assert (old.copy(2).payload == pattern(2, 100)).all()  # who has it open finishes with it
            with RingReader.open(ring_name) as new:
                assert new.generation == second.generation
                assert not new.retired


def test_frame_ids_and_generations_go_on_after_a_clean_end(make_writer, ring_name):
    with make_writer() as first:
        first.publish(b"", meta(41))
    with pytest.raises(RingNotReady):
        RingReader.open(ring_name)
    with make_writer() as second:
        assert (second.next_frame_id, second.generation) == (42, first.generation + 1)
        assert not second.knows_next_id, "told by the lock file"
        second.close()
    with make_writer() as third:
        assert third.took_over and not third.knows_next_id, "no frame is there to tell"


def test_a_writer_that_lost_its_name_leaves_the_ring_alone_that_bears_it_now(make_writer, ring_name, tmp_path):
    first = make_writer()
    segment.unlink(ring_name)
    assert not first.named
    with RingWriter.create(
        ring_name, slots=4, payload_bytes=9, lock_dir=tmp_path / "other", camera="cam0", stream="main"
    ) as second:
        first.retire()
        assert second.named


def test_a_writer_notices_that_another_program_wrote_into_its_header(make_writer, ring_name):
    """Readers refuse such a ring; capture went on writing for ever, and nobody saw a frame or a word in any log."""
    with make_writer() as writer:
        writer.publish(b"x" * 10, meta(1))
        writer.heartbeat()
        assert writer.intact
        constant = [name for name in SEGMENT_HEADER.names if name not in ("head", "pad_head", "heartbeat_ms")]
        for name in constant:
            at = SEGMENT_HEADER.fields[name][1]
            path = Path("/dev/shm") / ring_name.lstrip("/")
            with path.open("r+b", buffering=0) as file:
                file.seek(at)
                before = file.read(1)
                file.seek(at)
                file.write(bytes([before[0] ^ 0xFF]))
                assert not writer.intact, name
                file.seek(at)
                file.write(before)
            assert writer.intact, name


@pytest.mark.parametrize("field", [name for name in SEGMENT_HEADER.names if not name.startswith("pad")])
def test_a_writer_comes_up_whatever_stands_in_the_header_of_a_dead_one(make_writer, ring_name, field):
    at, size = SEGMENT_HEADER.fields[field][1], SEGMENT_HEADER[field].itemsize
    for value in (b"\0" * size, b"\xff" * size, os.urandom(size), b"\x7f" * size, (1).to_bytes(size, "little")):
        first = make_writer()
        first.publish(b"whole", meta(41))
        first.close()
        with (Path("/dev/shm") / ring_name.lstrip("/")).open("r+b") as file:
            file.seek(at)
            file.write(value)
        with make_writer() as second:
            second.publish(b"again", meta(second.next_frame_id))
            with RingReader.open(ring_name) as reader:
                assert bytes(reader.copy(reader.head - 1).payload) == b"again", (field, value)
            assert second.next_frame_id > 42, (field, value)


def test_an_error_in_the_writer_leaves_the_ring_as_a_black_box(make_writer, ring_name):
    with pytest.raises(ZeroDivisionError), make_writer() as writer:
        writer.publish(b"last words", meta(0))
        raise ZeroDivisionError
    with RingReader.open(ring_name) as reader:
        assert reader.copy(0).payload.tobytes() == b"last words"
        assert (reader.writer_pid, reader.writer_alive) == (0, False)


@pytest.mark.parametrize("signal_like", [SystemExit, KeyboardInterrupt])
def test_a_wanted_end_leaves_nothing(make_writer, ring_name, signal_like):
    with pytest.raises(signal_like), make_writer():
        raise signal_like
    with pytest.raises(RingNotReady):
        RingReader.open(ring_name)


@pytest.mark.parametrize("dies_after", ["W1 odd", "W2 half the payload", "W2 metadata", "W3 even", "W4 head"])
def test_a_writer_that_dies_after_any_step_leaves_a_ring_that_goes_on(make_writer, ring_name, dies_after):
    """The steps of layout.py, done by hand on the bytes up to the point of death."""
    shape = RingShape(4, 400)
    first = make_writer(slots=4, payload_bytes=400)
    for number in range(6):
        first.publish(pattern(number, 400), meta(number))
    raw, slot = first._bytes, 6 % 4
    start = shape.slot_header(slot)
    steps = ["W1 odd", "W2 half the payload", "W2 metadata", "W3 even", "W4 head"]
    reached = steps.index(dies_after)
    raw[start : start + 4] = np.uint32(13).tobytes()
    if reached >= 1:
        raw[shape.payload(slot) : shape.payload(slot) + 200] = pattern(6, 200).tobytes()
    if reached >= 2:
        raw[shape.payload(slot) : shape.payload(slot) + 400] = pattern(6, 400).tobytes()
        values = (6, 6, 60, 60, 1, 400, 1.0, 1.0, 1.0, 0, 0, 0, 0, 0, 0, 0)
        FRAME_STRUCT.pack_into(raw, start + layout.FRAME_OFFSET, *values)
    if reached >= 3:
        raw[start : start + 4] = np.uint32(14).tobytes()
    if reached >= 4:
        raw[HEAD : HEAD + 4] = np.uint32(7).tobytes()
    del raw
    with RingReader.open(ring_name) as reader:
        whole = reached >= 3
        first.close()
        with make_writer(slots=4, payload_bytes=400) as second:
            assert second.took_over
            assert second.head == second.next_frame_id == (7 if whole else 6)
            with pytest.raises(FrameOverwritten):
                reader.copy(2)  # its slot was taken by frame 6
            for sequence in range(3, second.head):
                assert (reader.copy(sequence).payload == pattern(sequence, 400)).all()
            second.publish(pattern(second.head, 400), meta(second.next_frame_id))
            newest = second.head - 1
            assert (reader.copy(newest).payload == pattern(newest, 400)).all()


def test_kill_9_of_the_writer_again_and_again(ring_name, tmp_path):
    """No torn frame, ids never go back, the ring is carried on each time, and nobody has to help."""
    kills, reads, newest_id = 8, 0, -1
    reader = None
    odd_left = 0
    for turn in range(kills):
        process = start_writer(ring_name, tmp_path, slots=4, size=1 << 20)
        reader = reader or RingReader.open(ring_name)
        until_s = time.monotonic() + 0.05 + 0.01 * turn
        while time.monotonic() < until_s:
            sequence = reader.latest()
            if sequence is None:
                continue
            try:
                with reader.borrow(sequence) as frame:
                    torn, number = is_torn(frame.payload, frame.frame_id), frame.frame_id
            except FrameOverwritten:
                continue
            assert not torn
            assert number >= newest_id
            newest_id, reads = number, reads + 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        word = reader._words[(4096 + reader.head % 4 * 256) // 4]
        odd_left += word % 2
        assert not reader.writer_alive
        assert not reader.retired
    assert reads > 0
    assert reader.takeovers == kills - 1
    reader.close()


def test_a_reused_pid_is_not_the_writer(make_writer, ring_name):
    writer = make_writer()
    start = offset_of(SEGMENT_HEADER, "writer_start")
    with RingReader.open(ring_name) as reader:
        assert reader.writer_alive
        with Path(f"/dev/shm{ring_name}").open("r+b") as file:
            file.seek(start)
            file.write(bytes(8))
            file.seek(offset_of(SEGMENT_HEADER, "heartbeat_ms"))
            file.write(bytes(4))
        assert not reader.writer_alive
    writer.retire()


def test_a_writer_in_another_container_is_known_by_its_heartbeat(make_writer, ring_name):
    """Its pid means nothing here; two containers may share /dev/shm and have lock folders of their own."""
    make_writer().close()
    now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    for age_ms, busy in ((100, True), (60_000, False)):
        with Path(f"/dev/shm{ring_name}").open("r+b") as file:
            for field, value in (
                ("heartbeat_ms", np.uint32((now_ms - age_ms) & 0xFFFFFFFF)),
                ("writer_pid", np.uint32(7)),
                ("writer_pid_space", np.uint64(1)),
            ):
                file.seek(offset_of(SEGMENT_HEADER, field))
                file.write(value.tobytes())
        with RingReader.open(ring_name) as reader:
            assert reader.writer_alive == busy
        if busy:
            with pytest.raises(RingBusy, match="pid 7 is writing it already"):
                make_writer()
    make_writer().retire()


def test_a_heartbeat_keeps_a_writer_without_frames_alive(make_writer, ring_name):
    with make_writer() as writer, RingReader.open(ring_name) as reader:
        writer.heartbeat()
        assert reader.writer_age_s < 5
        writer.publish(b"", meta(0))
        assert reader.writer_age_s < 5


def test_a_lock_file_with_nonsense_in_it_does_not_matter(make_writer, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cam0.main.lock").write_bytes(b"\xff\xfe nonsense" * 100)
    with make_writer() as writer:
        assert writer.next_frame_id == 0
    assert isinstance(writer, RingWriter)


def test_a_ring_that_a_killed_writer_left_can_be_thrown_away_but_not_a_living_ones(make_writer, ring_name, tmp_path):
    writer = make_writer()
    place = (tmp_path / "run", "cam0", "main")
    assert not discard(ring_name, *place), "its writer lives"
    generation = writer.generation
    writer.close()
    reader = RingReader.open(ring_name)
    assert discard(ring_name, *place) and reader.retired and segment.inode_of(ring_name) == 0
    assert not discard(ring_name, *place), "there is none any more"
    assert make_writer().generation == generation + 1, "generations go on"
