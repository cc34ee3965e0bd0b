"""save, snapshot, pastStack and auto-save, driven through the real socket, read back by other people's programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from shm_ring import Flags, FrameMeta, RingWriter
from shm_ring.formats import geometry, planes
from shm_ring.records.scores import SCORE, VERSION
from shmcam.imaging import frame_number_code
from shmcam.imaging.tiff import Tag
from shmcam.library import Catalogue
from shmcam.runtime.clock import now_ns, to_iso, to_stamp, to_utc_ns
from tests.exporter.conftest import PERIOD_NS, Feed
from tests.machine import long_ago_ns, until
from tests.pipeline import BIN
from tests.reading import number_in

TWO_CAMERAS = "[cameras.cam0]\n[cameras.cam1]\n"


def read_tags(path: Path):
    """The first directory and the EXIF one as Pillow understands them."""
    with Image.open(path) as picture:
        exif = picture.getexif()
        return dict(exif), exif.get_ifd(Tag.EXIF)


def test_save_answers_in_the_words_of_the_first_shared(shared, feed):
    feed.publish(20)
    reply = shared.call("save")
    match = re.fullmatch(
        r"Saved single full-resolution image: (\S+) \(timestamp: (\d+\.\d{3}), age: (\d+\.\d{2})s\)", reply.text
    )
    assert reply.ok and match, reply.text
    path = Path(match[1])
    assert path.parent == shared.settings.paths.captures
    assert re.fullmatch(rf"\d{{8}}_\d{{6}}_f{feed.base + 19}\.jpg", path.name)
    assert number_in(path) == feed.base + 19 == reply.data["frame_id"]
    assert 0 <= float(match[3]) < 30 and reply.data["ring"] == "main"
    assert abs(datetime.fromisoformat(reply.data["timestamp"]).timestamp() - float(match[2])) < 0.01
    assert path.name.startswith(to_stamp(int(float(match[2]) * 1e9)))


@pytest.mark.parametrize("kind", ["jpg", "png", "npy", "tiff"])
@pytest.mark.parametrize(
    ("pixel_format", "width", "height"),
    [("yuv420p", 640, 360), ("nv12", 640, 360), ("bgr24", 641, 361), ("gray", 640, 361), ("yuv420p", 641, 361)],
)
def test_every_format_shows_the_frame_it_names(shared, kind, pixel_format, width, height):
    feed = Feed(shared.settings, "cam0", geometry(pixel_format, width, height), 4)
    try:
        feed.publish(3)
        reply = shared.call(f"save {kind}")
        path = Path(reply.data["path"])
        assert number_in(path) == feed.base + 2
        picture = np.load(path) if kind == "npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        luma = picture[:height, :width] if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        truth = planes(feed.payload(feed.base + 2), feed.layout)[0]
        truth = truth if truth.ndim == 2 else truth[..., 0]
        assert luma.shape == (height, width) and np.abs(luma.astype(int) - truth).mean() < 1.5
    finally:
        feed.close()


def test_exif_tells_exposure_gain_time_score_and_frame_id(shared, feed):
    feed.publish(2, exposure_us=2_000_000, analogue_gain=6.0)
    reply = shared.call("save jpg png tiff label=night-1")
    assert len(reply.data["paths"]) == 3
    for name in reply.data["paths"]:
        path = Path(name)
        assert path.name.startswith("night-1_")
        first, tags = read_tags(path)
        exposure = tags[Tag.EXPOSURE_TIME]
        assert (exposure.numerator, exposure.denominator) == (2, 1) and tags[Tag.ISO_SPEED_RATINGS] == 600
        assert first[Tag.MODEL] == "cam0" and first[Tag.SOFTWARE].startswith("shmcam")
        known = json.loads(tags[Tag.USER_COMMENT][8:])
        assert known["frame_id"] == feed.base + 1 and known["label"] == "night-1" and known["trigger"] == "save"
        when = f"{tags[Tag.DATE_TIME_ORIGINAL]}.{tags[Tag.SUB_SEC_TIME_ORIGINAL]}"
        moment = datetime.strptime(when + tags[Tag.OFFSET_TIME_ORIGINAL], "%Y:%m:%d %H:%M:%S.%f%z").timestamp()
        assert abs(moment * 1e9 - known["captured_utc_ns"]) < 2000
        assert known["clock_error_us"] is None or known["clock_error_us"] >= 0


def test_ffprobe_and_pyav_open_what_we_write(shared, feed):
    feed.publish(2)
    for name in shared.call("save jpg png tiff").data["paths"]:
        done = subprocess.run(["ffprobe", "-v", "error", "-show_streams", name], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr and "width=640" in done.stdout, done.stderr
        with av.open(name) as container:
            assert frame_number_code.read(next(container.decode(video=0)).to_ndarray(format="gray")) == feed.base + 1


def test_npy_is_bgr_as_the_users_programs_read_it(shared, feed):
    feed.publish(1)
    picture = np.load(Path(shared.call("save npy").data["path"]))
    assert picture.shape == (360, 640, 3) and picture.dtype == np.uint8
    assert frame_number_code.read(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)) == feed.base


@pytest.mark.parametrize("service", ['[export]\nnpy = "planes"\n'], indirect=True)
def test_npy_has_its_facts_beside_it(service, feed):
    feed.publish(1)
    path = Path(service.call("save npy").data["path"])
    beside = json.loads(path.with_name(path.name + ".json").read_text())
    assert beside["layout"] == "i420" and beside["frame_id"] == feed.base and beside["exposure_us"] == 10_000
    assert np.array_equal(np.load(path)[:360], planes(feed.payload(feed.base), feed.layout)[0])


def test_an_older_frame_is_found_by_time(shared, feed):
    feed.publish(60)
    reply = shared.call("save seconds_ago=1")
    period_s = PERIOD_NS / 1e9
    assert 1 <= reply.data["age_s"] < 1 + period_s + 0.001 or reply.data["frame_id"] == feed.base + 59
    assert number_in(Path(reply.data["path"])) == reply.data["frame_id"]


def test_a_frame_that_is_gone_already_is_told_in_words_status_and_numbers(shared, feed):
    feed.publish(80)  # into 64 slots
    reply = shared.call("save seconds_ago=999")
    data = reply.data
    assert reply.ok and reply.status == "saved_oldest"
    assert (
        data["asked_age_s"] == 999 and data["frame_id"] == data["first"]["frame_id"] == feed.next_id - data["available"]
    )
    assert 60 <= data["available"] <= 63 and data["last"]["frame_id"] == feed.next_id - 1
    assert data["age_s"] == data["first"]["age_s"] < 30
    assert abs(data["already_gone"] - min(data["frame_id"], 999e9 / PERIOD_NS)) < 30e9 / PERIOD_NS
    assert f"the oldest there is, 999s ago was asked for, already gone: {data['already_gone']}" in reply.text
    assert number_in(Path(data["path"])) == data["frame_id"]
    reply = shared.call("save seconds_ago=1")
    assert (reply.status, reply.data["already_gone"]) == ("saved", 0) and "asked for" not in reply.text


def test_two_saves_in_one_second_do_not_overwrite_each_other(shared, feed):
    feed.publish(1)
    paths = {shared.call("save").data["path"] for _ in range(3)}
    assert len(paths) == 3 and all(number_in(Path(path)) == feed.base for path in paths)


def test_without_frames_the_answer_is_no_frames(shared):
    for line in ("save", "SNAP", "snapshot", "pastStack"):
        reply = shared.call(line)
        assert not reply.ok and reply.status == "no_frames" and reply.text.startswith("NO_FRAMES\ncam0: "), line
        assert "capture" in reply.text


@pytest.mark.parametrize("service", ["[export]\nauto_save_use_ring = false\n"], indirect=True)
def test_a_fresh_frame_is_waited_for_when_the_ring_is_not_to_be_used(service, feed):
    import threading

    feed.publish(5)
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.3):
            feed.publish(1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        reply = service.call("save")
    finally:
        stop.set()
        thread.join()
    assert reply.data["frame_id"] >= feed.base + 5 and reply.data["age_s"] == 0


def test_wrong_wishes_are_refused_with_what_was_expected(shared, feed):
    feed.publish(3)
    for line, words in {
        "save formats=gif": "must be of jpg, png, npy, tiff",
        "save cam7": "no camera 'cam7'; cameras: cam0",
        "pastStack method=magic": "must be one of mean, median",
    }.items():
        reply = shared.call(line)
        assert not reply.ok and reply.text.startswith("ERROR: ") and words in reply.text, reply.text
    assert shared.call("library check").text.startswith("OK")


@pytest.mark.parametrize("service", ["[export]\nstack_dark_frames = false\n"], indirect=True)
def test_past_stack_without_stacking_saves_every_frame_of_the_window(service, feed):
    feed.publish(80, flags=int(Flags.NIGHT))
    reply = service.call("pastStack jpg before_s=1")
    assert reply.ok and reply.data["method"] == "separate" and 25 <= reply.data["count"] <= 31, reply.text
    assert reply.data["files"] == reply.data["count"] == reply.data["available"]


def test_past_stack_saves_frames_one_by_one_where_it_is_asked_to(shared, feed):
    feed.publish(40, ago_ns=0)
    reply = shared.call("pastStack cam0 png before_s=30 count=6 method=separate")
    assert reply.ok and reply.data["method"] == "separate" and reply.data["count"] == 6
    first = reply.text.splitlines()[0]
    assert re.fullmatch(
        r"Saved 6 separate images from ring buffer, starting at timestamp: \d+\.\d{3} \(age: \d+\.\d\ds\)"
        r"\(export.save_before_s: 30\.000 s\)bright_threshold: > 80 ",
        first,
    ), first
    assert [number_in(Path(path)) for path in reply.data["paths"]] == list(range(feed.base + 34, feed.base + 40))
    assert reply.data["first"]["frame_id"] == feed.base + 34 and reply.data["last"]["frame_id"] == feed.base + 39
    assert abs(reply.data["first"]["age_s"] - reply.data["last"]["age_s"] - 5 * PERIOD_NS / 1e9) < 1e-3
    assert reply.data["available"] == 40 and reply.data["already_gone"] <= 900


def test_past_stack_at_night_gives_one_16_bit_stack_and_a_toned_jpg(shared, feed):
    feed.publish(30, noise=4.0, flags=int(Flags.NIGHT))
    reply = shared.call("pastStack before_s=30 count=16")
    assert reply.ok and reply.data["method"] == "sigma" and " | stack of 16 frames | " in reply.text
    jpg, png = (Path(path) for path in reply.data["paths"])
    assert (jpg.suffix, png.suffix) == (".jpg", ".png") and png.name.endswith(f"_f{feed.base + 29}_stack16.png")
    deep = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16 and deep.shape == (360, 640, 3)
    truth = np.linspace(90, 150, 640)
    luma = cv2.cvtColor(deep, cv2.COLOR_BGR2GRAY)[40:] / 257
    assert np.std(luma - truth) < 1.15 * 4 / np.sqrt(16)
    exif = json.loads(read_tags(jpg)[1][Tag.USER_COMMENT][8:])
    assert exif["stack"] == {"method": "sigma", "count": 16, "aligned": False} and exif["frames"] == 16
    assert (exif["first_frame"], exif["last_frame"]) == (feed.base + 14, feed.base + 29)


def test_past_stack_of_long_night_exposures_reaches_back_and_says_the_span(shared, feed):
    """With 2 s exposures and save_before_s = 2 the answer was a stack of one frame."""
    night = {"flags": int(Flags.NIGHT), "exposure_us": 2_000_000, "frame_duration_us": 2_000_000}
    last_ns = now_ns()  # of all of them: publishing takes time, too
    for ago in reversed(range(20)):
        feed.publish(1, ago_ns=ago * 2 * 10**9, at_ns=last_ns, **night)
    reply = shared.call("pastStack jpg")
    assert reply.ok and reply.data["count"] == 16 and reply.data["span_s"] == pytest.approx(30), reply.text
    assert " | stack of 16 frames | " in reply.text and f"span: {reply.data['span_s']:.3f}s" in reply.text
    few = shared.call("pastStack jpg count=30")
    assert few.data["count"] == 20 and "fewer than 30: the ring holds no more" in few.text, few.text
    newest_ns = now_ns()  # the stacks took a while
    feed.publish(1, at_ns=newest_ns, **night)
    asked = shared.call("pastStack jpg before_s=5 method=mean")  # a span that a person names is that span
    begin_ns = newest_ns + round((asked.data["last"]["age_s"] - 5) * 1e9)
    held_ns = [newest_ns, *(last_ns - ago * 2 * 10**9 for ago in range(20))]
    assert asked.data["count"] == sum(captured_ns >= begin_ns for captured_ns in held_ns), asked.text


@pytest.mark.parametrize("service", ["[export]\nsave_before_s = 1\nstack_count = 4\n"], indirect=True)
def test_past_stack_takes_the_frames_around_the_moment_in_the_words_of_the_second_program(service, feed):
    feed.publish(60)  # 2 s, by day
    reply = service.call("pastStack jpg")
    assert reply.ok and reply.data["method"] == "sigma" and reply.data["count"] == 4, reply.text
    middle_s = (reply.data["first"]["age_s"] + reply.data["last"]["age_s"]) / 2
    assert abs(middle_s - 1) < 10 * PERIOD_NS / 1e9, reply.data
    match = re.fullmatch(
        r"Saved stacked image: (\S+\.jpg) \| stack of 4 frames \| first frame timestamp: (\d+\.\d{3}) "
        r"\(age: (\d+\.\d\d)s\) \| last frame timestamp: (\d+\.\d{3}) \(age: (\d+\.\d\d)s\)"
        r"\(export.save_before_s: 1\.000 s\)",
        reply.text.splitlines()[0],
    )
    assert match and Path(match[1]).exists() and float(match[4]) - float(match[2]) < 1, reply.text


@pytest.mark.parametrize("method", ["mean", "median", "trimmed", "max", "min", "sigma"])
@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
def test_every_method_keeps_more_than_8_bits_in_every_format(shared, feed, method, kind):
    feed.publish(12, noise=2.0)
    reply = shared.call(f"pastStack {kind} method={method} before_s=30 count=9 --align")
    assert reply.ok, reply.text
    path = Path(reply.data["path"])
    samples = np.load(path) if kind == "npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert samples.dtype == np.uint16
    if method in ("mean", "sigma", "trimmed") and kind == "npy":
        assert np.count_nonzero(samples % 257) > samples[:360].size / 2


def test_past_stack_says_how_many_frames_were_already_gone(shared, feed):
    feed.publish(200)
    reply = shared.call("pastStack method=mean before_s=60 count=0")
    held = reply.data["available"]
    assert 60 <= held <= 64
    gone = reply.data["already_gone"]
    assert abs(gone - round(60 / (PERIOD_NS / 1e9)) + held) < 30, reply.text
    assert f"already gone: {reply.data['already_gone']}" in reply.text


def test_past_stack_waits_for_the_time_after_without_holding_up_others(shared, feed):
    import threading

    feed.publish(5)
    answers = {}
    thread = threading.Thread(
        target=lambda: answers.update(stack=shared.call("pastStack method=mean before_s=1 after_s=1.5 count=0"))
    )
    thread.start()
    until(lambda: feed.publish(1) > feed.base + 8, 5, "frames")
    assert shared.call("save").ok and "stack" not in answers
    until(lambda: feed.publish(1) and "stack" in answers, 20, "stack")
    thread.join()
    assert answers["stack"].ok and answers["stack"].data["last"]["age_s"] < -1


def test_an_empty_span_tells_how_old_the_newest_frame_is(shared, feed):
    feed.publish(5, ago_ns=20 * 10**9)
    reply = shared.call("pastStack before_s=2")
    assert reply.status == "no_frames" and re.search(r"the newest is 2\d\.\ds old", reply.text)


def test_frames_of_a_size_that_changed_are_left_out_of_a_stack(shared, feed):
    feed.publish(4)
    small = geometry("yuv420p", 320, 180)
    for _ in range(3):
        feed.layout, kept = small, feed.layout
        feed.publish(1)
        feed.layout = kept
    reply = shared.call("pastStack method=mean before_s=30 count=0 npy")
    assert reply.data["count"] == 4 and reply.data["left_out"] == 3 and "left out: 3" in reply.text


@pytest.mark.parametrize("service", [TWO_CAMERAS], indirect=True)
def test_snapshot_takes_all_cameras_at_one_instant(service):
    feeds = [Feed(service.settings, name, geometry("yuv420p", 640, 360), 16) for name in ("cam0", "cam1")]
    try:
        now = now_ns()
        feeds[0].publish(10, ago_ns=5_000_000, at_ns=now)
        feeds[1].publish(13, ago_ns=1_000_000, at_ns=now)
        reply = service.call("snapshot")
        assert reply.ok and reply.text.startswith("Saved snapshot of 2 cameras: "), reply.text
        names = [Path(path).name for path in reply.data["paths"]]
        assert re.fullmatch(r"snapshot_cam0_\d{8}_\d{6}\.jpg", names[0])
        assert re.fullmatch(r"snapshot_cam1_\d{8}_\d{6}\.jpg", names[1])
        assert 0 <= reply.data["sync_error_ms"] <= PERIOD_NS / 2e6
        assert f"sync error: {reply.data['sync_error_ms']:.3f} ms" in reply.text
        past = service.call("snapshot seconds_ago=0.15")
        frames = past.data["frames"]
        assert past.status == "snapshot_saved" and all(one["age_s"] > 0.15 - PERIOD_NS / 1e9 for one in frames.values())
        assert frames["cam0"]["frame_id"] < feeds[0].next_id and frames["cam1"]["available"] == 13
        late = service.call("snapshot seconds_ago=60")
        assert late.status == "snapshot_oldest" and "cam1: the oldest there is, 60s ago was asked for" in late.text
        for line in ("save cam1", "save npy cam1 png", "pastStack png method=max before_s=60 cam1"):
            reply = service.call(line)
            assert reply.ok and Path(reply.data["path"]).name.startswith("cam1_"), (line, reply)
        assert service.call("snapshot png cam1 cam1").data["cameras"] == ["cam1"]
        feeds[1].close()
    finally:
        feeds[0].close()
    with Catalogue.of(service.settings) as catalogue:
        assert {entry.camera for entry in catalogue.find()} == {"cam0", "cam1"}


@pytest.mark.parametrize("service", ["[cameras.cam0]\n[cameras.porch]\n"], indirect=True)
def test_snapshot_of_one_camera_says_which_is_missing(service, feed):
    feed.publish(3)
    reply = service.call("snapshot")
    assert reply.ok and reply.data["missing"] == ["porch"] and "without porch: no frames" in reply.text
    environ = {**os.environ, "SHMCAM_CONFIG": str(service.config)}
    done = subprocess.run([BIN / "shmcam", "save", "png", "porch"], env=environ, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("NO_FRAMES\nporch: "), done


def find_path(reply) -> Path:
    return Path(re.search(r"\S+\.jpg", reply.text)[0])


FOREIGN_TIMES = {
    '[camera]\nsource = "replay"\npath = "dump"\n': 1,
    '[camera]\nsource = "file"\npath = "a.mp4"\nrealtime = false\n': -1,
}


@pytest.mark.parametrize(("service", "direction"), FOREIGN_TIMES.items(), indirect=["service"])
def test_frames_with_times_of_their_own_are_measured_from_the_newest(service, feed, direction):
    """A replay bears old times, a file as fast as it decodes future ones: they gave the oldest frame, or none."""
    newest = feed.publish(30, ago_ns=direction * long_ago_ns())
    for line in ("save jpg", "snapshot jpg"):
        reply = service.call(line)
        assert reply.ok and "oldest" not in reply.text and number_in(find_path(reply)) == newest, reply.text
    earlier = service.call("save jpg seconds_ago=0.49").data
    assert earlier["frame_id"] == newest - 15 and earlier["already_gone"] == 0
    for after in ("", " after_s=0.2"):
        stack = service.call(f"pastStack jpg method=mean before_s=0.5 count=100{after}")
        assert stack.ok and f"last: f{newest}" in stack.text, stack.text


def no_more_come(captures):
    """Whether no picture comes in the time of three."""
    count = len(list(captures.glob("*.jpg")))
    time.sleep(1.2)  # three that must not come
    return len(list(captures.glob("*.jpg"))) == count


@pytest.mark.parametrize("service", ["[export]\nauto_save_interval_s = 0.4\n"], indirect=True)
def test_auto_save_saves_by_itself_and_can_be_switched_off_while_running(service, feed):
    feed.publish(3)
    captures = service.settings.paths.captures
    until(lambda: len(list(captures.glob("*.jpg"))) >= 3, 20, "auto-saved pictures")
    assert service.call("set export.auto_save_interval_s 0").ok
    until(lambda: "setting taken over" in service.logs(), 10, "setting")
    until(lambda: no_more_come(captures), 20, "an end of the pictures, but for those under way")
    with Catalogue.of(service.settings) as catalogue:
        assert {entry.trigger for entry in catalogue.find()} == {"auto"}


def test_every_picture_is_in_the_library_with_its_facts(shared, feed):
    feed.publish(20)
    saved = shared.call("save jpg npy label=a")
    stack = shared.call("pastStack png method=mean before_s=30 count=5")
    with Catalogue.of(shared.settings) as catalogue:
        rows = {entry.path: entry for entry in catalogue.find()}
        assert {str(path) for path in rows} >= {*saved.data["paths"], *stack.data["paths"]}
        entry = rows[Path(stack.data["path"])]
        assert (entry.kind, entry.frames, entry.first_frame, entry.last_frame) == (
            "stack",
            5,
            feed.base + 15,
            feed.base + 19,
        )
        assert entry.duration_s == pytest.approx(4 * PERIOD_NS / 1e9, abs=1e-5) and entry.is_triggered
        assert catalogue.check() == []


def test_the_library_answers_by_the_socket(shared, feed):
    feed.publish(3)
    number = shared.call("save").data["ids"][0]
    assert shared.call("pictures").data["rows"][0]["id"] == number
    assert shared.call("clips").text == "no clips yet"
    path = Path(shared.call("pictures").data["rows"][0]["path"])
    assert shared.call(f"protect {number}").text.startswith("OK: protected")
    refused = shared.call(f"delete {number}")
    assert not refused.ok and "unprotect" in refused.text
    assert shared.call(f"unprotect {number}").ok and shared.call(f"delete {number}").ok
    gone = shared.call(f"delete {number}")
    assert not gone.ok and f"no entry {number}" in gone.text
    assert not path.exists()
    path = Path(shared.call("save").data["path"])
    assert shared.call("library check").text.startswith("OK")
    path.unlink()
    assert f"no file: {path}" in shared.call("library check").text
    files = [one for one in shared.settings.paths.captures.iterdir() if one.suffix != ".json"]
    assert shared.call("library rebuild").data["rows"] == len(files)
    assert not shared.call("pictures since=yesterday-ish").ok
    for wish in ("pictures until=9999-12-31", "pictures since=999999999w", "clips since=1600-01-01"):
        assert shared.call(wish).ok, wish  # times that no row can have
    for wish in ("protect", "delete", "library show"):
        refused = shared.call(f"{wish} {(1 << 63) + 7}")
        assert not refused.ok and "no entry" in refused.text, refused


def test_the_control_loop_answers_while_a_long_stack_is_made(shared, feed):
    import threading

    feed.publish(64, noise=2.0)
    done = threading.Event()

    def stacks() -> None:
        for _ in range(4):
            shared.call("pastStack png tiff method=sigma before_s=60 count=0")
        done.set()

    thread = threading.Thread(target=stacks)
    thread.start()
    answered = 0
    while not done.is_set():
        assert shared.call("pictures limit=1").status == "pictures"
        answered += 1
    thread.join()
    assert answered > 4


def test_a_clock_that_jumped_back_overwrites_nothing(shared, feed):
    """Two frames of the same name an hour apart by the true clock: both pictures stay."""
    feed.publish(1)
    first = shared.call("save").data["path"]
    feed.next_id = feed.base
    feed.publish(1)
    second = shared.call("save").data["path"]
    assert Path(first).exists() and Path(second).exists() and first != second


def test_timestamps_are_those_of_the_frame(shared, feed):
    feed.publish(1, ago_ns=3 * 10**9)
    reply = shared.call("save")
    captured_utc_ns = to_utc_ns(reply.data["captured_ns"])
    assert abs(datetime.fromisoformat(reply.data["timestamp"]).timestamp() - captured_utc_ns / 1e9) < 0.01
    assert to_iso(captured_utc_ns)[:18] == reply.data["timestamp"][:18] and reply.data["age_s"] >= 3


@contextmanager
def scored(settings, sharpness: dict[int, float]):
    """An analyzer that has scored these frames."""
    writer = RingWriter.create(
        settings.ring_name("cam0", "scores"),
        slots=64,
        payload_bytes=SCORE.itemsize,
        lock_dir=settings.paths.run,
        camera="cam0",
        stream="scores",
    )
    try:
        for frame_id, sharp in sharpness.items():
            record = np.zeros(1, SCORE)
            record["frame_id"], record["sharpness"], record["version"] = frame_id, sharp, VERSION
            record["dark_score"], record["scene_brightness"] = 33.5, 44.25
            writer.publish(record.view(np.uint8), FrameMeta(frame_id, frame_id, frame_id), None)
        yield
    finally:
        writer.retire()
        writer.close()


def test_the_sharpest_frames_of_the_span_are_taken_and_scores_stand_in_exif(shared, feed):
    feed.publish(20)
    sharp = {feed.base + number: float(number in (3, 8, 9, 15)) for number in range(20)}
    with scored(shared.settings, sharp):
        reply = shared.call("pastStack jpg method=separate before_s=30 count=4")
        assert [number_in(Path(path)) for path in reply.data["paths"]] == [feed.base + n for n in (3, 8, 9, 15)]
        known = json.loads(read_tags(Path(reply.data["path"]))[1][Tag.USER_COMMENT][8:])
        assert (known["dark_score"], known["score"], known["sharpness"]) == (33.5, 44.25, 1.0)
        assert shared.call("pictures limit=1").data["rows"][0]["score"] == 44.25


def test_frames_taken_while_the_controls_moved_are_left_out(shared, feed):
    feed.publish(5)
    feed.publish(3, flags=int(Flags.SETTLING))
    reply = shared.call("pastStack jpg method=separate before_s=30 count=3")
    assert [number_in(Path(path)) for path in reply.data["paths"]] == [feed.base + n for n in (2, 3, 4)]
    assert reply.data["unsettled"] == 3 and "not used, controls moved: 3" in reply.text
