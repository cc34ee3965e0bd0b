"""The opening ladder, forged and fuzzed headers: no crash, no read past the mapping, a sentence for every case."""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shm_ring import (
    FrameOverwritten,
    LiveRing,
    RingError,
    RingMismatch,
    RingNotReady,
    RingReader,
    RingWriter,
    layout,
    segment,
)
from shm_ring.formats import geometry
from shm_ring.layout import SEGMENT_HEADER, SLOT_HEADER_BYTES, offset_of
from tests.shm_ring.frames import REPOSITORY, meta, pattern

SHAPE = geometry("yuv420p", 33, 17)


ALONE = os.getuid() != 0 or Path("/proc/self/uid_map").read_text().split()[-1] == "1"
needs_root = pytest.mark.skipif(ALONE, reason="needs root, and more than one user, to become another user")


def patch(name: str, at: int, data: bytes) -> None:
    with Path(f"/dev/shm{name}").open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.fixture
def left_behind(make_writer, ring_name):
    """A ring with frames whose writer has gone."""
    writer = make_writer(payload_bytes=SHAPE.payload_bytes)
    for number in range(12):
        writer.publish(pattern(number, SHAPE.payload_bytes), meta(number), SHAPE)
    writer.close()
    return ring_name


def test_no_segment_is_not_ready(ring_name):
    with pytest.raises(RingNotReady, match="no such segment; is its writer running"):
        RingReader.open(ring_name)
    with pytest.raises(FileNotFoundError):  # it also is the builtin it resembles
        RingReader.open(ring_name)


@pytest.mark.parametrize("name", ["cam0", "/dev/shm/shmcam.cam0.main", "", "/", "/a\0b", "/" + "x" * 300])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(RingMismatch, match=r"no segment bears such a name; one looks like /shmcam\.cam0\.main"):
        RingReader.open(name)


@pytest.mark.parametrize("size", [0, 1, 4095])
def test_a_segment_too_short_is_being_made(ring_name, size):
    Path(f"/dev/shm{ring_name}").write_bytes(bytes(size))
    with pytest.raises(RingNotReady, match=f"segment of {size} bytes, it is just being made"):
        RingReader.open(ring_name)


def test_a_segment_without_magic_is_being_made(ring_name):
    Path(f"/dev/shm{ring_name}").write_bytes(bytes(100_000))
    with pytest.raises(RingNotReady, match="no magic yet"):
        RingReader.open(ring_name)


FORGED = [
    ("magic", b"\xff\xd8\xff\xe0", "magic 0xe0ffd8ff, expected 0x52474d53"),
    ("version", b"\x63\0\0\0", "layout version 99, this program reads 1"),
    ("slots", b"\0\0\0\0", "slots = 0: must be"),
    ("slots", b"\xff\xff\xff\xff", "slots = 4294967295: must be"),
    ("slots", b"\x09\0\0\0", "segment of .* bytes, expected"),
    ("payload_bytes", b"\0\0\0\0\0\0\0\x80", "payload_bytes = 9223372036854775808"),
    ("payload_bytes", bytes(8), "payload_bytes = 0"),
    ("slot_stride", b"\1" + bytes(7), "slot_stride = 1, expected"),
    ("payload_offset", b"\xff" * 8, "payload_offset = 18446744073709551615, expected"),
    ("header_bytes", bytes(4), "header_bytes = 0, expected 4096"),
    ("slot_header_bytes", bytes(4), "slot_header_bytes = 0"),
    ("state", b"\x09\0\0\0", "state = 9"),
    ("head", b"\x77\0\0\0", "head 119 and slot headers contradict"),
]


@pytest.mark.parametrize(("field", "data", "said"), FORGED)
def test_forged_headers_are_refused_with_the_reason(left_behind, field, data, said):
    patch(left_behind, offset_of(SEGMENT_HEADER, field), data)
    with pytest.raises(RingMismatch, match=said):
        RingReader.open(left_behind)


@pytest.mark.parametrize("change", [-1, 1, -4096, 4096])
def test_a_segment_of_another_length_than_its_header_says_is_refused(left_behind, change):
    path = Path(f"/dev/shm{left_behind}")
    os.truncate(path, path.stat().st_size + change)
    with pytest.raises(RingMismatch, match="segment of"):
        RingReader.open(left_behind)


@pytest.mark.parametrize(("field", "data"), [(field, data) for field, data, _ in FORGED])
def test_a_writer_replaces_a_damaged_segment(left_behind, make_writer, field, data):
    patch(left_behind, offset_of(SEGMENT_HEADER, field), data)
    with make_writer(payload_bytes=SHAPE.payload_bytes) as writer, RingReader.open(left_behind) as reader:
        assert not writer.took_over
        assert writer.next_frame_id == 12  # from the lock file
        writer.publish(b"new", meta(12))
        assert reader.copy(0).frame_id == 12


def test_readers_of_another_version_say_so_through_every_way_of_opening(left_behind):
    patch(left_behind, offset_of(SEGMENT_HEADER, "version"), b"\2\0\0\0")
    with LiveRing(left_behind) as ring, pytest.raises(RingMismatch, match="version 2, this program reads 1"):
        next(ring.sequences())


@pytest.mark.parametrize(("field", "data", "said"), FORGED)
def test_a_loop_that_waits_for_repair_says_so_once_and_reads_the_ring_that_replaces_it(
    left_behind, make_writer, caplog, field, data, said
):
    """Streamer, recorder and analyzer ended in FATAL, and with them the page and /healthz."""
    patch(left_behind, offset_of(SEGMENT_HEADER, field), data)
    with LiveRing(left_behind, waits_for_repair=True) as ring:
        frames = ring.sequences(idle_s=0.05, newest_first=True)
        assert [next(frames) for _ in range(3)] == [None, None, None]
        assert re.search(said, ring.problem) and caplog.text.count("ring cannot be read") == 1
        with make_writer(payload_bytes=SHAPE.payload_bytes) as writer:
            assert next(frames) is None  # it is open now, and begins with what comes
            writer.publish(b"new", meta(12))
            reader, sequence = next(item for item in itertools.islice(frames, 100) if item is not None)
            assert reader.copy(sequence).frame_id == 12 and not ring.problem


def test_a_damaged_slot_costs_that_frame_only(left_behind):
    patch(left_behind, 4096 + 3 * SLOT_HEADER_BYTES + layout.GEOMETRY_OFFSET, b"mp4\0" + bytes(12))
    with RingReader.open(left_behind) as reader:
        with pytest.raises(FrameOverwritten, match="pixel format 'mp4'"):  # what every loop passes over
            reader.copy(11)
        assert reader.copy(10).frame_id == 10


def use_everything(name: str) -> None:
    """Do all a reader can do; only errors of our own may come out."""
    try:
        with RingReader.open(name) as reader:
            for ask in (reader.latest, lambda: reader.last(3), lambda: reader.last_seconds(1)):
                ask()
            _ = reader.writer_age_s, reader.writer_alive, reader.retired, reader.camera
            for sequence in (*reader.last(reader.slots), 0, reader.head):
                try:
                    with reader.borrow(sequence) as frame:
                        _ = frame.meta, frame.geometry, bytes(frame.payload), [p.sum() for p in frame.planes], frame.bgr
                except RingError:
                    continue
    except RingError:
        return


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_headers_never_crash_a_reader(left_behind, seed):
    """Bytes of the segment header and of slot headers at random, also plausible ones; then every method."""
    whole = Path(f"/dev/shm{left_behind}").read_bytes()
    end = 4096 + 8 * SLOT_HEADER_BYTES
    source = random.Random(seed)
    interesting = [0, 1, 0x7F, 0x80, 0xFF, 8, 32]
    for _ in range(300):
        for _ in range(source.randint(1, 6)):
            table = source.random() < 0.6
            at = source.randrange(4096, end) if table else source.randrange(0, 256)
            width = source.choice([1, 2, 4, 8])
            value = source.choice(interesting) if source.random() < 0.5 else source.randrange(256)
            patch(left_behind, at, bytes([value] * width))
        use_everything(left_behind)
        patch(left_behind, 0, whole[:end])
    with RingReader.open(left_behind) as reader:
        assert reader.copy(11).frame_id == 11  # the positive twin: undamaged it reads


def test_impossible_geometries_in_a_slot_header_are_refused(left_behind):
    start = 4096 + 3 * SLOT_HEADER_BYTES + layout.GEOMETRY_OFFSET  # sequence 11 lies in slot 3
    width, strides = start + 16, start + 56
    for at, data, said in (
        (start, b"mp4\0" + bytes(12), "pixel format 'mp4'"),
        (width, b"\xff\xff\xff\xff", "frame size 4294967295x17"),
        (width, b"\0\x10\0\0", "strides .* needs at least"),
        (strides, b"\xff\xff\xff\x0f", "planes of .* bytes in a payload of"),
        (start + 24, b"\xff" * 8, "planes of .* bytes in a payload of"),
    ):
        with Path(f"/dev/shm{left_behind}").open("rb") as file:
            file.seek(at)
            before = file.read(len(data))
        patch(left_behind, at, data)
        with RingReader.open(left_behind) as reader, pytest.raises(RingMismatch, match=said):
            reader.copy(11).planes  # noqa: B018
        patch(left_behind, at, before)


@needs_root
def test_another_users_segment_names_its_owner(left_behind):
    code = (
        "import os\nfrom shm_ring import RingReader\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"RingReader.open({left_behind!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "RingMismatch" in done.stderr
    assert "no permission; it belongs to root, mode 0640" in done.stderr


@needs_root
def test_a_writer_cannot_replace_another_users_segment(left_behind, tmp_path):
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    code = (
        "import os\nfrom pathlib import Path\nfrom shm_ring import RingWriter\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"RingWriter.create({left_behind!r}, slots=4, payload_bytes=9, lock_dir=Path({str(tmp_path)!r}) / 'other', "
        f"camera='cam0', stream='main')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "belongs to root, mode 0640" in done.stderr
    assert Path(f"/dev/shm{left_behind}").exists()


def test_the_segment_is_readable_by_the_group_and_written_by_nobody_else(make_writer, ring_name):
    old = os.umask(0o077)
    try:
        with make_writer():
            assert Path(f"/dev/shm{ring_name}").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_a_symbolic_link_under_the_name_is_not_followed(ring_name, tmp_path, make_writer):
    target = tmp_path / "target"
    target.write_bytes(bytes(4096))
    Path(f"/dev/shm{ring_name}").symlink_to(target)
    for open_it in (lambda: RingReader.open(ring_name), make_writer):
        with pytest.raises(RingMismatch, match=r"cannot be opened: .*symbolic links"):
            open_it()
    assert target.read_bytes() == bytes(4096)


def test_bad_sizes_are_refused_before_anything_is_made(ring_name, tmp_path):
    for slots, size in ((1, 100), (70_000, 1), (4, 0)):
        with pytest.raises(ValueError, match="must be"):
            RingWriter.create(
                ring_name, slots=slots, payload_bytes=size, lock_dir=tmp_path, camera="cam0", stream="main"
            )
    with pytest.raises(RingNotReady):
        segment.open_segment(ring_name)
