"""What capture decides, without a camera: time, drops, settling, modes, pressure, choice of source."""

import logging
import random
import secrets
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from capture.desired_request import (
    ExposureMode,
    Pressure,
    decide_pressure,
    find_changes,
    initial_mode,
    mode_of,
    needs_reopening,
    period_s_of,
    read_swap_percent,
    request_of,
)
from capture.drops_and_settling import PATIENCE_FRAMES, DropCounter, SettlingFlags
from capture.rings import Rings
from capture.settings import LEAST_SLOTS, CameraControlSettings, CameraSettings, DownscaleSettings, RingSettings
from capture.sources.base import CameraError, CameraRequest, ShotMeta
from capture.sources.pyav_stream import ArrivalClock
from capture.sources.select import Chooser, choose_kind
from capture.sources.stream_address import parse_url
from capture.sources.video_file import Pacer
from capture.status import CaptureStatus
from shm_ring import RingReader, RingTooLarge
from shm_ring.formats import geometry
from shm_ring.machine.available_memory import SHM_FOLDER, MemoryRoom
from shmcam.config.memory_plan import MemoryPlan

CAMERA, RING = CameraSettings(), RingSettings()


# ---- pacing


def test_a_29_97_fps_source_stays_on_the_clock_for_ten_minutes():
    """Simulated time: sleeps end late at random, by up to 20 ms; errors must not add up."""
    pacer, now, late, rng = Pacer(), 5_000_000_000, [], random.Random(1)
    period_ns = 1e9 * 1001 / 30000
    pacer.begin(now)
    for frame in range(17_982):  # ten minutes
        now = max(now, pacer.due_ns) + rng.randrange(20_000_000)
        taken = pacer.advance(now, period_ns)
        late.append(abs(taken - (5_000_000_000 + frame * period_ns)))
    assert pacer.skipped == 0
    assert max(late) < 2, "timestamps leave the grid"
    assert abs(pacer.due_ns - 605e9) < period_ns


def test_a_stall_skips_whole_periods_and_stays_on_the_grid():
    pacer = Pacer()
    pacer.begin(1_000)
    assert pacer.advance(1_000, 100) == 1_000
    assert pacer.advance(1_457, 100) == 1_400, "the frame that was due at 1400 is the one taken"
    assert pacer.skipped == 3
    assert pacer.due_ns == 1_500


def test_as_fast_as_possible_has_no_grid():
    pacer = Pacer()
    pacer.begin(10)
    assert [pacer.advance(now, 0) for now in (11, 12, 50)] == [11, 12, 50]
    assert pacer.skipped == 0


# ---- drops


@pytest.mark.parametrize("told", [True, False], ids=["duration told", "duration unknown"])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1])
def test_injected_drops_are_counted_exactly(told, rate):
    """Jitter of 0.1 periods; without the camera's own durations the median of the gaps must do."""
    rng, counter, period = random.Random(3), DropCounter(), 33_333_333
    at, lost, found = 10**12, [], []
    most = 0.24 if told else 0.2  # 1.5 periods are 1.5 only as well as the period is known
    for frame in range(2000):
        missing = rng.choice([1, 1, 2, 5]) if frame > 10 and rng.random() < rate else 0
        at += period * (1 + missing)
        lost.append(missing)
        jitter = max(-most, min(most, rng.gauss(0, 0.1)))
        found.append(counter.count(at + int(jitter * period), 33_333 if told else 0))
    assert found == lost
    assert counter.total == sum(lost)


def test_long_night_exposures_are_no_drops():
    counter, at = DropCounter(), 10**12
    for duration_us in [33_333] * 20 + [2_000_000] * 5 + [33_333] * 20:
        at += duration_us * 1000
        assert counter.count(at, duration_us) == 0


def test_a_restart_forgets_the_gap_but_not_the_count():
    counter = DropCounter()
    counter.count(10**9, 33_333)
    assert counter.count(10**9 + 100_000_000, 33_333) == 2
    counter.restart()
    assert counter.count(90 * 10**9, 33_333) == 0
    assert counter.total == 2


def test_what_the_device_itself_lost_counts_even_without_a_gap():
    counter = DropCounter()
    counter.count(10**9, 33_333)
    assert counter.count(10**9 + 33_000_000, 33_333, lost_before=4) == 4


# ---- arrival clock


def test_jitter_of_the_way_is_taken_out_and_drift_is_followed():
    """A device 100 ppm fast, up to 30 ms late at random: its frames keep their own distances to within 2 ms."""
    rng, clock, errors = random.Random(2), ArrivalClock(), []
    for frame in range(5000):
        true = 10**12 + frame * 40_000_000
        own = int(frame * 40_000_000 * (1 + 100e-6))
        errors.append(clock.captured_ns(own, true + int(rng.random() * 30e6)) - true)
    assert max(errors[500:]) - min(errors[500:]) < 8e6
    assert abs(errors[-1]) < 10e6


def test_a_stream_that_starts_over_is_placed_anew():
    clock = ArrivalClock()
    clock.captured_ns(5_000_000_000, 100_000_000_000)
    assert clock.captured_ns(0, 101_000_000_000) == 101_000_000_000


# ---- settling


def settled_at(shots, asked):
    settling = SettlingFlags()
    settling.begin(asked)
    flags = [settling.update(shot) for shot in shots]
    assert flags == sorted(flags, reverse=True), "settled, then unsettled again"
    return flags.index(False)


def test_frames_are_settling_until_their_own_metadata_is_what_was_asked():
    still = CameraRequest(640, 480, 30, mode="still", exposure_us=2_000_000, gain=6)
    shots = [ShotMeta(exposure_us=33_000, analogue_gain=1)] * 5 + [
        ShotMeta(exposure_us=1_999_800, analogue_gain=6.02)
    ] * 3
    assert settled_at(shots, still) == 5


def test_auto_exposure_has_settled_when_it_rests():
    levels = [1000, 2000, 4000, 6000, 7000, 7400, 7500, 7520, 7520, 7520, 7520]
    shots = [ShotMeta(exposure_us=level, analogue_gain=1) for level in levels]
    assert 6 <= settled_at(shots, CameraRequest(640, 480, 30)) <= 9


def test_cameras_that_tell_nothing_are_given_ten_frames():
    assert settled_at([ShotMeta()] * 30, CameraRequest(640, 480, 30)) == 10


def test_a_camera_that_never_gets_there_is_believed_in_the_end():
    still = CameraRequest(640, 480, 30, mode="still", exposure_us=2_000_000, gain=6)
    assert settled_at([ShotMeta(exposure_us=100, analogue_gain=1)] * 200, still) == PATIENCE_FRAMES - 1


# ---- modes


def test_the_mode_of_the_start_follows_video_mode():
    assert initial_mode(CAMERA) == ExposureMode("video")
    assert initial_mode(CameraSettings(video_mode=False, exposure_us=50_000, gain=2)) == ExposureMode(
        "still", 50_000, 2
    )


def test_a_requested_mode_takes_the_configured_exposure_for_zero():
    assert mode_of("still", 0, 0, CAMERA) == ExposureMode("still", CAMERA.exposure_us, CAMERA.gain)
    assert mode_of("slow_video", 500_000, 0, CAMERA) == ExposureMode("slow_video", 500_000, 0)
    assert mode_of("video", 1, 1, CAMERA) == ExposureMode()
    with pytest.raises(ValueError, match="mode 'turbo'"):
        mode_of("turbo", 0, 0, CAMERA)


def test_changes_name_exactly_the_fields_that_differ_old_and_new():
    before = request_of(CameraSettings(controls=CameraControlSettings(Brightness=0.1)), RING, ExposureMode())
    after = request_of(
        CameraSettings(framerate=10, controls=CameraControlSettings(Brightness=0.2, Contrast=2)),
        RING,
        ExposureMode("still", 9000, 2),
    )
    assert find_changes(before, after) == {
        "framerate": (30.0, 10),
        "mode": ("video", "still"),
        "exposure_us": (0, 9000),
        "gain": (0.0, 2),
        "Brightness": (0.1, 0.2),
        "Contrast": (None, 2),
    }
    assert find_changes(before, before) == {}


def test_another_mode_is_announced_and_a_step_of_the_exposure_only_logged(caplog):
    """The page showed "mode changed (still → still)" for each step of the night's exposure."""
    caplog.set_level(logging.INFO, logger="capture.status")
    modes = (
        ExposureMode(),
        ExposureMode(),
        ExposureMode("still", 9000, 2),
        ExposureMode("still", 20_000, 2),
        ExposureMode("still", 20_000, 2),
        ExposureMode(),
    )
    announced = []
    report = CaptureStatus(SimpleNamespace(announce=announced.append), "cam0")
    for mode in modes:
        report.report_request(request_of(CAMERA, RING, mode))
    assert [(event.old, event.new) for event in announced] == [("video", "still"), ("still", "video")]
    assert announced[0].changes["exposure_us"] == [0, 9000]
    assert caplog.text.count("changed exposure_us 9000 → 20000") == 1


def test_only_size_format_and_the_small_stream_need_the_camera_reopened():
    base = request_of(CAMERA, RING, ExposureMode())
    assert not needs_reopening(base, request_of(CameraSettings(framerate=5), RING, ExposureMode("still", 10, 1)))
    assert needs_reopening(base, request_of(CameraSettings(preset=7), RING, ExposureMode()))
    assert needs_reopening(base, request_of(CameraSettings(codec="nv12"), RING, ExposureMode()))
    assert needs_reopening(
        base, request_of(CAMERA, RingSettings(downscale=DownscaleSettings(enable=True)), ExposureMode())
    )


@pytest.mark.parametrize(
    ("preset", "size"),
    list(
        enumerate([(1456, 1088), (1280, 960), (1280, 720), (1024, 768), (800, 600), (640, 480), (480, 360), (320, 240)])
    ),
)
def test_presets_are_the_sizes_of_the_user_s_card(preset, size):
    asked = request_of(CameraSettings(preset=preset, width=16, height=16), RING, ExposureMode())
    assert (asked.width, asked.height) == size


def test_a_frame_may_take_as_long_as_its_exposure():
    assert period_s_of(CameraRequest(8, 8, 30)) == pytest.approx(1 / 30)
    assert period_s_of(CameraRequest(8, 8, 30, mode="still", exposure_us=2_000_000)) == 2.0
    assert period_s_of(CameraRequest(8, 8, 0), framerate=120) == pytest.approx(1 / 120)


def test_memory_pressure_halves_the_frame_rate():
    assert request_of(CAMERA, RING, ExposureMode(), slow=True).framerate == 15
    assert request_of(CameraSettings(framerate=0), RING, ExposureMode(), slow=True).framerate == 15


# ---- pressure


def test_swap_slows_at_70_pauses_at_85_and_does_not_flap():
    state, seen = Pressure.NONE, []
    for percent in [0, 69, 70, 68, 66, 64, 84, 86, 83, 81, 79, 71, 66, 64]:
        state = decide_pressure(percent, state, CAMERA)
        seen.append(state.value[0])
    assert "".join(seen) == "nnsssn" + "sppp" + "ss" + "sn"


def test_swap_is_read_from_proc(tmp_path: Path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1 kB\nSwapTotal:     2000 kB\nSwapFree:       500 kB\nHugePages_Total:  0\n")
    assert read_swap_percent(meminfo) == 75
    meminfo.write_text("MemTotal: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
    assert read_swap_percent(meminfo) == 0


# ---- choice of source


@pytest.mark.parametrize(
    ("picamera2", "v4l2", "kind", "words"),
    [
        ("", "", "picamera2", "picamera2 answers"),
        ("no Picamera2", "", "v4l2", "no Picamera2"),
        ("no Picamera2", "0 devices", "synthetic", "v4l2: 0 devices"),
    ],
)
def test_auto_takes_a_real_camera_first_and_says_why(picamera2, v4l2, kind, words):
    chosen, reason = choose_kind("auto", {"picamera2": picamera2, "v4l2": v4l2})
    assert chosen == kind
    assert words in reason


def test_an_explicit_source_is_taken_as_it_is():
    assert choose_kind("file", {}) == ("file", "camera.source = file")


def test_auto_stays_with_the_real_camera_it_has_found(monkeypatch, tmp_path):
    """An unplugged webcam must not turn into the synthetic picture, which looks alive."""
    answers = iter([{"picamera2": "none", "v4l2": ""}, {"picamera2": "none", "v4l2": "gone"}])
    monkeypatch.setattr("capture.sources.select._reasons_against", lambda index: next(answers))
    made = []
    monkeypatch.setattr("capture.sources.select.MAKERS", {"v4l2": lambda *_: made.append("v4l2")})
    chooser = Chooser(0, tmp_path)
    for _ in range(3):
        assert chooser(CAMERA).kind == "v4l2"
    assert made == ["v4l2"] * 3


def test_a_file_source_without_a_path_says_what_to_set(tmp_path):
    for source, words in (("file", "camera.path is empty"), ("replay", "camera.path is empty"), ("url", "rtsp://")):
        with pytest.raises(CameraError, match=words):
            Chooser(0, tmp_path)(CameraSettings(source=source))


def test_passwords_of_cameras_are_never_shown():
    assert parse_url("rtsp://admin:secret@10.0.0.5:554/live?token=abc").shown == "rtsp://10.0.0.5:554/live"
    assert "secret" not in parse_url("http://u:secret@host/x").shown


# ---- rings


@pytest.mark.parametrize(
    ("stream", "rate", "settings", "slots"),
    [
        ("main", 30, RingSettings(), 180),
        ("main", 29.97, RingSettings(seconds=10), 300),
        ("main", 0.5, RingSettings(), LEAST_SLOTS),
        ("main", 30, RingSettings(size=12), 12),
        ("main", 30, RingSettings(size=900, downscale=DownscaleSettings(enable=True)), 30),
        ("main", 10, RingSettings(size=300, downscale=DownscaleSettings(enable=True, full_seconds=3)), 30),
        ("lores", 10, RingSettings(size=300, downscale=DownscaleSettings(enable=True)), 300),
        ("lores", 30, RingSettings(seconds=10, downscale=DownscaleSettings(enable=True)), 300),
        ("lores", 30, RingSettings(size=12, downscale=DownscaleSettings(enable=True, size=900)), 900),
    ],
)
def test_slots_follow_seconds_and_rate_unless_the_user_names_them(stream, rate, settings, slots):
    assert settings.slots_of(stream, rate) == slots


def test_a_ring_is_made_as_large_as_fits_and_the_log_has_the_sum(monkeypatch, tmp_path, caplog):
    """/dev/shm has room for about 20 frames, as in a container with Docker's 64 MB."""
    tight = MemoryRoom(10**12, 20 * 115_200)
    monkeypatch.setattr("capture.rings.available_room", lambda: tight)
    shape = geometry("yuv420p", 320, 240)
    with Rings(f"t{secrets.token_hex(4)}", "cam0", tmp_path) as rings:
        writer = rings.fit("main", shape, 180)
        assert 8 <= writer.slots < 20
        assert rings.fit("main", shape, 180) is writer, "same wishes, same ring"
        assert f"size adjusted requested=180 effective={writer.slots}: 180 slots of 0.115 MB need" in caplog.text
    with Rings(f"t{secrets.token_hex(4)}", "cam0", tmp_path) as rings:
        assert 8 <= rings.fit("main", shape, 60_000).slots < 20
    with Rings(f"t{secrets.token_hex(4)}", "cam0", tmp_path) as rings, pytest.raises(RingTooLarge):
        rings.fit("main", geometry("yuv420p", 8192, 8192), 60_000)


def test_a_ring_is_never_larger_than_was_asked_for(monkeypatch, tmp_path):
    rooms = iter([MemoryRoom(0, 0)])
    monkeypatch.setattr("capture.rings.available_room", lambda: next(rooms, MemoryRoom(10**12, 10**12)))
    with Rings(f"t{secrets.token_hex(4)}", "cam0", tmp_path) as rings:
        assert rings.fit("main", geometry("yuv420p", 320, 240), 4).slots == 4


PLAN = MemoryPlan({"all": 200_000_000}, {"cam0.main": 60_000_000, "cam1.main": 60_000_000})


def test_a_ring_leaves_room_for_programs_and_rings_that_are_to_come(monkeypatch, tmp_path):
    """On 430 MB it took all that was free, and the kernel killed the programs that came after it."""
    shape, prefix = geometry("yuv420p", 320, 240), f"t{secrets.token_hex(4)}"
    monkeypatch.setattr("capture.rings.available_room", lambda: MemoryRoom(180_000_000, 10**12))
    monkeypatch.setattr("capture.rings.read_service_bytes", lambda: 100_000_000)
    with Rings(prefix, "cam0", tmp_path, plan=PLAN) as rings:
        # 180 MB less 100 for programs, of which each of two cameras gets half, and a ring takes four fifths
        assert 30_500_000 < rings.fit("main", shape, 500).slots * 115_200 < 32_500_000
        (SHM_FOLDER / f"{prefix}.cam1.main").touch()
        try:
            assert rings.fit("main", shape, 501).slots == 501
        finally:
            (SHM_FOLDER / f"{prefix}.cam1.main").unlink()


def test_a_crashed_writer_s_smaller_ring_is_carried_on_when_no_larger_one_fits(monkeypatch, tmp_path):
    shape, prefix = geometry("yuv420p", 320, 240), f"t{secrets.token_hex(4)}"
    crashed = Rings(prefix, "cam0", tmp_path)
    monkeypatch.setattr("capture.rings.available_room", lambda: MemoryRoom(10**12, 20 * 115_200))
    slots = crashed.fit("main", shape, 180).slots
    crashed.leave()
    monkeypatch.setattr("capture.rings.available_room", lambda: MemoryRoom(10**12, 0))
    with Rings(prefix, "cam0", tmp_path) as rings:
        writer = rings.fit("main", shape, 180)
        assert (writer.slots, writer.took_over) == (slots, True)


def test_a_ring_whose_name_was_taken_away_is_given_up_once_and_made_anew(monkeypatch, tmp_path):
    shape, prefix = geometry("yuv420p", 64, 48), f"t{secrets.token_hex(4)}"
    monkeypatch.setattr("capture.rings.CHECK_NS", 0)
    with Rings(prefix, "cam0", tmp_path) as rings:
        before = rings.fit("main", shape, 4)
        assert not rings.check()
        (SHM_FOLDER / f"{prefix}.cam0.main").unlink()
        assert rings.check() and not rings.check(), "the next `fit` makes it, and nothing is wrong until then"
        after = rings.fit("main", shape, 4)
        assert (after.slots, after.generation) == (4, before.generation + 1) and not rings.check()


def room_of(prefix, total_bytes):
    """A /dev/shm of so many bytes: what the rings of this prefix take, also those that only a reader still holds."""

    def room():
        taken = {}
        for line in Path("/proc/self/maps").read_text().splitlines():
            if f"/dev/shm/{prefix}." in line:
                first, last = (int(end, 16) for end in line.split()[0].split("-"))
                taken[line.split()[4]] = last - first
        return MemoryRoom(10**12, total_bytes - sum(taken.values()))

    return room


def test_a_resize_waits_for_readers_and_one_that_holds_on_costs_size_only_while_it_does(monkeypatch, tmp_path):
    """The old ring's pages count as long as anybody maps it: the new one came out smaller, for good."""
    prefix = f"t{secrets.token_hex(4)}"
    name = f"/{prefix}.cam0.main"
    monkeypatch.setattr("capture.rings.available_room", room_of(prefix, 25 * 115_200))
    monkeypatch.setattr("capture.rings.CHECK_NS", 0)
    small, large = geometry("yuv420p", 320, 240), geometry("yuv420p", 320, 256)
    with Rings(prefix, "cam0", tmp_path) as rings:
        assert rings.fit("main", small, 20).slots == 20
        threading.Timer(0.2, RingReader.open(name).close).start()
        assert rings.fit("main", large, 20).slots == 20
        assert rings.shortage == ""
        monkeypatch.setattr("capture.rings.RELEASE_NS", 50_000_000)
        reader = RingReader.open(name)
        slots = rings.fit("main", small, 20).slots
        assert slots < 20
        assert rings.shortage == f"ring main holds {slots} of 20 frames: no room"
        assert not rings.check(), "no room yet"
        reader.close()
        assert rings.check(), "to be made anew"
        assert rings.fit("main", small, 20).slots == 20
        assert rings.shortage == ""
        assert not rings.check()


def test_a_resize_that_was_refused_at_first_gets_its_size_in_the_end_too(monkeypatch, tmp_path):
    """A reader that holds on to the old ring leaves no room at all, then for some slots, then for all of them."""
    prefix = f"t{secrets.token_hex(4)}"

    def room_for(slots):
        for module in ("capture.rings", "shm_ring.segment"):
            monkeypatch.setattr(f"{module}.available_room", room_of(prefix, slots * 125_000))

    monkeypatch.setattr("capture.rings.CHECK_NS", 0)
    monkeypatch.setattr("capture.rings.RELEASE_NS", 50_000_000)
    with Rings(prefix, "cam0", tmp_path) as rings:
        rings.fit("main", geometry("yuv420p", 320, 240), 20)
        with RingReader.open(f"/{prefix}.cam0.main"):
            room_for(20)
            larger = geometry("yuv420p", 320, 256)
            with pytest.raises(RingTooLarge):
                rings.fit("main", larger, 20)
            room_for(30)
            assert 2 <= rings.fit("main", larger, 20).slots < 20
            assert not rings.check(), "no room yet"
        assert rings.check(), "to be made anew"
        assert rings.fit("main", larger, 20).slots == 20


def test_a_ring_that_others_left_no_room_for_gets_its_size_when_they_are_gone(monkeypatch, tmp_path):
    """`no room` stayed in the status until a restart."""
    prefix, shape = f"t{secrets.token_hex(4)}", geometry("yuv420p", 320, 240)
    monkeypatch.setattr("capture.rings.CHECK_NS", 0)
    monkeypatch.setattr("capture.rings.available_room", room_of(prefix, 12 * 115_200))
    with Rings(prefix, "cam0", tmp_path) as rings:
        assert rings.fit("main", shape, 20).slots < 20
        assert rings.shortage and not rings.check(), "no room yet"
        monkeypatch.setattr("capture.rings.available_room", room_of(prefix, 60 * 115_200))
        assert rings.check(), "to be made anew"
        assert rings.fit("main", shape, 20).slots == 20
        assert not rings.shortage and not rings.check()
