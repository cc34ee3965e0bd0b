"""One frame from a real ring through everything: odd frames, odd metadata, and what is published of them."""

import contextlib
import math
import secrets
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from analyzer.frame_analyzer import FrameAnalyzer
from analyzer.keogram.daily_keogram import KeogramKeeper
from analyzer.keogram.keogram_thread import KeogramThread
from analyzer.loop import Analyzer, FrameRate, analyze_frame, report, run, settings_of
from analyzer.plugins.host import Plugins
from analyzer.scores_writer import ScoresWriter
from analyzer.settings import AnalyzerSettings
from shm_ring import FrameMeta, RingMismatch, RingReader, RingWriter
from shm_ring.formats import geometry
from shm_ring.records.scores import PLUGINS_BYTES, SCORE, SOURCES, Scores, parse
from shmcam.config.settings import Settings
from shmcam.control.messages import ModeRequested, NightBegan
from shmcam.runtime.stop import Stop

SECOND = 1_000_000_000


class Control:
    """Remembers what was announced."""

    def __init__(self):
        self.said = []

    def announce(self, event):
        self.said.append(event)


class World:
    def __init__(self, folder, toml=""):
        self.prefix = f"t{secrets.token_hex(5)}"
        (folder / "run").mkdir()
        config = folder / "config.toml"
        config.write_text(f'{toml}\n[ring]\nprefix = "{self.prefix}"\n')
        self.settings = Settings.load(config, environ={})
        self.folder, self.stack, self.number = folder, contextlib.ExitStack(), 0

    def __enter__(self):
        enter = self.stack.enter_context
        self.frames = enter(self.ring("main", 8, 1 << 20))
        self.scores = enter(self.ring("scores", 64, SCORE.itemsize))
        self.reader = enter(RingReader.open(self.frames.name))
        own = self.settings.table(AnalyzerSettings, "cam0")
        self.control = Control()
        self.analyzer = Analyzer(
            "cam0",
            self.settings,
            FrameAnalyzer(*settings_of(self.settings, "cam0")),
            ScoresWriter(self.scores),
            self.control,
            enter(Plugins(own, self.frames.name, self.folder)),
            enter(KeogramThread(KeogramKeeper(own, self.settings.paths, "cam0"), lambda _paths: None, Stop())),
        )
        return self

    def __exit__(self, *error):
        self.stack.__exit__(*error)
        for left in Path("/dev/shm").glob(f"{self.prefix}.*"):  # a test that failed leaves its rings as black boxes
            left.unlink()

    def ring(self, stream, slots, payload_bytes):
        name = f"/{self.prefix}.cam0.{stream}"
        return RingWriter.create(
            name, slots=slots, payload_bytes=payload_bytes, lock_dir=self.folder / "run", camera="cam0", stream=stream
        )

    def show(self, value, shape=("gray", 64, 48), **meta):
        """Publish one flat frame and take it. Returns the result."""
        form = geometry(*shape)
        self.number += 1
        given = FrameMeta(self.number, self.number * SECOND, self.number * SECOND + 10**18, **meta)
        self.frames.publish(np.full(form.payload_bytes, value, np.uint8), given, form)
        result = analyze_frame(self.reader, self.reader.latest(), self.analyzer)
        if result:
            report(result, self.analyzer)
        return result

    def latest(self):
        with Scores(self.scores.name) as scores:
            return scores.latest()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "bgr24", "rgb24", "gray"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 2), (641, 479)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_every_format_size_and_value_gives_a_sane_record(tmp_path, pixel_format, size, value):
    with World(tmp_path) as world:
        for _ in range(3):
            assert world.show(value, (pixel_format, *size), exposure_us=10_000, analogue_gain=1.0)
        record = world.latest()
    assert record.frame_id == 3
    assert record.dark_score == pytest.approx(value, abs=1)
    assert record.motion_box == (0, 0, 0, 0)
    floats = [getattr(record, name) for name in record.__slots__ if isinstance(getattr(record, name), float)]
    assert all(math.isfinite(one) for one in floats if one is not record.lux)


@pytest.mark.parametrize(
    "meta",
    [
        {"exposure_us": 0},
        {"exposure_us": 10, "analogue_gain": math.nan},
        {"exposure_us": 10, "analogue_gain": math.inf, "digital_gain": math.nan, "lux": -1.0},
        {"analogue_gain": -3.0, "lux": math.inf},
    ],
)
def test_metadata_that_cannot_be_is_taken_for_unknown(tmp_path, meta):
    with World(tmp_path) as world:
        result = world.show(100, **meta)
        assert result.assessment.source.name == "RAW"
        assert world.latest().source == "raw"
        assert world.latest().scene_brightness == pytest.approx(100, abs=0.5)


def test_what_is_no_picture_is_passed_over_and_the_next_frame_counts(tmp_path, caplog):
    with World(tmp_path) as world:
        world.frames.publish(np.arange(100, dtype=np.uint8), FrameMeta(1, 1, 1))
        assert analyze_frame(world.reader, world.reader.latest(), world.analyzer) is None
        assert "frame not understood" in caplog.text
        assert world.show(50)


def test_a_change_of_size_and_format_in_one_ring_is_no_trouble(tmp_path):
    with World(tmp_path) as world:
        for shape in [("gray", 64, 48), ("yuv420p", 640, 480), ("bgr24", 32, 32), ("gray", 1, 1)] * 2:
            assert world.show(90, shape).motion.area == 0.0


def test_night_is_announced_with_its_numbers_and_the_exposure_it_wants(tmp_path):
    with World(tmp_path, "[night]\ndwell_s = 3.0\nmin_dark_frames = 3") as world:
        for _ in range(6):
            world.show(10, exposure_us=33_333, analogue_gain=8.0)
        names = [type(one) for one in world.control.said]
        assert names[:2] == [NightBegan, ModeRequested]
        began, asked = world.control.said[:2]
        assert began.score == pytest.approx(10, abs=1)
        assert began.reason.startswith("level=10.0<40")
        assert (asked.mode, asked.camera) == ("still", "cam0")
        assert asked.exposure_us > 0 and 1 <= asked.gain <= 6
        assert world.latest().night


def test_the_scale_of_the_thresholds_follows_the_frame_rate(tmp_path):
    with World(tmp_path, "[camera]\nframerate = 10.0") as world:
        assert world.analyzer.frames.night_settings.reference_exposure_us == 100_000
        result = world.show(40, exposure_us=100_000, analogue_gain=8.0)
        assert result.assessment.level == pytest.approx(40, abs=0.5)


def test_plugin_results_that_do_not_fit_the_record_are_left_out_whole(tmp_path):
    with World(tmp_path) as world:
        result = world.show(80)
        many = {"a": {"x": 1.0}, "b": {f"k{n}": "y" * 60 for n in range(32)}, "c": {"z": 2}}
        world.analyzer.scores.publish(result, world.analyzer.frames, many)
        assert world.latest().plugins == {"a": {"x": 1.0}, "c": {"z": 2}}


def test_the_record_is_one_kib_and_its_fields_stand_where_readers_expect_them():
    assert SCORE.itemsize == 1024
    assert PLUGINS_BYTES == 908
    where = {name: SCORE.fields[name][1] for name in SCORE.names}
    assert (where["dark_score"], where["p10"], where["motion_score"], where["night"], where["plugins"]) == (
        16, 60, 84 + 4, 108, 116,
    )  # fmt: skip


def test_a_record_of_another_version_or_length_is_refused():
    record = np.zeros(1, SCORE)
    with pytest.raises(RingMismatch, match="version 0; expected 1"):
        parse(record.view(np.uint8))
    with pytest.raises(RingMismatch, match="100 bytes; expected 1024"):
        parse(np.zeros(100, np.uint8))
    record["version"], record["source"], record["plugins_bytes"] = 1, 200, 5
    record["plugins"][0][:5] = list(b"[1,2]")
    score = parse(record.view(np.uint8))
    assert score.source == SOURCES[-1]
    assert score.plugins == {}


def test_without_an_analyzer_every_question_is_answered_with_none():
    with Scores(f"/none{secrets.token_hex(4)}.cam0.scores") as scores:
        assert scores.latest() is None
        assert scores.nearest(5) is None


def test_the_record_of_a_skipped_frame_is_that_of_the_one_before(tmp_path):
    with World(tmp_path) as world:
        for frame_id in (3, 7, 9):
            world.number = frame_id - 1
            world.show(80)
        with Scores(world.scores.name) as scores:
            found = [scores.nearest(wanted) for wanted in (2, 3, 6, 7, 8, 100)]
    assert [one and one.frame_id for one in found] == [None, 3, 3, 7, 7, 9]


def test_a_frame_overwritten_while_it_is_looked_at_is_forgotten(tmp_path):
    with World(tmp_path) as world:
        world.show(80)
        gone = world.reader.latest()
        form = geometry("gray", 64, 48)
        for number in range(20):
            world.frames.publish(np.zeros(form.payload_bytes, np.uint8), FrameMeta(100 + number, 1, 1), form)
        assert analyze_frame(world.reader, gone, world.analyzer) is None
        assert SimpleNamespace(id=world.latest().frame_id).id == 1


def test_the_rate_of_frames_that_stopped_is_nothing_and_soon_they_are_missed():
    rate = FrameRate()
    assert rate.is_silent(0) and rate.per_s(0) == 0
    for number in range(31):
        rate.add(number * SECOND // 30, exposure_us=10_000)
    assert rate.per_s(SECOND) == 30 and not rate.is_silent(SECOND)
    assert rate.per_s(2 * SECOND + 1) == 0 and not rate.is_silent(2 * SECOND + 1)
    assert rate.is_silent(6 * SECOND + 1)


def test_a_long_exposure_explains_a_long_silence():
    rate = FrameRate()
    for number in range(3):
        rate.add(number * 30 * SECOND, exposure_us=30_000_000)
    assert rate.per_s(120 * SECOND) == 1 / 30 and not rate.is_silent(120 * SECOND)
    assert rate.per_s(151 * SECOND) == 0 and rate.is_silent(151 * SECOND)


class Idle(Control):
    """A hub that says nothing."""

    def delegate(self, _obey):
        return SimpleNamespace(iterate=iter)

    def receive(self):
        return []

    def beat(self, state, reason, **_figures):
        self.said.append((state, reason))


@pytest.fixture
def beats_always(monkeypatch):
    """A heartbeat is due in each pass."""
    monkeypatch.setattr("analyzer.loop.BEAT_S", 1e-9)


def run_without_frames(world, **parts):
    """Runs the loop through two waits in which no frame came. Returns: what the hub was told."""
    ring = SimpleNamespace(sequences=lambda **_: iter([None, None]), skipped=0, laps=0, problem="")
    control = Idle()
    run(ring, replace(world.analyzer, control=control, **parts), Stop())
    return control.said


def test_the_day_of_the_keogram_ends_also_while_no_frames_come(tmp_path, beats_always):
    asked_ns = []
    with World(tmp_path) as world:
        before_ns = time.time_ns()
        keogram = SimpleNamespace(end_day_if_over=asked_ns.append)
        assert set(run_without_frames(world, keogram=keogram)) == {("waiting", "no frames")}
    assert len(asked_ns) == 2 and all(before_ns <= at_ns <= time.time_ns() for at_ns in asked_ns)


def test_an_analyzer_whose_scores_nobody_finds_any_more_starts_again(tmp_path, caplog, beats_always):
    with World(tmp_path) as world:
        run_without_frames(world)
        Path(f"/dev/shm{world.scores.name}").unlink()
        with pytest.raises(SystemExit) as end:
            run_without_frames(world)
    assert end.value.code == 1 and "its name was taken away" in caplog.text
