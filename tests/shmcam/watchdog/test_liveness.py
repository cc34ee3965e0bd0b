"""What the watchdog reads of a process without the hub."""

import os
import subprocess
import sys

import pytest

from shm_ring import FrameMeta, RingWriter, layout
from shmcam.config.settings import Settings
from shmcam.runtime.supervisord import Program
from shmcam.watchdog import liveness
from shmcam.watchdog.liveness import read_ring_signs, read_signs


def test_the_places_are_those_of_the_contract():
    signs, header = liveness, layout.SEGMENT_HEADER
    assert (signs.MAGIC, signs.VERSION, signs.LIVE) == (layout.MAGIC, layout.VERSION, layout.LIVE)
    names = ("magic", "version", "header_bytes", "slot_header_bytes", "slots", "state", "head", "heartbeat_ms")
    for number, name in enumerate((*names, "writer_pid")):
        bytes_ = bytearray(header.itemsize)
        at = layout.offset_of(header, name)
        bytes_[at : at + 4] = (4711).to_bytes(4, sys.byteorder)
        assert signs.HEADER.unpack_from(bytes_)[number] == 4711, name


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "config.toml").write_text(f'[ring]\nprefix = "t{os.getpid()}"\n[cameras.front]\n[cameras.back]\n')
    return Settings.load(tmp_path / "config.toml")


@pytest.fixture
def ring(settings, tmp_path):
    name = settings.ring_name("back")
    writer = RingWriter.create(name, slots=2, payload_bytes=64, lock_dir=tmp_path, camera="back", stream="main")
    with writer:
        yield writer


def program(name, pid):
    return Program(name, name, "RUNNING", pid, 0.0, 0, "")


def test_a_frame_and_a_heartbeat_move_the_ring_of_its_writer_only(settings, ring):
    ours = program("capture-back", os.getpid())

    def seen():
        return read_signs([ours], settings)["capture-back"].ring

    first = seen()
    assert first is not None and seen() == first, "it stands still"
    while ring.heartbeat() or seen() == first:
        pass
    second = seen()
    with ring.slot() as slot:
        slot.meta = FrameMeta(frame_id=1, captured_ns=1, captured_utc_ns=1)
    assert seen() not in {first, second}
    others = [program(name, os.getpid()) for name in ("capture", "capture-front", "analyzer-back")]
    others.append(program("capture-back", os.getppid()))
    for other in others:
        assert read_signs([other], settings)[other.name].ring is None, other
    ring.retire()
    assert seen() is None


def test_what_is_no_ring_of_this_user_is_no_sign(settings, ring, tmp_path):
    path = liveness.SHM_FOLDER / settings.ring_name("back")[1:]
    whole = path.read_bytes()[:4096]
    copy = tmp_path / "copy"
    for damaged, expected in ((whole, True), (whole[:100], False), (b"", False), (b"\0" * 4096, False)):
        copy.write_bytes(damaged)
        assert (read_ring_signs(copy, os.getpid()) is not None) == expected
    copy.write_bytes(whole)
    if os.geteuid() == 0:
        os.chown(copy, 65534, 65534)
        assert read_ring_signs(copy, os.getpid()) is None
    copy.unlink()
    os.mkfifo(copy)
    assert read_ring_signs(copy, os.getpid()) is None
    assert read_ring_signs(tmp_path / "none", os.getpid()) is None


def test_the_age_of_a_process_is_that_of_the_kernel(settings):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        signs = read_signs(
            [program("young", child.pid), program("old", os.getpid()), program("gone", 2**22 + 1), program("none", 0)],
            settings,
        )
    finally:
        child.communicate(b"\n")
    assert signs.keys() == {"young", "old", "gone"}
    assert 0 <= signs["young"].age_s < signs["old"].age_s
    assert signs["gone"].age_s == 0
