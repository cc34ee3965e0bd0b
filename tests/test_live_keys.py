"""A key that is called live acts when it is set: for each one, what its owner does differently.

One service for all of them. A key of the schema without a row fails, and so does a row whose key is gone.
"""

from __future__ import annotations

import io
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from shmcam.config.schema import list_keys
from tests.machine import PATIENCE, until
from tests.pipeline import Pipeline
from tests.streamer.test_process import parts

LIVE = sorted(path for path, key in list_keys().items() if key.apply == "live")
SETTINGS = {
    "camera": {"width": 640, "height": 480, "framerate": 20},
    "recorder": {
        "preset": "ultrafast",
        "overlay": {
            "show_time": False,
            "show_frame_number": False,
            "show_fps": False,
            "text": "X",
            "font_scale_base": 3.0,
        },
    },
    "export": {"stack_count": 4, "save_before_s": 0.5},
}


@dataclass(frozen=True)
class Row:
    """The measure is taken before the key is set, and then until `acts(before, now)`."""

    value: Any
    measure: Callable[[Pipeline], Any]
    acts: Callable[[Any, Any], bool]
    others: dict[str, Any] | None = None
    """Keys that are set before, and set back in the end."""


@dataclass(frozen=True)
class SeenBy:
    """Another test sets it in a running process and sees what its owner does."""

    test: str


@dataclass(frozen=True)
class Decided:
    """What it does is tested without a process; here it is only seen that its owner takes it over."""

    value: Any
    owner: str


# ---- measures


def picture(p: Pipeline) -> np.ndarray:
    def fetch() -> bytes:
        with urllib.request.urlopen(f"{p.url}/snapshot.jpg", timeout=PATIENCE * 10) as answer:
            return b"" if "X-Signal" in answer.headers else answer.read()

    return simplejpeg.decode_jpeg(until(fetch, 20, "a picture of the camera"), colorspace="GRAY")[:, :, 0]


def letters(p: Pipeline) -> np.ndarray:
    """Rows and columns of the bright pixels of a picture that is black but for the text."""
    return np.argwhere(picture(p) > 60)


def saved(p: Pipeline, line: str = "save") -> Path:
    return Path(p.text(line).partition("image: ")[2].partition(" (")[0])


def saved_bytes(suffix: str) -> Callable[[Pipeline], int]:
    return lambda p: saved(p, f"save {suffix}").stat().st_size


def stacked(p: Pipeline) -> dict[str, Any]:
    return dict(p.json({"command": "past_stack"})["data"])


def wait_of_stack(p: Pipeline) -> float:
    begun = time.monotonic()
    stacked(p)
    return time.monotonic() - begun


def status(p: Pipeline) -> str:
    return next(line for line in p.text("status").splitlines() if line.startswith("capture"))


def stream_period_s(p: Pipeline) -> float:
    with urllib.request.urlopen(f"{p.url}/stream", timeout=PATIENCE * 10) as response:
        times = [
            float(headers["X-Timestamp"]) for headers, _ in islice(parts(response), 4) if "X-Signal" not in headers
        ]
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def recorded(p: Pipeline) -> Path:
    reply = p.text("record start", 60)
    p.wait_recorded(10)
    p.text("record stop", 60)
    return Path(reply.split()[1])


def captures(pattern: str) -> Callable[[Pipeline], int]:
    return lambda p: len(list((p.folder / "captures").glob(pattern)))


def log_of(program: str) -> Callable[[Pipeline], str]:
    return lambda p: (p.folder / f"logs/{program}.log").read_text()


def log_after_ping(p: Pipeline) -> str:
    p.text("ping")  # the hub tells the end of each connection at DEBUG
    return log_of("hub")(p)


# ---- rows

BLACK = {
    "privacy.enable": True,
    "privacy.polygons": [[[0, 0], [1, 0], [1, 1], [0, 1]]],
    "recorder.overlay.enable": True,
}
NIGHT = {"night": "on"}


def is_covered(before: np.ndarray, now: np.ndarray) -> bool:
    return before.max() > 60 > now.max()


def is_stack_then_pictures(before: str, now: str) -> bool:
    return "stack of" in before and "stack of" not in now


def overlay(value: Any, acts: Callable[[np.ndarray, np.ndarray], bool]) -> Row:
    return Row(value, letters, acts, BLACK)


def more_letters(value: Any) -> Row:
    return overlay(value, lambda before, now: len(now) > 1.3 * len(before) > 0)


def control(name: str, value: Any) -> Row:
    """Without a camera that has it, the request to the camera is what capture does."""
    return Row(value, log_of("capture"), lambda _, now: f"changed {name} None → " in now)


CONTROLS = {
    "AeEnable": True, "AeMeteringMode": 1, "AeExposureMode": 1, "ExposureValue": 1.0, "ExposureTime": 5000,
    "AnalogueGain": 2.0, "AwbEnable": True, "AwbMode": 1, "ColourGains": [1.5, 1.5], "Brightness": 0.1, "Contrast": 1.1,
    "Saturation": 1.1, "Sharpness": 1.1, "NoiseReductionMode": 1, "AfMode": 0, "LensPosition": 1.0,
    "ScalerCrop": [0, 0, 320, 240],
}  # fmt: skip

ROWS: dict[str, Row | SeenBy | Decided] = {
    "camera.width": Row(480, picture, lambda _, now: now.shape[1] == 480),
    "camera.height": Row(360, picture, lambda _, now: now.shape[0] == 360),
    "camera.framerate": Row(10.0, status, lambda _, now: "fps=10." in now or "fps=9." in now),
    "camera.exposure_us": SeenBy("tests/capture/test_wishes.py"),
    "camera.video_mode": SeenBy("tests/capture/test_wishes.py"),
    "camera.preset": SeenBy("tests/capture/test_process.py"),
    "camera.gain": Decided(2.0, "capture"),
    "camera.codec": Decided("yuv420", "capture"),
    "camera.capture_timeout_s": Decided(3.0, "capture"),
    "camera.memory_limit_mb": Decided(900, "capture"),
    "camera.swap_slow_percent": Decided(50.0, "capture"),
    "camera.swap_pause_percent": Decided(90.0, "capture"),
    "privacy.enable": Row(
        True, picture, is_covered, {"privacy.polygons": BLACK["privacy.polygons"]}
    ),
    "privacy.polygons": Row(
        BLACK["privacy.polygons"], picture, is_covered, {"privacy.enable": True}
    ),
    "recorder.overlay.enable": Row(
        True, letters, lambda before, now: len(now) > 0 == len(before), {**BLACK, "recorder.overlay.enable": False}
    ),
    "recorder.overlay.show_time": more_letters(True),
    "recorder.overlay.show_frame_number": more_letters(True),
    "recorder.overlay.show_fps": more_letters(True),
    "recorder.overlay.text": more_letters("XXXX"),
    "recorder.overlay.font_scale_base": more_letters(8.0),
    "recorder.overlay.thickness_base": more_letters(12),
    "recorder.overlay.text_color": Row(
        [120, 120, 120], picture, lambda before, now: before.max() > 200 and 100 < now.max() < 140, BLACK
    ),
    "recorder.overlay.place": overlay("bottom-left", lambda before, now: now[:, 0].min() > 240 > before[:, 0].min()),
    "recorder.overlay.margin_left": overlay(300, lambda before, now: now[:, 1].min() > before[:, 1].min() + 50),
    "recorder.overlay.line_start_y": overlay(300, lambda before, now: now[:, 0].min() > before[:, 0].min() + 50),
    "recorder.overlay.background": Row(
        False,
        lambda p: picture(p)[10:40, 10:30].mean(),
        lambda before, now: now > before + 5,
        {"recorder.overlay.enable": True, "recorder.overlay.text_color": [0, 0, 0], "recorder.overlay.text": "MMMM"},
    ),
    "recorder.session_prefix": Row("trip", recorded, lambda _, now: now.parent.name.startswith("trip_")),
    "recorder.csv": Row(
        False, lambda p: list(recorded(p).parent.glob("*.csv")), lambda before, now: len(before) == 1 and not now
    ),
    "recorder.post_roll_s": SeenBy("tests/test_former_programs.py"),
    "recorder.pre_roll_s": Decided(1.0, "recorder"),
    "recorder.recording_duration_minutes": Decided(1.0, "recorder"),
    "recorder.rolling_clips_count": Decided(3, "recorder"),
    "export.formats": Row(["png"], saved, lambda before, now: (before.suffix, now.suffix) == (".jpg", ".png")),
    "export.npy": Row(
        "planes",
        lambda p: np.load(io.BytesIO(saved(p, "save npy").read_bytes())).ndim,
        lambda before, now: (before, now) == (3, 2),
    ),
    "export.jpg_quality": Row(5, saved_bytes("jpg"), lambda before, now: now < before / 1.5),
    "export.png_compression": Row(9, saved_bytes("png"), lambda before, now: now < before),
    "export.save_before_s": Row(
        1.5, lambda p: p.text("pastStack"), lambda _, now: "(export.save_before_s: 1.500 s)" in now
    ),
    "export.save_after_s": Row(1.5, wait_of_stack, lambda _, now: now > 1.5),
    "export.stack_count": Row(3, stacked, lambda before, now: (before["count"], now["count"]) == (4, 3)),
    "export.stack_choice": Row(
        "newest",
        stacked,
        lambda before, now: now["last"]["age_s"] < before["last"]["age_s"] - 0.3,
        {"export.save_before_s": 1.5},
    ),
    "export.stack_method": Row(
        "max", stacked, lambda before, now: (before["method"], now["method"]) == ("sigma", "max")
    ),
    "export.stack_formats": Row(
        ["tiff"], stacked, lambda _, now: [Path(path).suffix for path in now["paths"]] == [".tiff"]
    ),
    "export.stack_bright_frames": Row(False, lambda p: p.text("pastStack"), is_stack_then_pictures),
    "export.stack_dark_frames": Row(False, lambda p: p.text("pastStack"), is_stack_then_pictures, NIGHT),
    "export.stack_align": Decided(True, "exporter"),
    "export.dark_frames": Decided(False, "exporter"),
    "export.auto_save_interval_s": Row(0.2, captures("*.jpg"), lambda before, now: now > before + 2),
    "export.auto_save_formats": Decided(["png"], "exporter"),
    "export.auto_save_use_ring": Decided(False, "exporter"),
    "export.timelapse_interval_s": Row(0.2, captures("timelapse_*"), lambda before, now: now > before),
    "export.timelapse_fps": Decided(10.0, "exporter"),
    "export.timelapse_roll_hours": Decided(1.0, "exporter"),
    "export.startrails_interval_s": Decided(5.0, "exporter"),
    "export.startrails_film_interval_s": Decided(5.0, "exporter"),
    "mjpeg_server.width": Row(320, picture, lambda before, now: (before.shape[1], now.shape[1]) == (640, 320)),
    "mjpeg_server.quality": Decided(60, "streamer"),
    "mjpeg_server.fps": Row(2.0, stream_period_s, lambda _, now: now > 0.4),
    "mjpeg_server.stale_after_s": Decided(5.0, "streamer"),
    "mjpeg_server.max_sessions": Decided(4, "streamer"),
    "mjpeg_server.busy_cpu_percent": Decided(80.0, "streamer"),
    "mjpeg_server.busy_recorder_lag_s": Decided(2.0, "streamer"),
    "upload.max_kb_s": SeenBy("tests/shmcam/upload/test_process.py"),
    "upload.hours": SeenBy("tests/shmcam/upload/test_process.py"),
    "upload.only_triggered": SeenBy("tests/shmcam/upload/test_process.py"),
    "webrtc.enable": SeenBy("tests/streamer/test_page.py"),
    "webrtc.max_sessions": Decided(4, "streamer"),
    "night.dark_threshold": Row(33.0, lambda p: p.text("night_level"), lambda _, now: "dark_threshold: < 33" in now),
    "night.bright_threshold": Row(
        99.0, lambda p: p.text("night_level"), lambda _, now: "bright_threshold: > 99" in now
    ),
    **{
        f"night.{name}": Decided(value, "analyzer")
        for name, value in {
            "enable": False, "min_dark_frames": 11, "min_bright_frames": 4, "dwell_s": 11.0, "hold_s": 61.0,
            "lockout_switches": 4, "lockout_s": 1201.0, "mode": "slow_video", "exposure_us": 1_900_000, "gain": 5.0,
            "slow_video_fps": 4.0, "ladder": False, "reference_exposure_us": 1000, "reference_gain": 7.0,
            "hook_timeout_s": 11.0,
        }.items()
    },
    "analyzer.response": Decided("linear", "analyzer"),
    "analyzer.black_level": Decided(1.0, "analyzer"),
    **{
        f"motion.{name}": Decided(value, "analyzer")
        for name, value in {
            "enable": False, "sensitivity": 5.0, "min_area": 0.003, "min_frames": 4, "gap_s": 3.0, "pre_s": 2.0,
            "post_s": 3.0, "max_event_s": 200.0, "zones": {"gate": [[0, 0], [1, 0], [1, 1]]},
            "masks": [[[0, 0], [1, 0], [1, 1]]],
        }.items()
    },
    "control.memory_limit_mb": SeenBy("tests/shmcam/watchdog/test_watchdog.py"),
    "library.pictures_max_count": Row(
        3, lambda p: saved(p).exists() * captures("*.jpg")(p), lambda before, now: 0 < now <= 3 < before
    ),
    "library.clips_max_count": SeenBy("tests/recorder/test_recording.py"),
    "library.delete_only_uploaded": Decided(True, "exporter"),
    **{
        f"library.{name}": Decided(value, "exporter")
        for name, value in {
            "free_reserve_mb": 2, "free_reserve_percent": 1.0, "max_total_mb": 90_000, "pictures_max_mb": 90_000,
            "pictures_max_days": 900.0, "clips_max_mb": 90_000, "clips_max_days": 900.0, "films_max_count": 900,
            "films_max_mb": 90_000, "films_max_days": 900.0, "archives_max_count": 900, "archives_max_mb": 90_000,
            "archives_max_days": 900.0,
        }.items()
    },
    "logging.level": Row("DEBUG", log_after_ping, lambda before, now: " DEBUG " in now and " DEBUG " not in before),
    # Last: they stay set, and the picture with them.
    **{f"camera.controls.{name}": control(name, value) for name, value in CONTROLS.items()},
}  # fmt: skip


def test_every_live_key_has_a_row_and_every_row_a_key():
    assert sorted(ROWS) == LIVE
    for key, row in ROWS.items():
        if isinstance(row, SeenBy):
            assert key in (Path(__file__).parent.parent / row.test).read_text(), key


@pytest.fixture(scope="module")
def shmcam():
    with Pipeline(**SETTINGS) as pipeline:
        pipeline.wait_running()
        until(lambda: pipeline.text("save").startswith("Saved"), 20, "all answer")
        yield pipeline


def is_as_before(shown: np.ndarray, is_black: bool) -> bool:
    """Tells whether what the row before set has been set back, also in the picture."""
    return shown.shape == (480, 640) and ((shown > 40).mean() < 0.1) == is_black  # text may be drawn over black


def put(pipeline: Pipeline, changes: dict[str, Any]) -> dict[str, Any]:
    """Sets keys. Returns: what they were, without those that were unset."""
    if "night" in changes:
        pipeline.text(f"night {changes['night']}")
        return {"night": "auto"}
    reply = pipeline.json({"command": "set", "changes": changes})
    assert reply["status"] == "setting_changed", reply
    return {change["key"]: change["old"] for change in reply["data"]["changes"] if change["old"] is not None}


@pytest.mark.slow  # pictures of a busy machine come late, and a row that fails spoils those behind it
@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if isinstance(row, Row)])
def test_a_live_key_acts_when_it_is_set(shmcam, key):
    row = ROWS[key]
    assert isinstance(row, Row)
    were = [put(shmcam, row.others)] if row.others else []
    try:
        is_black = "privacy.polygons" in (row.others or {}) and "privacy.enable" in (row.others or {})
        until(lambda: is_as_before(picture(shmcam), is_black), 20, "the picture as it should be before")
        before = row.measure(shmcam)
        were.append(put(shmcam, {key: row.value}))
        until(lambda: row.acts(before, row.measure(shmcam)), 20, f"{key} = {row.value!r} to act")
    finally:
        for old in reversed([old for old in were if old]):
            put(shmcam, old)


def test_the_owner_of_every_other_live_key_takes_it_over(shmcam):
    rows = {key: row for key, row in ROWS.items() if isinstance(row, Decided)}
    for key, row in rows.items():
        put(shmcam, {key: row.value})
    for key, row in rows.items():
        said = f"setting taken over key={key} value="
        until(lambda: said in log_of(row.owner)(shmcam), 10, f"{row.owner} to take {key} over")  # noqa: B023
