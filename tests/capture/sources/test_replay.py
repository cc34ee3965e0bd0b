"""What was dumped from a ring comes back as it was."""

import csv
import io
import itertools
import os
import shutil
import tracemalloc

import cv2
import numpy as np
import pytest

from capture.sources.base import CameraError, CameraRequest
from capture.sources.error_translation import GuardedSource, SourceFault
from capture.sources.replay import ReplaySource, read_pixels
from shm_ring.formats import geometry
from shm_ring.tools.dump_ring import dump
from shmcam.control.client import ControlClient
from shmcam.runtime.stop import Stop
from tests.capture.harness import Processes
from tests.machine import until


def dumped(world, folder, count=20, file_format="npy"):
    """Dump the newest frames of a running capture. Returns: the frames."""
    until(lambda: world.head() >= count + 5, 20)
    with world.reader() as ring:
        last = ring.last(count)
        frames = [ring.copy(sequence) for sequence in last]
        dump(ring, folder, file_format, len(last) + 20)
    return {frame.frame_id: frame for frame in frames}


@pytest.mark.parametrize("realtime", [False, True])
def test_the_same_frames_with_the_same_numbers_and_timestamps(tmp_path, realtime):
    with Processes() as world:
        capture = world.start_capture()
        originals = dumped(world, tmp_path)
        world.stop(capture)
    camera = {"source": "replay", "path": str(tmp_path), "loop": False, "realtime": realtime}
    with Processes(camera=camera) as world:
        world.start_hub()
        world.start_capture()
        until(lambda: world.beat().get("state") == "ended", 20, lambda: f"{world.beat()} {world.log()}")
        with world.reader() as ring:
            replayed = {frame.frame_id: frame for s in ring.last(64) for frame in [ring.copy(s)]}
    for number, frame in originals.items():
        again = replayed[number]
        assert (again.payload == frame.payload).all()
        assert again.geometry == frame.geometry
        assert str(again.meta) == str(frame.meta), "all of it: exposure, lux, flags, drops, both clocks"


def test_a_looping_replay_goes_on_counting(tmp_path):
    with Processes() as world:
        world.start_capture()
        dumped(world, tmp_path, 10)
    source = ReplaySource(tmp_path, loop=True, realtime=False)
    opened = source.open(CameraRequest(1, 1, 30), Stop())

    payload, shots = np.zeros(opened.geometry.payload_bytes, np.uint8), []
    for _ in range(100):
        assert source.wait(1)
        shots.append(source.write(payload))
    assert [b.frame_id - a.frame_id for a, b in itertools.pairwise(shots)] == [1] * 99
    assert all(b.captured_ns > a.captured_ns for a, b in itertools.pairwise(shots))


def test_pictures_come_back_as_pictures(tmp_path):
    with Processes() as world:
        world.start_capture()
        dumped(world, tmp_path, 10, "png")
    source = ReplaySource(tmp_path, realtime=False)
    assert source.open(CameraRequest(1, 1, 30), Stop()).geometry.pixel_format == "bgr24"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), ("", "0 kinds of frames"), ("sequence,file,problem\n1,x.npy,\n", "captured_ns")],
)
def test_a_folder_that_is_no_dump_is_refused_in_words(tmp_path, content, words):
    if content is not None:
        (tmp_path / "frames.csv").write_text(content)
    with pytest.raises(CameraError, match=words):
        ReplaySource(tmp_path).open(CameraRequest(1, 1, 30), Stop())


def test_names_in_the_table_never_lead_out_of_the_folder(tmp_path):
    with Processes() as world:
        world.start_capture()
        dumped(world, tmp_path / "dump", 5)
    table = tmp_path / "dump" / "frames.csv"
    table.write_text(table.read_text().replace(",f0", ",../../f0"))
    source = ReplaySource(tmp_path / "dump", realtime=False)
    source.open(CameraRequest(1, 1, 30), Stop())
    assert all(one.file.parent == tmp_path / "dump" for one in source._frames)


NIGHT = {"dwell_s": 0.5, "hold_s": 1.0, "min_dark_frames": 5, "exposure_us": 60_000, "lockout_switches": 0}
DUSK = {"scene": "curve", "day_length_s": 40, "start_hour": 17.0}


def day_and_night(world, over):
    """Run hub, analyzer and capture until `over(told)`. Returns: what the analyzer told, in order."""
    told = []

    def ended():
        told.extend(one.message for one in client.receive())
        return over(told)

    world.start_hub()
    with ControlClient(
        "watcher", socket_path=world.settings.socket_path, subscribe=("night_began", "night_ended")
    ) as client:
        until(lambda: client.is_connected, 20)
        world.start("analyzer")
        until(lambda: world.beat("analyzer"), 20)
        world.start_capture()
        until(ended, 60, lambda: f"{told} {world.log('analyzer')} {world.log()}")
    return told


def test_a_recorded_dusk_replayed_is_the_same_night_again(tmp_path):
    """The whole way: capture, analyzer and hub, recorded with dump-ring; then the dump in place of the camera."""
    tables = {"ring": {"size": 256}, "night": NIGHT}
    with Processes(camera={"synthetic": DUSK, "framerate": 20}, **tables) as world:
        [recorded] = day_and_night(world, lambda told: told)
        head = world.head()
        until(lambda: world.head() > head + 10, 20)
        with world.reader() as ring:
            dump(ring, tmp_path, "npy", None)
    with Processes(camera={"source": "replay", "path": str(tmp_path), "loop": False}, **tables) as world:
        told = day_and_night(world, lambda _: world.beat().get("state") == "ended")
    assert [type(event).__name__ for event in told] == ["NightBegan"]
    assert abs(told[0].frame_id - recorded.frame_id) <= 5, "the analyzer may skip a frame of a busy machine"
    assert told[0].score == pytest.approx(recorded.score, abs=5)


@pytest.fixture(scope="module")
def whole_dump(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dump")
    with Processes() as world:
        world.start_capture()
        dumped(world, folder, 5)
    return folder


WRONG_CELLS = [
    "",
    "x",
    "-1",
    "9" * 30,
    "nan",
    "inf",
    "-inf",
    "1e9",
    "0x10",
    "4294967296",
    "1.5",
    "\0",
    "'",
    "\ud7ff",
    "1 2",
]


def play(folder) -> None:
    """Reads a dump to its end, as capture does. Raises: CameraError only, or the test fails."""
    source = GuardedSource(ReplaySource(folder, realtime=False))
    try:
        opened = source.open(CameraRequest(1, 1, 30), Stop())
        payload = np.zeros(opened.geometry.payload_bytes + 64, np.uint8)
        while source.wait(0.1):
            source.write(payload)
    finally:
        source.close()


def test_a_table_with_any_wrong_cell_is_a_camera_error_with_a_reason(whole_dump, tmp_path):
    """Numbers out of range went on to the ring and ended capture, again and again."""
    rows = list(csv.DictReader(io.StringIO((whole_dump / "frames.csv").read_text())))
    shutil.copytree(whole_dump, tmp_path / "d")
    reasons = 0
    for name in rows[0]:
        for wrong in WRONG_CELLS:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows([*rows[:2], {**rows[2], name: wrong}, *rows[3:]])
            (tmp_path / "d" / "frames.csv").write_text(text.getvalue())
            with pytest.raises(CameraError) as caught:
                play(tmp_path / "d")
            assert not isinstance(caught.value, SourceFault), f"{name}={wrong!r}: {caught.value!r}"
            reasons += "has ended" not in str(caught.value)
    assert reasons > 12 * len(WRONG_CELLS) / 2


def swap(path, make):
    path.unlink()
    make(path)


HUGE = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999,)}"
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "gone": lambda path: path.unlink(),
    "folder": lambda path: swap(path, lambda where: where.mkdir()),
    "fifo": lambda path: swap(path, os.mkfifo),
    "loop": lambda path: swap(path, lambda where: where.symlink_to(where)),
}
FRAME_DAMAGES = {
    **DAMAGES,
    "huge": lambda path: path.write_bytes(HUGE),
    "header": lambda path: path.write_bytes(path.read_bytes().replace(b"'descr'", b"((((((]")),
    "floats": lambda path: np.save(path, np.zeros((3, 3), np.float64)),
    "records": lambda path: np.save(path, np.zeros(3, [("a", "u1")])),
}


@pytest.mark.parametrize(
    ("which", "damage"),
    [("frames.csv", name) for name in DAMAGES] + [("npy", name) for name in FRAME_DAMAGES],
)
def test_a_damaged_file_of_a_dump_is_a_camera_error(whole_dump, tmp_path, damage, which):
    shutil.copytree(whole_dump, tmp_path / "d")
    path = tmp_path / "d" / which if which == "frames.csv" else sorted((tmp_path / "d").glob("*.npy"))[1]
    FRAME_DAMAGES[damage](path)
    with pytest.raises(CameraError) as caught:
        play(tmp_path / "d")
    assert not isinstance(caught.value, SourceFault) and "has ended" not in str(caught.value)


def rewrite(folder, **columns):
    """Gives columns other values: each a function of the row's number."""
    table = folder / "frames.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(
        {**row, **{name: str(make(number)) for name, make in columns.items()}} for number, row in enumerate(rows)
    )
    table.write_text(text.getvalue())


FAR = lambda number: number and 1 << 62  # noqa: E731


@pytest.mark.parametrize("column", ["frame_id", "captured_ns"])
def test_numbers_that_each_fit_but_not_together_end_no_capture(whole_dump, tmp_path, column):
    """Capture ended again and again, and ids that high stayed in the ring for ever."""
    shutil.copytree(whole_dump, tmp_path / "d")
    rewrite(tmp_path / "d", **{column: FAR})
    camera = {"source": "replay", "path": str(tmp_path / "d"), "loop": True, "realtime": False}
    with Processes(camera=camera) as world:
        world.start_hub()
        capture = world.start_capture(frames=False)
        until(lambda: world.beat().get("state") == "no camera", 20, lambda: f"{world.beat()} {world.log()}")
        assert "range" in world.beat()["reason"] or "must be 0" in world.beat()["reason"]
        assert capture.poll() is None and "Traceback" not in world.log()
        if world.head():
            with world.reader() as ring:
                assert ring.meta(ring.latest()).frame_id < 1 << 53


def test_a_frame_file_is_not_decoded_unless_it_has_the_size_of_a_frame(whole_dump, tmp_path):
    """A sparse file of 3 GB, and a picture of 400 million pixels in 400 kB, took gigabytes of memory."""
    shutil.copytree(whole_dump, tmp_path / "d")
    large, shape = sorted((tmp_path / "d").glob("*.npy"))[1], (3_000_000_000,)
    with large.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(3_000_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CameraError, match="at most"):
            play(tmp_path / "d")
        with pytest.raises(CameraError, match="64000000 pixels, not 76800"):
            cv2.imwrite(str(large.with_suffix(".png")), np.zeros((8000, 8000), np.uint8))
            read_pixels(large.with_suffix(".png"), geometry("bgr24", 320, 240))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_whatever_a_source_raises_is_a_camera_error():
    class Broken:
        description = "broken 1"

        def __getattr__(self, name):
            def fail(*_args):
                raise ZeroDivisionError(f"in {name}")

            return fail

    source = GuardedSource(Broken())
    for call in (
        lambda: source.open(CameraRequest(1, 1, 30), Stop()),
        lambda: source.wait(1),
        lambda: source.write(np.zeros(1, np.uint8)),
        lambda: source.apply(CameraRequest(1, 1, 30)),
    ):
        with pytest.raises(CameraError, match="broken 1: ZeroDivisionError: in "):
            call()
    source.close()  # never raises


def test_capture_stays_with_a_damaged_dump_says_why_and_plays_it_once_it_is_whole(whole_dump, tmp_path):
    shutil.copytree(whole_dump, tmp_path / "d")
    table = tmp_path / "d" / "frames.csv"
    text = table.read_text()
    table.write_text(text.replace("yuv420p", "yuv999p"))
    camera = {"source": "replay", "path": str(tmp_path / "d"), "loop": True, "realtime": True}
    with Processes(camera=camera) as world:
        world.start_hub()
        capture = world.start_capture(frames=False)
        until(lambda: "yuv999p" in str(world.beat().get("reason")), 20, lambda: f"{world.beat()} {world.log()}")
        assert world.beat()["state"] == "no camera" and capture.poll() is None
        table.write_text(text)
        until(lambda: world.beat().get("state") == "running", 20, lambda: f"{world.beat()} {world.log()}")
        assert capture.poll() is None
