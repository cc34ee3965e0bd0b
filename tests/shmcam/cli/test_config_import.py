"""`shmcam import`: the configurations of the former programs, as their users have them on disk."""

import json
import os
import subprocess
import sys

import pytest

from shmcam.cli.config_import.conversion import JSON_KEYS, TEXT_KEYS, WAYS
from shmcam.config.schema import list_keys
from shmcam.config.settings import Settings

CAMERA = {"width": 1024, "height": 768, "framerate": 10, "codec": "rgb", "video_mode": "stream"}
RING = {"size": 300, "downscale": {"enable": True, "width": 256, "height": 192}}
NIGHT = {
    "enable": True,
    "dark_threshold": 35,
    "bright_threshold": 55,
    "min_dark_frames": 20,
    "mode": "still",
    "exposure_us": 2000000,
    "gain": 6.0,
}
EXPORT = {
    "auto_save_use_ring": False,
    "base_dir": "./captures",
    "formats": ["jpg", "png"],
    "save_before_s": 5,
    "stack_dark_frames": True,
    "stack_count": 4,
    "auto_save_interval_s": 900,
}
FIRST = {
    "camera": CAMERA,
    "ring": RING,
    "night": NIGHT,
    "export": EXPORT,
    "network": {"trigger_port": 9999},
    "logging": {"level": "INFO"},
}
SECOND = {
    **FIRST,
    "night": {**NIGHT, "dark_threshold": 50, "bright_threshold": 240},
    "mjpeg_server": {"enable": True, "fps": 2, "port": 8080},
}
TEXT = """
# Recording
resolution_preset = 3
target_fps = 25        # frames a second
auto_start_recording = yes
disable_mp4_conversion = true
output_dir = "recordings/cameras"
session_prefix = mouse
[Display & Preview]
show_preview = true
preview_preset = 7
show_frame_number = true
font_scale_base = 0.8
thickness_base = 3
text_color_b = 0
text_color_g = 128
text_color_r = 255
margin_left = 20
line_start_y = 30
enable_csv_timing_log = false
log_level = critical
console_output = false
libcamera_log_level = warn
"""


@pytest.fixture
def run_import(tmp_path):
    def run(text, *options, name="config.json"):
        (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text))
        command = [sys.executable, "-m", "shmcam.cli.main", "import", name, *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def flatten(document, prefix=""):
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("former", [FIRST, SECOND], ids=["first", "second"])
def test_every_key_of_the_users_config_json_is_in_use_afterwards(run_import, tmp_path, former):
    done = run_import(former)
    assert done.returncode == 0, done.stderr
    settings = Settings.load(tmp_path / "config.toml", environ={})
    for key, value in flatten(former):
        expected = {"camera.codec": "auto", "camera.video_mode": True}.get(key, value)
        found = settings.value(key)
        assert (list(found) if isinstance(found, tuple) else found) == expected, key
        assert f"{key} = " in done.stdout, key
    text = (tmp_path / "config.toml").read_text()
    assert "# frame width [pixels]" in text and "#   ring.size = 300" in text
    assert "# trusted = true" in text, "the port was open to the network, and now is not: the file says how"


def test_every_key_of_config_txt_is_in_use_afterwards_or_says_where_it_went(run_import, tmp_path):
    done = run_import(TEXT, name="config.txt")
    assert done.returncode == 0, done.stderr
    settings = Settings.load(tmp_path / "config.toml", environ={})
    expected = {
        "camera.preset": 3,
        "camera.framerate": 25.0,
        "recorder.auto_start": True,
        "recorder.container": "h264",
        "paths.recordings": "recordings/cameras",
        "recorder.session_prefix": "mouse",
        "mjpeg_server.width": 320,
        "recorder.overlay.enable": True,
        "recorder.overlay.show_frame_number": True,
        "recorder.csv": False,
        "recorder.overlay.font_scale_base": 0.8,
        "recorder.overlay.thickness_base": 3,
        "logging.libcamera": "WARN",
        "recorder.overlay.text_color": (255, 128, 0),
        "recorder.overlay.margin_left": 20,
        "recorder.overlay.line_start_y": 30,
        "logging.level": "CRITICAL",
    }
    assert {key: settings.value(key) for key in expected} == expected
    keys = {*TEXT_KEYS, *WAYS, "disable_mp4_conversion", "preview_preset", "text_color_g"}
    assert {key for key in keys if f"{key} = " in done.stdout} == keys
    assert "shmcam run --preview" in done.stdout


def test_an_unknown_key_is_listed_and_the_rest_is_taken_over(run_import, tmp_path):
    done = run_import({"camera": {"width": 640, "widht": 1, "lens": None}, "foo": [1, {"a": 2}]})
    assert done.returncode == 0, done.stderr
    assert "camera.widht = 1" in done.stdout and "unknown; did you mean camera.width?" in done.stdout
    assert "foo = " in done.stdout and "camera.lens = " in done.stdout
    assert Settings.load(tmp_path / "config.toml", environ={}).value("camera.width") == 640
    assert "did you mean target_fps?" in run_import("Target_fps = 9\n", "--force", name="config.txt").stdout
    done = run_import("target_fps = 5\ntarget_fps = 7\nfps_target = 9\n", "--force", name="config.txt")
    assert done.returncode == 0 and "given again below" in done.stdout and "fps_target = 9" in done.stdout
    assert Settings.load(tmp_path / "config.toml", environ={}).value("camera.framerate") == 7.0


def test_one_format_without_a_list_and_a_ring_of_any_size_are_taken_as_before(run_import, tmp_path):
    assert run_import({"export": {"formats": "png"}, "ring": {"size": 400_000}}).returncode == 0
    settings = Settings.load(tmp_path / "config.toml", environ={})
    assert settings.value("export.formats") == ("png",) and settings.value("ring.size") == 400_000


@pytest.mark.parametrize(
    ("prefix", "became"),
    [
        ("my session", "my_session"),
        ("'mouse 3, left'", "mouse_3_left"),
        ("  _lab", "lab"),
        ("Mäuse", "M_use"),
        ("x" * 40, "x" * 32),
    ],
)
def test_a_session_prefix_that_was_a_folders_name_is_taken_over_as_far_as_it_can_be(
    run_import, tmp_path, prefix, became
):
    """Prefixes with spaces were refused, and with them the whole file."""
    done = run_import(f"session_prefix = {prefix}\n", name="config.txt")
    assert done.returncode == 0, done.stderr
    assert Settings.load(tmp_path / "config.toml", environ={}).value("recorder.session_prefix") == became
    assert f"so {became}_<time>" in done.stdout


def test_whole_numbers_are_taken_however_they_were_written(run_import, tmp_path):
    """They were refused, where the former programs took them (int("02"), 2.0 of a JSON editor)."""
    text = "resolution_preset = 02\nthickness_base = 3.0\ntext_color_r = 007\npreview_preset = 05\nmargin_left = +5\n"
    text += "font_scale_base = .5\ntarget_fps = 1e1\n"
    assert run_import(text, name="config.txt").returncode == 0
    settings = Settings.load(tmp_path / "config.toml", environ={})
    wanted = {
        "camera.preset": 2, "recorder.overlay.thickness_base": 3, "recorder.overlay.text_color": (7, 255, 255),
        "mjpeg_server.width": 640, "recorder.overlay.margin_left": 5, "recorder.overlay.font_scale_base": 0.5,
        "camera.framerate": 10.0,
    }  # fmt: skip
    assert {key: settings.value(key) for key in wanted} == wanted
    numbers = {"night": {"exposure_us": 2000000.0, "enable": 0}, "export": {"stack_count": 4.0, "stack_dark_frames": 1}}
    assert run_import(numbers, "--force").returncode == 0
    settings = Settings.load(tmp_path / "config.toml", environ={})
    wanted = {
        "night.exposure_us": 2000000, "export.stack_count": 4, "night.enable": False, "export.stack_dark_frames": True,
    }  # fmt: skip
    assert {key: settings.value(key) for key in wanted} == wanted


@pytest.mark.parametrize("folder", ["007", "1e3", "2026_11", ".5", "0"])
def test_a_folder_of_digits_keeps_its_name(run_import, tmp_path, folder):
    assert run_import(f"output_dir = {folder}\n", name="config.txt").returncode == 0
    assert Settings.load(tmp_path / "config.toml", environ={}).value("paths.recordings") == folder


@pytest.mark.parametrize(("level", "became"), [("notset", "DEBUG"), ("verbose", "INFO"), ("fatal", "CRITICAL")])
def test_a_level_counts_as_it_did(run_import, tmp_path, level, became):
    done = run_import({"logging": {"level": level}})
    assert done.returncode == 0, done.stderr
    assert Settings.load(tmp_path / "config.toml", environ={}).value("logging.level") == became


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"night": {"exposure_us": 2000000.5}}', "exposure_us = 2000000.5: must be integer"),
        ("config.txt", "session_prefix = ___\n", "session_prefix = ___: must be text"),
        ("config.json", '{"camera": {"width": "wide"}}', "config.json: camera.width = wide: must be integer 16..8192"),
        ("config.json", '{"camera": {"width": 4}}', "camera.width = 4: must be integer 16..8192 (pixels)"),
        ("config.json", '{"camera": {"codec": "avi"}}', "camera.codec = avi: must be one of 'auto'"),
        ("config.json", '{"camera": 5, "night": {"mode": "dark"}}', "night.mode = dark: must be one of"),
        ("config.json", '{"camera": {"width": "640"}}', 'camera.width = "640": must be integer 16..8192'),
        (
            "config.json",
            '{"export": {"formats": ["jpg", "gif"]}}',
            'export.formats = ["jpg", "gif"]: must be list of jpg, npy, png, tiff',
        ),
        ("config.json", '{"night": {"bright_threshold": 20}}', "config.json: [night] dark_threshold = 40 must be"),
        ("config.txt", "# nothing\n", "config.txt: there is no key in it"),
        ("config.json", '{"camera": {"width": 640,}}', "config.json:1: not JSON"),
        ("config.json", "[1]", "config.json: expected an object"),
        ("config.txt", "target_fps = fast\n", "config.txt: target_fps = fast: must be number"),
        ("config.txt", "\ntarget_fps 30\n", "config.txt:2: 'target_fps 30': expected `key = value`"),
        ("config.txt", "preview_preset = 9\n", "preview_preset = 9: must be a preset 0..7"),
        ("config.txt", "text_color_r = red\n", "text_color_r = red: must be a whole number 0..255"),
        ("config.txt", "log_level = loud\n", "log_level = loud: must be one of 'CRITICAL', 'DEBUG'"),
        ("config.txt", "session_prefix = a/../b\n", "session_prefix = a/../b: must be text"),
        ("config.txt", "disable_mp4_conversion = maybe\n", "disable_mp4_conversion = maybe: must be true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_expectation(run_import, tmp_path, name, text, message):
    done = run_import(text, name=name)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "config.toml").exists()


def test_a_config_txt_may_begin_with_the_name_of_a_section(run_import, tmp_path):
    done = run_import("\ufeff[Recording]\r\ntarget_fps = 5\r\n", name="config.txt")
    assert done.returncode == 0, done.stderr
    assert Settings.load(tmp_path / "config.toml", environ={}).value("camera.framerate") == 5.0


def test_the_places_owner_and_mode_of_an_installed_service_stay(run_import, tmp_path):
    """Root imported into /etc/shmcam: the service could not read it, and all folders lay below /etc."""
    target = tmp_path / "config.toml"
    target.write_text('[paths]\nrun = "/run/shmcam"\nlogs = "log"\n[export]\nbase_dir = "/var/lib/shmcam/captures"\n')
    target.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(target, 1234, 1235)
    before = target.stat()
    done = run_import({**FIRST, "export": {**EXPORT, "base_dir": "./captures"}}, "--force")
    assert done.returncode == 0, done.stderr
    settings = Settings.load(target, environ={})
    assert (settings.value("paths.run"), settings.value("paths.logs")) == ("/run/shmcam", "logs")
    assert settings.value("export.base_dir") == "/var/lib/shmcam/captures" and settings.value("export.stack_count") == 4
    after = target.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert "kept from the file that is replaced" in done.stdout and "kept from the file" in target.read_text()


@pytest.mark.parametrize("replaced", ["[paths", "paths = 3\n", "[paths]\nrun = 5\n", "\udcff"])
def test_what_is_no_configuration_is_replaced_by_force(run_import, tmp_path, replaced):
    (tmp_path / "config.toml").write_bytes(os.fsencode(replaced))
    assert run_import(FIRST, "--force").returncode == 0
    assert Settings.load(tmp_path / "config.toml", environ={}).value("ring.size") == RING["size"]


def test_an_existing_config_toml_stays_without_force(run_import, tmp_path):
    (tmp_path / "config.toml").write_text("# mine\n")
    done = run_import(FIRST)
    assert done.returncode == 1 and "--force" in done.stderr
    assert (tmp_path / "config.toml").read_text() == "# mine\n"
    assert run_import(FIRST, "--output", "other.toml").returncode == 0
    assert run_import(FIRST, "--force").returncode == 0
    assert (tmp_path / "config.toml").read_text() == (tmp_path / "other.toml").read_text()


def test_the_tables_name_keys_that_exist():
    assert {*JSON_KEYS, *TEXT_KEYS.values()} <= list_keys().keys()


def test_former_values_count_in_config_toml_itself(tmp_path):
    (tmp_path / "config.toml").write_text(
        '[camera]\ncodec = "rgb"\nvideo_mode = "still"\n[logging]\nlevel = "critical"\nlibcamera = "warning"\n'
        '[cameras.cam0]\nvideo_mode = "Stream"\n[cameras.cam1]\n'
    )
    settings = Settings.load(tmp_path / "config.toml", environ={"SHMCAM_RECORDER__CONTAINER": "MP4"})
    assert settings.value("camera.codec") == "auto" and settings.value("recorder.container") == "mp4"
    assert settings.value("logging.level") == "CRITICAL" and settings.value("logging.libcamera") == "WARN"
    assert settings.value("cameras.cam0.video_mode") is True and settings.value("cameras.cam1.video_mode") is False
