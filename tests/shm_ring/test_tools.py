"""top, dump-ring and `python -m shm_ring`, as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from shm_ring import RingReader, RingWriter
from shm_ring.formats import geometry
from shm_ring.layout import GEOMETRY_OFFSET, PAGE_BYTES, SEGMENT_HEADER, offset_of
from shm_ring.tools import dump_ring, top
from tests.shm_ring.frames import REPOSITORY, meta, pattern, start_writer

SHAPE = geometry("gray", 64, 48)


def run(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "shm_ring", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def watched(ring_name, tmp_path):
    """A ring at about 100 fps, with one reader process."""
    writer = start_writer(ring_name, tmp_path / "run", size=4000, pause_s=0.01)
    code = (
        f"from shm_ring import RingReader\nreader = RingReader.open({ring_name!r})\nprint(flush=True)\n"
        "while True: reader.wait(10**9, 1)"
    )
    reader = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE)
    reader.stdout.readline()
    yield writer, reader
    for process in (writer, reader):
        process.kill()
        process.wait()


def test_top_shows_the_ring_its_writer_and_its_readers(prefix, ring_name, watched):
    writer, reader = watched
    done = run("top", "--once", "--json", "--prefix", prefix, "--interval", "0.5")
    (ring,) = json.loads(done.stdout)
    assert (ring["name"], ring["state"], ring["slots"], ring["writer_pid"]) == (ring_name, "live", 4, writer.pid)
    assert 1 < ring["fps"] < 200
    assert ring["writer_age_s"] < 5
    people = {user["pid"]: user for user in ring["readers"]}
    assert people.keys() == {writer.pid, reader.pid}
    assert (people[writer.pid]["writable"], people[reader.pid]["writable"]) == (True, False)
    assert people[reader.pid]["rss_mb"] > 1
    shown = run("top", "--once", "--prefix", prefix, "--interval", "0.1").stdout
    assert ring_name in shown
    assert f"pid {reader.pid}" in shown
    assert "WRITABLE" not in shown


def test_top_adds_what_processes_say_of_themselves(prefix, ring_name, watched, capsys):
    writer, reader = watched
    told = {reader.pid: {"lag": 2, "laps": 7}}
    assert top.main(["--once", "--json", "--prefix", prefix, "--interval", "0.1"], lambda: told) == 0
    (ring,) = json.loads(capsys.readouterr().out)
    assert {(user["pid"], user["lag"], user["laps"]) for user in ring["readers"]} >= {
        (reader.pid, 2, 7),
        (writer.pid, None, None),
    }


def test_top_shows_the_same_load_of_a_process_that_reads_two_rings(make_writer, ring_name, prefix, tmp_path):
    other = f"/{prefix}.cam1.main"
    with RingWriter.create(
        other, slots=4, payload_bytes=64, lock_dir=tmp_path / "run", camera="cam1", stream="main"
    ), make_writer():  # fmt: skip
        code = (
            "from shm_ring import RingReader\n"
            f"both = RingReader.open({ring_name!r}), RingReader.open({other!r})\nprint(flush=True)\nwhile True: pass"
        )
        with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
            try:
                process.stdout.readline()
                watch, loads, deadline_s = top.RingTop(prefix), [0.0], time.monotonic() + 30
                while not all(loads):
                    assert time.monotonic() < deadline_s, loads
                    time.sleep(0.1)
                    readers = [user for ring in watch.measure() for user in ring.readers]
                    loads = [user.cpu_percent for user in readers if user.pid == process.pid]
            finally:
                process.kill()
        assert len(loads) == 2 and loads[0] == loads[1]


def test_top_tells_drops_and_how_late_in_time_a_reader_is(make_writer, ring_name, prefix, capsys):
    with make_writer() as writer:
        for number in range(6):
            writer.publish(b"", meta(number, total_dropped=2 * number))
        told = {os.getpid(): {"lag": 3}}
        for words in (["--json"], []):
            assert top.main(["--once", "--prefix", prefix, "--interval", "0.1", *words], lambda: told) == 0
        as_json, *table = capsys.readouterr().out.splitlines()
        (ring,) = json.loads(as_json)
        assert ring["drops"] == 10
        assert [user["lag_ms"] for user in ring["readers"]] == [30.0]
        assert table[0].split()[-1] == "DROPS"
        assert table[1].split()[-1] == "10"
        assert "lag 3 (30.0 ms)" in table[2]
        with RingReader.open(ring_name) as reader:
            assert top.lag_ms_of(reader, 100) is None, "longer than the ring"


def test_top_without_rings_says_what_to_do(prefix):
    assert "is capture running?" in run("top", "--once", "--prefix", prefix, "--interval", "0.1").stdout


def test_a_ring_left_behind_is_listed_and_described(make_writer, ring_name):
    writer = make_writer(payload_bytes=SHAPE.payload_bytes)
    for number in range(3):
        writer.publish(pattern(number, SHAPE.payload_bytes), meta(number, exposure_us=8000), SHAPE)
    writer.close()
    assert f"{ring_name}: live, generation" in run().stdout
    shown = run(ring_name).stdout
    assert "writer pid 0 (dead)" in shown
    assert "8 slots of 3072 bytes, stride 4096" in shown
    assert shown.count("gray 64x48") == 3
    assert "left behind" in run("top", "--once", "--interval", "0.1").stdout


def test_a_damaged_ring_does_not_hide_the_others(make_writer, ring_name, prefix, tmp_path):
    other = f"/{prefix}.cam1.main"
    with RingWriter.create(
        other, slots=4, payload_bytes=64, lock_dir=tmp_path / "run", camera="cam1", stream="main"
    ) as whole, make_writer() as damaged:  # fmt: skip
        damaged.publish(b"", meta(0))
        whole.publish(b"", meta(0))
        with Path(f"/dev/shm{ring_name}").open("r+b") as file:
            file.seek(offset_of(SEGMENT_HEADER, "head"))
            file.write(b"\7")
        done = run()
        assert f"{other}: live, generation" in done.stdout
        assert f"ring {ring_name}: head 7 and slot headers contradict each other" in done.stderr
        assert done.returncode == 1


def test_no_ring_is_one_line_and_exit_code_one(ring_name):
    for words in ((ring_name,), ("dump", ring_name)):
        done = run(*words)
        assert done.returncode == 1
        assert done.stderr == f"ERROR: ring {ring_name}: no such segment; is its writer running?\n"


@pytest.mark.parametrize("file_format", ["png", "npy", "none"])
def test_dump_writes_what_a_crash_left(prefix, make_writer, ring_name, tmp_path, file_format):
    writer = make_writer(slots=4, payload_bytes=SHAPE.payload_bytes)
    for number in range(6):
        writer.publish(pattern(number, SHAPE.payload_bytes), meta(number, analogue_gain=1.5), SHAPE)
    slot = writer.slot()
    slot.__enter__()  # dies inside frame 6, in the slot of frame 2
    writer.close()
    done = run("dump", "cam0", "--prefix", prefix, "--to", str(tmp_path / "out"), "--format", file_format)
    assert done.returncode == 0
    assert "3 frames written" in done.stdout
    assert "1 not whole" in done.stdout
    assert done.stderr == "sequence 2: torn: its writer died in it\n"
    with (tmp_path / "out" / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame_id"] for row in rows] == ["", "3", "4", "5"]
    assert rows[0]["problem"] == "torn: its writer died in it"
    assert (rows[3]["pixel_format"], rows[3]["width"], rows[3]["analogue_gain"]) == ("gray", "64", "1.5")
    for row in rows[1:]:
        expected = pattern(int(row["frame_id"]), SHAPE.payload_bytes)
        if file_format == "png":
            picture = cv2.imread(str(tmp_path / "out" / row["file"]))
            assert (picture[..., 1].reshape(-1) == expected).all()
        elif file_format == "npy":
            assert (np.load(tmp_path / "out" / row["file"]) == expected).all()
        else:
            assert row["file"] == ""


def test_dump_of_a_live_ring_of_records(prefix, ring_name, watched, tmp_path):
    done = run("dump", ring_name, "--to", str(tmp_path / "out"), "--last", "2")
    assert done.returncode == 0
    files = sorted(path for path in (tmp_path / "out").iterdir() if path.suffix == ".bin")
    assert files
    for path in files:
        assert path.read_bytes() == pattern(int(path.stem[1:].split("_")[0]), 4000).tobytes()


def test_dump_says_of_a_damaged_slot_what_is_damaged(make_writer, ring_name, tmp_path, capsys):
    """It was said to be overwritten, or torn by a writer that had died."""
    with make_writer() as writer:
        writer.publish(pattern(0, SHAPE.payload_bytes), meta(0), SHAPE)
        at = PAGE_BYTES + GEOMETRY_OFFSET
        writer._bytes[at : at + 16] = b"mp4\0" + bytes(12)
        dump_ring.main([ring_name, "--to", str(tmp_path / "out")])
    with (tmp_path / "out" / "frames.csv").open() as file:
        assert "pixel format 'mp4'" in next(csv.DictReader(file))["problem"]
    assert "pixel format 'mp4'" in capsys.readouterr().err


def test_dump_keeps_every_part_of_an_encoded_frame(make_writer, ring_name, tmp_path, capsys):
    with make_writer() as writer:
        for part in (b"one", b"two"):
            writer.publish(part, meta(7))
        assert dump_ring.main([ring_name, "--to", str(tmp_path / "out")]) == 0
        assert {path.read_bytes() for path in (tmp_path / "out").glob("f0000000007_*.bin")} == {b"one", b"two"}
        (tmp_path / "file").touch()
        assert dump_ring.main([ring_name, "--to", str(tmp_path / "file")]) == 1
        assert "ERROR: [Errno 17] File exists" in capsys.readouterr().err
