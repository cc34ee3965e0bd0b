"""What goes on all day: timelapse, startrails, the virtual long exposure. Real processes, real kills."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from shm_ring import Flags, attach
from shm_ring.formats import geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.library import Catalogue
from tests.exporter.conftest import HOME, Feed
from tests.machine import until
from tests.reading import numbers_in_clip

FILM = "[export]\ntimelapse_interval_s = 0.1\ntimelapse_fps = 10\n"
TRAILS = (
    "[export]\nstartrails = true\nstartrails_interval_s = 1\nstartrails_film_interval_s = 0.2\nlong_exposure_s = 1.0\n"
)


@contextmanager
def streaming(feed: Feed, period_s: float = 0.03, **meta) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(period_s):
            feed.publish(1, **meta)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def film_of(service) -> Path | None:
    return next(iter(service.settings.paths.captures.glob("timelapse_cam0_*.mp4.part")), None)


def playable(path: Path) -> int:
    numbers = numbers_in_clip(path)
    assert all(number is not None for number in numbers) and numbers == sorted(numbers)
    return len(numbers)


@pytest.mark.parametrize("service", [FILM], indirect=True)
def test_a_timelapse_plays_while_it_grows_survives_kill_9_and_is_adopted(service, feed):
    with streaming(feed):
        part = until(lambda: film_of(service), 20, "film")
        until(lambda: part.stat().st_size > 2000, 20, "frames in the film")
        counts = []
        for _ in range(5):
            counts.append(playable(part))
            time.sleep(0.3)
        assert counts[-1] > counts[0] > 0 and counts == sorted(counts)
        frames = next(iter(service.call("timelapse").data["cameras"].values()))["frames"]
        service.kill("exporter")
        before = playable(part)
        assert before >= frames - 1
        service.start("exporter")
        service.ready()
        whole = part.with_name(part.name.removesuffix(".part"))
        until(whole.exists, 20, "adopted film: " + service.logs())
        assert playable(whole) == before and not part.exists()
        with Catalogue.of(service.settings) as catalogue:
            entry = until(lambda: catalogue.find(kinds=["timelapse"]), 10, "row")[0]
            assert (entry.path, entry.camera, entry.frames) == (whole, "cam0", before)
        assert until(lambda: film_of(service), 20, "next film") != part


@pytest.mark.parametrize("service", [FILM.replace("0.1", "0")], indirect=True)
def test_timelapse_starts_and_stops_by_command_and_becomes_a_plain_mp4(service, feed):
    with streaming(feed):
        assert "no timelapse runs" in service.call("timelapse").text
        assert service.call("set export.timelapse_interval_s 0.2").ok
        until(lambda: "timelapse runs" in service.call("timelapse").text, 10, "timelapse")
        until(lambda: service.call("timelapse").data["cameras"]["cam0"]["frames"] >= 5, 20, "frames")
        stopped = service.call("timelapse stop")
        until(lambda: film_of(service) is None, 10, "closed film")
    film = next(service.settings.paths.captures.glob("timelapse_*.mp4"))
    assert stopped.ok and re.fullmatch(rf"cam0: timelapse ends, \d+ frames in {film}", stopped.text)
    assert playable(film) >= 5 and "moof" not in boxes(film)  # no fragments left: any player can seek in it
    assert boxes(film).count("moov") == 1
    with Catalogue.of(service.settings) as catalogue:
        row = until(lambda: catalogue.find(kinds=["timelapse"]), 20, "row of the film")[0]
        assert row.first_frame == numbers_in_clip(film)[0] and row.frames == playable(film)
        assert catalogue.check() == []


@pytest.mark.parametrize("service", [FILM], indirect=True)
def test_a_timelapse_is_in_trouble_as_long_as_its_disk_refuses(service, feed):
    """It came and went with each try, and stayed for ever where the timelapse was stopped meanwhile."""
    captures = service.settings.paths.captures
    film = lambda: service.call("timelapse").data["cameras"]["cam0"]  # noqa: E731
    with streaming(feed):
        until(lambda: film()["frames"] > 0, 20, service.logs)
        captures.rename(captures.with_name("away"))
        captures.touch()
        until(lambda: film()["trouble"], 40, service.logs)
        end_s = time.monotonic() + 2.5  # two tries
        while time.monotonic() < end_s:
            assert film()["trouble"], service.logs()
            time.sleep(0.02)
        assert service.call("timelapse stop").ok
        until(lambda: not film()["trouble"], 10, service.logs)
        captures.unlink()
        captures.with_name("away").rename(captures)
        assert service.call("timelapse start").ok
        until(lambda: film()["frames"] > 0 and not film()["trouble"], 10, service.logs)


@pytest.mark.parametrize("service", [""], indirect=True)
def test_an_idle_exporter_lets_a_retired_ring_go(service):
    """After a change of resolution the old ring's memory must not stay until somebody saves a picture."""
    feeds = [Feed(service.settings, "cam0", geometry("yuv420p", 640, 360), 8)]
    maps = Path(f"/proc/{service.processes['exporter'].pid}/maps")
    mapped = f"/dev/shm/{service.settings.ring_name('cam0').removeprefix('/')}"
    try:
        feeds[0].publish(2)
        assert service.call("save").ok and mapped in maps.read_text()
        feeds[0].close()
        until(lambda: mapped not in maps.read_text(), 10, "release of the retired ring")
        feeds.append(Feed(service.settings, "cam0", geometry("yuv420p", 320, 240), 8))
        feeds[1].publish(2)
        assert service.call("save").ok
    finally:
        feeds[-1].close()


def boxes(path: Path) -> list[str]:
    """The outermost boxes of an mp4."""
    data, at, found = path.read_bytes(), 0, []
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : at + 8].decode("latin-1"))
        at += int.from_bytes(data[at + 8 : at + 16], "big") if length == 1 else max(8, length)
    return found


def bright_star(feed: Feed, number: int) -> np.ndarray:
    payload = np.full(feed.layout.payload_bytes, 128, np.uint8)
    luma = planes(payload, feed.layout)[0]
    luma[...] = 20
    luma[100, 50 + 4 * number] = 250
    return payload


def pictures_in(film: Path) -> list[np.ndarray]:
    with av.open(str(film)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


def last_saved_frame(state: Path) -> int:
    with np.load(state) as stored:
        return json.loads(stored["facts"].item())["last"]["frame_id"]


def trail_length(picture: np.ndarray) -> int:
    return int((picture[100] > 90).sum())


@pytest.mark.parametrize("service", [TRAILS], indirect=True)
def test_startrails_survive_kill_9_and_end_with_the_night(service, feed):
    feed.payload = lambda frame_id, base=0, noise=0: bright_star(feed, frame_id - feed.base)
    night = {"flags": int(Flags.NIGHT), "exposure_us": 30_000}
    state = service.settings.paths.captures / "_night" / "cam0.npz"
    until(lambda: not feed.publish(1, **night) or state.exists() or time.sleep(0.1), 20, "state on disk")
    until(state.with_suffix(".jpg").exists, 20, "its picture, which is written next")
    shown = cv2.imread(str(state.with_suffix(".jpg")), cv2.IMREAD_GRAYSCALE)
    assert shown is not None
    for _ in range(14):  # some frames of film
        feed.publish(1, **night)
        time.sleep(0.1)
    stars = feed.next_id - feed.base
    until(lambda: last_saved_frame(state) == feed.next_id - 1, 20, "the last star in the state")
    service.kill("exporter")
    service.start("exporter")
    service.ready()
    until(lambda: "night resumed" in service.logs(), 20, "resumed night")
    film = until(lambda: next(iter(service.settings.paths.captures.glob("startrails_cam0_*.mp4")), None), 20, "film")
    grown = [trail_length(picture) for picture in pictures_in(film)]
    assert len(grown) > 3 and grown[0] < grown[len(grown) // 2] < grown[-1]  # cut off by the kill, and playable
    until(
        lambda: (feed.publish(1, **night) and feed.next_id - feed.base >= stars + 5) or time.sleep(0.1),
        10,
        "more stars",
    )
    time.sleep(0.3)  # the exporter takes the newest frame: these are the last ones of the night
    for _ in range(5):
        feed.publish(1)
        time.sleep(0.1)
    with Catalogue.of(service.settings) as catalogue:
        until(lambda: len(catalogue.find(kinds=["stack"])) == 2, 30, "the night's mean: " + service.logs())
        rows = catalogue.find(kinds=["startrails"])  # they come before the mean
    until(lambda: not state.exists(), 10, "the end of the night")
    films = [row for row in rows if row.path.suffix == ".mp4"]
    assert len(films) == 2 and films[1].path == film and films[1].frames == len(grown)
    assert trail_length(pictures_in(films[0].path)[-1]) > grown[-1]  # the one after the kill shows the whole night
    png = next(row.path for row in rows if row.path.suffix == ".png")
    picture = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
    columns = np.flatnonzero(picture[100, :, 1] > 150 * 257)
    assert len(columns) >= stars  # those from before the kill, too
    assert next(row for row in rows if row.path == png).frames >= stars


@pytest.mark.parametrize("service", [TRAILS], indirect=True)
def test_the_virtual_long_exposure_is_shown_as_a_ring_and_saved_with_all_its_bits(service, feed):
    with streaming(feed, noise=6.0, frame_duration_us=33_000):
        with attach("cam0", stream="long", prefix=service.settings.value("ring.prefix"), timeout_s=20) as ring:
            seen = [frame.copy() for frame, _ in zip(ring.follow(), range(4), strict=False)]
        assert seen[-1].picture == feed.layout and seen[-1].frame_id > feed.base

        def full_second():
            answer = service.call("pastStack method=long png")
            return answer.data.get("count", 0) >= 15 and answer

        reply = until(full_second, 20, "a full second of frames")
    assert reply.ok and reply.data["method"] == "long"
    first, last = reply.data["first"], reply.data["last"]
    assert last["frame_id"] - first["frame_id"] == reply.data["count"] - 1 and first["age_s"] - last["age_s"] <= 1.0
    deep = cv2.imread(reply.data["path"], cv2.IMREAD_UNCHANGED)
    luma = cv2.cvtColor(deep, cv2.COLOR_BGR2GRAY)[40:] / 257
    assert deep.dtype == np.uint16 and np.std(luma - np.linspace(90, 150, 640)) < 6 / np.sqrt(15) * 1.3


def test_without_a_virtual_long_exposure_the_answer_says_how_to_get_one(shared, feed):
    feed.publish(2)
    assert "set export.long_exposure_s" in shared.call("pastStack method=long").text


def test_shmcam_timelapse_builds_a_film_of_saved_pictures(shared, feed):
    for number in range(12):
        feed.publish(1)
        assert shared.call("save png" if number % 2 else "save").ok
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "exporter.films.build",
            "--config",
            str(shared.config),
            "cam0",
            "fps=12",
            "--label",
            "day",
        ],
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.split(" (")[0])
    assert path.name.startswith("timelapse_cam0_day_") and "12 frames" in done.stdout
    assert numbers_in_clip(path) == list(range(feed.base, feed.base + 12))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 12
    reply = shared.call("timelapse build fps=5", 60)
    assert reply.ok and reply.data["frames"] == 12
    for words in ("clips nocam", "pictures nocam", "library list camera=nocam", "timelapse build nocam"):
        refusal = shared.call(words)
        assert (refusal.status, refusal.text) == ("bad_arguments", "ERROR: no camera 'nocam'; cameras: cam0"), words
    nothing = shared.call("timelapse build since=2020-01-01 until=2020-01-02")
    assert not nothing.ok and "no pictures of that span" in nothing.text


def test_a_running_timelapse_needs_no_more_memory_with_time(tmp_path):
    import resource

    from exporter.films.film import Film

    layout = geometry("yuv420p", 320, 240)
    payload = np.full(layout.payload_bytes, 90, np.uint8)
    with Film(tmp_path / "a.mp4", layout, fps=25, crf=28, about={}) as film:
        for number in range(1200):
            frame_number_code.draw(planes(payload, layout)[0], number)
            film.add(payload)
            if number == 200:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000
    assert playable(tmp_path / "a.mp4") == 1200


@pytest.mark.parametrize(
    ("pixel_format", "width", "height"),
    [("bgr24", 321, 241), ("gray", 320, 241), ("nv12", 320, 240), ("yuv420p", 640, 362)],
)
def test_films_of_any_format_and_size(tmp_path, pixel_format, width, height):
    from exporter.films.film import Film

    layout = geometry(pixel_format, width, height)
    with Film(tmp_path / "a.mp4", layout, fps=25, crf=18, about={"x": 1}) as film:
        for number in range(5):
            payload = np.full(layout.payload_bytes, 128, np.uint8)
            plane = planes(payload, layout)[0]
            plane[...] = 90
            frame_number_code.draw(plane, number)
            film.add(payload)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert json.loads(container.metadata["comment"]) == {"x": 1}
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (width & ~1, height & ~1)
    assert numbers_in_clip(tmp_path / "a.mp4") == list(range(5))


def test_a_dark_frame_taken_from_covered_frames_cleans_later_stacks(shared, feed):
    rng = np.random.default_rng(3)
    hot = rng.random((360, 640)) < 0.001

    def covered(frame_id: int, base: float = 0, noise: float = 0) -> np.ndarray:
        payload = np.full(feed.layout.payload_bytes, 128, np.uint8)
        light = 60 if feed.light else 0
        planes(payload, feed.layout)[0][...] = np.clip(light + 8 + 120 * hot + rng.normal(0, 1, hot.shape), 0, 255)
        return payload

    feed.payload, feed.light = covered, False
    command = [sys.executable, "-m", "exporter.take_dark", "--config", str(shared.config), "--count", "16"]
    night = {"exposure_us": 2_000_000, "analogue_gain": 6.0}
    with streaming(feed, **night):
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"{hot.sum()} hot pixels" in done.stdout, done
    feed.light = True
    feed.publish(10, **night)
    reply = shared.call("pastStack method=mean png count=10 before_s=30")
    assert "dark frame: cam0_640x360_yuv420p_2000000us_6.00x.npz, 2 s, 0 h old" in reply.text
    luma = cv2.cvtColor(cv2.imread(reply.data["path"], cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2GRAY) / 257
    assert np.abs(luma[hot] - luma[~hot].mean()).max() < 4
    with streaming(feed, **night):
        refused = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and "is the lens covered?" in refused.stderr
