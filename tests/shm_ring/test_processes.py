"""What only real processes show: memory protection, nothing left behind, dead readers, a full /dev/shm."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shm_ring import FrameOverwritten, LiveRing, RingMismatch, RingReader, RingTooLarge, segment
from shm_ring.layout import MAX_SLOTS, RingShape
from shm_ring.machine.available_memory import MemoryRoom
from tests.shm_ring.frames import REPOSITORY, is_torn, meta, pattern, start_writer


def run(code: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-X", "faulthandler", "-c", code]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False, **options)


def test_a_reader_that_writes_is_killed_and_the_ring_is_untouched(make_writer, ring_name):
    """Not only numpy says no: the page tables do."""
    with make_writer() as writer:
        writer.publish(pattern(1, 400), meta(1))
        code = (
            f"import ctypes\nfrom shm_ring import RingReader\nreader = RingReader.open({ring_name!r})\n"
            "address = reader.borrow(0).payload.ctypes.data\n"
            "print('reading works', ctypes.c_uint8.from_address(address).value, flush=True)\n"
            "ctypes.memset(address, 255, 1)\nprint('wrote!')"
        )
        done = run(code)
        assert "reading works" in done.stdout
        assert "wrote!" not in done.stdout
        assert done.returncode == -signal.SIGSEGV
        with RingReader.open(ring_name) as reader:
            assert (reader.copy(0).payload == pattern(1, 400)).all()


def test_a_reader_cannot_map_the_segment_writable(make_writer, ring_name):
    with make_writer() as writer:
        writer.publish(b"x", meta(0))
        code = (
            f"import mmap\nfrom shm_ring import segment\nfd = segment.open_segment({ring_name!r})\n"
            "mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)"
        )
        assert "PermissionError" in run(code).stderr


def test_readers_may_come_die_and_leave_without_unlinking_anything(make_writer, ring_name):
    """multiprocessing.shared_memory would unlink the segment here."""
    with make_writer() as writer:
        writer.publish(b"here", meta(0))
        for end in ("pass", "import os; os._exit(1)", "import os; os.kill(os.getpid(), 9)", "raise SystemExit(3)"):
            run(f"from shm_ring import RingReader\nreader = RingReader.open({ring_name!r})\n{end}")
            assert Path(f"/dev/shm{ring_name}").exists()
        with RingReader.open(ring_name) as reader:
            assert reader.copy(0).payload.tobytes() == b"here"


def test_kill_9_of_a_reader_stalls_nobody(make_writer, ring_name):
    """20 of 20: killed asleep, or in the middle of a borrow."""
    code = (
        f"from shm_ring import RingReader\nreader = RingReader.open({ring_name!r})\n"
        "frame = reader.borrow(reader.latest())\n"
        "print('in', flush=True)\nwhile True:\n  reader.wait(10**9, 60)"
    )
    with make_writer() as writer, RingReader.open(ring_name) as other:
        writer.publish(b"", meta(0))
        for _ in range(20 // 4):
            readers = [
                subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE) for _ in range(4)
            ]
            for reader in readers:
                assert reader.stdout.readline() == b"in\n"
            for reader in readers:
                reader.kill()
                writer.publish(b"", meta(writer.next_frame_id))
                assert other.wait(writer.head - 1, 5)
                assert other.copy(writer.head - 1).frame_id == writer.next_frame_id - 1
            for reader in readers:
                reader.wait()


def test_wake_up_reaches_a_reader_in_another_process_and_a_signal_ends_its_sleep(make_writer, ring_name):
    code = (
        f"import os, signal\nfrom shm_ring import RingReader\nreader = RingReader.open({ring_name!r})\n"
        "def stop(*_): os.write(1, b'handler\\n')\nsignal.signal(signal.SIGTERM, stop)\nprint('in', flush=True)\n"
        "print(any(reader.wait(0, 60) for _ in range(9)), flush=True)\nprint(reader.wait(5, 60), flush=True)"
    )
    with make_writer() as writer:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "in\n"
        writer.publish(b"", meta(0))
        assert process.stdout.readline() == "True\n"
        process.terminate()
        assert process.stdout.readline() == "handler\n"
        assert process.stdout.readline() == "False\n"  # at once, not after a minute: the test's timeout watches
        process.wait(60)


def test_a_clean_end_leaves_nothing_and_a_killed_one_leaves_the_black_box(ring_name, tmp_path):
    path = Path(f"/dev/shm{ring_name}")
    clean = (
        "from pathlib import Path\nfrom shm_ring import RingWriter\n"
        f"with RingWriter.create({ring_name!r}, slots=4, payload_bytes=99, lock_dir=Path({str(tmp_path)!r}), "
        "camera='c', stream='s'):\n"
        f"  assert Path({str(path)!r}).exists()"
    )
    assert run(clean).returncode == 0
    assert not path.exists()
    process = start_writer(ring_name, tmp_path, size=400)
    process.kill()
    process.wait()
    assert path.exists()


def test_readers_meet_a_restarted_writer_of_another_size(ring_name, tmp_path):
    with LiveRing(ring_name) as ring:
        for size in (4000, 8000, 4000):
            process = start_writer(ring_name, tmp_path, size=size, pause_s=0.001)
            good = 0
            for found in ring.sequences(idle_s=0.05):
                if found is None:
                    continue
                reader, sequence = found
                try:
                    frame = reader.copy(sequence)
                except FrameOverwritten:
                    continue
                assert not is_torn(frame.payload, frame.frame_id)
                good += frame.payload.size == size
                if good > 20:
                    break
            process.kill()
            process.wait()


def test_a_ring_cut_short_kills_who_looks_at_it_and_is_replaced(make_writer, ring_name):
    """Only its owner can do that; docs/ring.md says what happens then."""
    writer = make_writer(slots=4, payload_bytes=1 << 16)
    writer.publish(pattern(0, 1 << 16), meta(0))
    writer.close()
    code = (
        f"import os\nfrom shm_ring import RingReader\nreader = RingReader.open({ring_name!r})\n"
        f"os.truncate('/dev/shm{ring_name}', 8192)\nprint('cut', flush=True)\nreader.copy(0)\nprint('read!')"
    )
    done = run(code)
    assert done.stdout == "cut\n"
    assert done.returncode == -signal.SIGBUS
    with pytest.raises(RingMismatch, match="segment of 8192 bytes, expected"):
        RingReader.open(ring_name)
    with make_writer(slots=4, payload_bytes=1 << 16) as second, RingReader.open(ring_name) as reader:
        assert not second.took_over
        second.publish(pattern(1, 1 << 16), meta(second.next_frame_id))
        assert reader.copy(0).frame_id == 1


def test_the_sum_is_written_out_and_the_refusal_suggests_slots():
    room = MemoryRoom(memory_bytes=100_000_000, shm_bytes=64_000_000)
    shape = RingShape(300, 3_110_400)
    assert segment.memory_account(shape, room) == (
        "300 slots of 3.110 MB need 934.0 MB; /dev/shm has 64.0 MB free, memory 100.0 MB available "
        "(of which 80% may be used)"
    )
    with pytest.raises(RingTooLarge, match=r"ring /x: .*; try slots = 20$"):
        segment.check_fits("/x", shape, room)
    assert RingShape(20, 3_110_400).total_bytes <= 64_000_000 < RingShape(21, 3_110_400).total_bytes
    with pytest.raises(RingTooLarge, match="not even 2 slots fit"):
        segment.check_fits("/x", RingShape(300, 60_000_000), room)
    with pytest.raises(MemoryError):
        segment.check_fits("/x", shape, room)
    assert segment.check_fits("/x", RingShape(20, 3_110_400), room).startswith("20 slots")


def test_memory_counts_even_where_dev_shm_is_large():
    room = MemoryRoom(memory_bytes=50_000_000, shm_bytes=10**12)
    assert segment.fitting_slots(RingShape(300, 3_110_400), room) == 12
    room = MemoryRoom(memory_bytes=10**12, shm_bytes=10**12)
    assert segment.fitting_slots(RingShape(400_000, 4096), room) == MAX_SLOTS, "the most that a segment can have"


def test_a_ring_larger_than_this_machine_is_refused_before_anything_is_reserved(make_writer, ring_name):
    with pytest.raises(RingTooLarge, match=r"try slots = |not even 2 slots fit"):
        make_writer(slots=65536, payload_bytes=12_000_000)
    assert not Path(f"/dev/shm{ring_name}").exists()


SMALL_SHM = """
set -e
mount -t tmpfs -o size=8m tmpfs /dev/shm
exec {python} -c "
from pathlib import Path
from shm_ring import FrameMeta, RingReader, RingTooLarge, RingWriter, segment
def create(slots, size=1000000):
    return RingWriter.create(
        '/x.cam0.main', slots=slots, payload_bytes=size, lock_dir=Path('{folder}'), camera='cam0', stream='main')
try:
    create(20)
except RingTooLarge as error:
    print('refused:', error)
segment.available_room = lambda: segment.MemoryRoom(10**12, 10**12) if not list(Path('/dev/shm').iterdir()) else seen()
seen = lambda: segment.MemoryRoom(10**12, 8 << 20)
try:
    create(20)
except RingTooLarge as error:
    print('raced:', error)
print('left:', list(Path('/dev/shm').iterdir()))
writer = create(6)
print('fits', writer.account)
writer.close()
with create(5, 1200000) as writer, RingReader.open(writer.name) as reader:
    print('replaced', writer.account)
    try:
        Path('/dev/shm/others').write_bytes(bytes(16 << 20))
    except OSError as error:
        print('full:', error.strerror)
    for number in range(10):
        writer.publish(bytes(1200000), FrameMeta(number, number, number))
    print('read', len(reader.copy(9).payload))
"
"""


def test_a_dev_shm_that_is_too_small_gives_a_sentence_instead_of_a_bus_error(tmp_path):
    script = SMALL_SHM.format(python=sys.executable, folder=tmp_path)
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    refused, raced, left, fits, replaced, full, read = done.stdout.splitlines()
    assert "20 slots of 1.000 MB need 20.1 MB; /dev/shm has 8.4 MB free" in refused
    assert refused.endswith("try slots = 8")
    assert "need 20.1 MB" in raced, "posix_fallocate must find what the look missed"
    assert "try slots" in raced
    assert left == "left: []"
    assert fits.startswith("fits 6 slots")
    assert replaced.startswith("replaced 5 slots of 1.200 MB"), "the old ring's memory must be free for the new one"
    assert (full, read) == ("full: No space left on device", "read 1200000"), "filled by others: no effect"
