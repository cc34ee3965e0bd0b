"""Settings in the hub: checked, all or none, kept over a kill, written back with comments, whatever the file."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shmcam.config.settings import Settings, SettingsError
from shmcam.control.messages import SettingChanged
from shmcam.hub.live_settings import JOURNAL_BYTES_MAX, STARTUP_S, LiveSettings, as_json, as_toml, roles_to_restart
from tests.shmcam.hub.hubs import HubProcess, until

CONFIG = """\
# my camera
[camera]
width = 1280        # pixels
height = 720

[night]             # when it is dark
dark_threshold = 40.0   # tuned on 2026-08-01
bright_threshold = 80.0

[http]
token = "0123456789abcdef0123"
"""


def live_settings_of(tmp_path, text=CONFIG, run="1@1"):
    path = tmp_path / "config.toml"
    if not path.exists():
        path.write_text(text)
    (tmp_path / "run").mkdir(exist_ok=True)
    return LiveSettings(Settings.load(path, environ={}), tmp_path / "run/changes.json", run)


def test_a_change_is_typed_checked_and_told(tmp_path):
    live_settings = live_settings_of(tmp_path)
    [change] = live_settings.change({"night.dark_threshold": "35"})
    assert (change.old, change.new) == (40.0, 35.0)
    assert live_settings.events_of([change]) == [SettingChanged(key="night.dark_threshold", old=40.0, new=35.0)]
    assert live_settings.current.value("night.dark_threshold") == 35.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"night.dark_treshold": 5}, "did you mean night.dark_threshold?"),
        ({"night.dark_threshold": "bright"}, "must be number"),
        ({"night.dark_threshold": 1e9}, "must be number"),
        ({"night.dark_threshold": float("nan")}, "dark_threshold"),
        ({"camera.width": -5}, "must be integer"),
        ({"recorder.mode": "teapot"}, "must be one of"),
        ({"camera": {"width": 5}}, "unknown key 'camera'"),
        ({"night.dark_threshold": [1]}, "must be number"),
        ({"camera.width": "x" * 1_000_000}, "must be integer"),
        ({}, "expected KEY VALUE"),
        ({"cameras.cam0": 5}, "unknown key"),
        ({"": 5}, "unknown key"),
    ],
)
def test_a_wrong_change_is_refused_with_the_reason_and_changes_nothing(tmp_path, changes, expected):
    live_settings = live_settings_of(tmp_path)
    before = live_settings.current
    with pytest.raises(SettingsError) as refusal:
        live_settings.change({"night.min_dark_frames": 5, **changes} if changes else {})
    assert expected in str(refusal.value)
    assert live_settings.current is before
    assert not (tmp_path / "run/changes.json").exists()


def test_two_thresholds_that_cross_on_the_way_can_be_set_together(tmp_path):
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"night.dark_threshold": 90, "night.bright_threshold": 120})
    assert live_settings.current.value("night.bright_threshold") == 120


@pytest.mark.parametrize(
    "key", ["http.bind", "http.token", "network.trigger_port", "mjpeg_server.port", "paths.run", "night.on_night"]
)
def test_keys_that_open_listeners_or_run_programs_only_change_in_the_file(tmp_path, key):
    with pytest.raises(SettingsError, match="can only be changed in"):
        live_settings_of(tmp_path).change({key: "x"})


SAFE_TEXT = {
    "analyzer.day_starts_at",
    "camera.controls.ColourGains",
    "camera.controls.ScalerCrop",
    "export.auto_save_formats",
    "export.formats",
    "export.stack_formats",
    "motion.masks",
    "motion.zones",
    "privacy.polygons",
    "recorder.events",
    "recorder.overlay.text",
    "recorder.overlay.text_color",
    "recorder.session_prefix",
    "upload.hours",
}
"""Text, lists and tables that `set` may change: none names a file, a device, an address or a program."""

GUARDED = {
    "camera.source",
    "camera.index",
    "http.downloads",
    "http.insecure_no_auth",
    "http.local",
    "hooks.enable",
    "mqtt.commands",
    "mqtt.enable",
    "mqtt.port",
    "mqtt.tls",
    "rtsp_publish.enable",
    "upload.enable",
    "mjpeg_server.port",
    "network.rate_per_s",
    "network.trigger_port",
    "network.trusted",
}
"""Numbers, switches and choices that open a device or a port, or let somebody in."""


def test_keys_that_choose_files_devices_programs_or_ports_change_only_in_the_file(tmp_path):
    """Every key: one that is added must be added here too, or is guarded."""
    live_settings = live_settings_of(tmp_path)
    for key in live_settings.current.schema():
        is_free = key.type in ("text", "list", "table") and not key.choices
        guarded = key.path in GUARDED or (is_free and key.path not in SAFE_TEXT)
        assert (key.apply == "file") == guarded, key.path
        if guarded:
            for path in (key.path, f"cameras.cam0.{key.path.removeprefix('camera.')}"):
                with pytest.raises(SettingsError, match="can only be changed in"):
                    live_settings.change({path: key.default})


def test_writing_back_keeps_comments_order_and_mode_and_changes_only_what_was_set(tmp_path):
    live_settings = live_settings_of(tmp_path)
    path = tmp_path / "config.toml"
    path.chmod(0o600)
    live_settings.change({"night.dark_threshold": 35.5, "recorder.crf": 30})
    assert live_settings.overwrite() == 2
    text = path.read_text()
    assert text.startswith(CONFIG.replace("dark_threshold = 40.0", "dark_threshold = 35.5"))
    assert tomllib.loads(text)["recorder"] == {"crf": 30}
    assert path.stat().st_mode & 0o777 == 0o600
    assert live_settings.overwrite() == 0
    assert not (tmp_path / "run/changes.json").exists()


def test_what_its_owner_edited_meanwhile_stays(tmp_path):
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"night.dark_threshold": 35})
    path = tmp_path / "config.toml"
    path.write_text(path.read_text().replace("height = 720", "height = 600   # edited by hand"))
    live_settings.overwrite()
    assert "height = 600   # edited by hand" in path.read_text()
    assert "dark_threshold = 35" in path.read_text()


@pytest.mark.parametrize("edit", ["[camera\n", "[camera]\nwidth = 'wide'\n", "[nonsense]\n", ""])
def test_a_file_broken_meanwhile_is_not_made_worse(tmp_path, edit):
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"night.dark_threshold": 35})
    path = tmp_path / "config.toml"
    path.write_text(edit)
    if edit:
        with pytest.raises(SettingsError):
            live_settings.overwrite()
        assert path.read_text() == edit
    else:
        live_settings.overwrite()
        assert tomllib.loads(path.read_text()) == {"night": {"dark_threshold": 35}}


@pytest.mark.parametrize("typed", ['["jpg", "png"]', "[jpg,png]", "jpg,png", "jpg png", "jpg, png"])
def test_a_list_may_be_typed_without_its_quotes(tmp_path, typed):
    """Over socat the shell's quotes around ["jpg","png"] were eaten, and the list was refused."""
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"export.formats": typed})
    assert live_settings.current.value("export.formats") == ("jpg", "png")


def test_saving_one_key_leaves_the_others_that_were_tried_out_unsaved(tmp_path):
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"night.dark_threshold": 35})
    live_settings.change({"recorder.crf": 30})
    assert live_settings.overwrite(["recorder.crf"]) == 1
    assert live_settings.unsaved == {"night.dark_threshold": 35}
    written = tomllib.loads((tmp_path / "config.toml").read_text())
    assert (written["night"]["dark_threshold"], written["recorder"]["crf"]) == (40.0, 30)
    assert live_settings_of(tmp_path).unsaved == {"night.dark_threshold": 35}, "a killed hub still knows it"
    assert live_settings.overwrite() == 1


def test_a_key_that_cannot_be_saved_alone_is_changed_and_says_so(tmp_path):
    with HubProcess(CONFIG) as hub:
        assert hub.text("set night.bright_threshold 120").startswith("OK")
        answer = hub.text("set night.dark_threshold 90 --save")
        assert answer.startswith("ERROR: changed, but not saved: "), answer
        assert "bright_threshold" in answer
        assert hub.text("get night.dark_threshold").startswith("night.dark_threshold = 90")
        answer = hub.json({"command": "set", "key": "recorder.crf", "value": 30, "save": True})
        message = answer["data"]["message"]
        assert message.startswith("OK: changed recorder.crf from 23 to 30 (needs: shmcam restart recorder)")
        assert "still unsaved: night.bright_threshold, night.dark_threshold" in message


def test_answers_are_spelt_as_in_the_file(tmp_path):
    with HubProcess(CONFIG) as hub:
        assert (
            hub.text("set export.formats png jpg") == 'OK: changed export.formats from ["jpg"] to ["png", "jpg"] (live)'
        )
        assert hub.text("set camera.controls.Brightness 0.5").startswith(
            "OK: changed camera.controls.Brightness from unset to 0.5"
        )
        assert hub.text("get night.enable").startswith("night.enable = true\n")
        assert "from true to false" in hub.text("set night.enable false")


def test_a_camera_that_keeps_its_own_value_is_named(tmp_path):
    with HubProcess("[cameras.cam0]\nwidth = 640\n[cameras.cam1]\n") as hub:
        answer = hub.text("set camera.width 320")
        assert answer == "OK: changed camera.width from 1280 to 320 (live; not for cam0, set cameras.cam0.… for that)"
        assert "not for" not in hub.text("set camera.height 240")


def test_a_camera_that_is_not_there_is_not_made_by_a_mistyped_name(tmp_path):
    """`set cameras.cam1.width 640`, saved into a config.toml without [cameras], took cam0 away at the next start."""
    live_settings = live_settings_of(tmp_path)
    with pytest.raises(SettingsError, match=r"no camera 'cam1'; cameras: cam0 \(new ones are added in config.toml\)"):
        live_settings.change({"cameras.cam1.width": 640})
    live_settings.change({"cameras.cam0.width": 640})
    live_settings.overwrite()
    assert live_settings_of(tmp_path).current.cameras == ("cam0",)


def test_a_change_for_one_camera_is_told_for_that_camera(tmp_path):
    live_settings = live_settings_of(tmp_path, CONFIG + "[cameras.cam0]\n[cameras.cam1.night]\ndark_threshold = 20.0\n")
    changes = live_settings.change({"cameras.cam1.night.dark_threshold": 25})
    assert live_settings.events_of(changes) == [
        SettingChanged(key="night.dark_threshold", old=20.0, new=25.0, camera="cam1")
    ]
    changes = live_settings.change({"night.dark_threshold": 30})  # cam1 has its own
    assert [event.camera for event in live_settings.events_of(changes)] == ["cam0"]


def test_secrets_are_masked_everywhere(tmp_path):
    live_settings = live_settings_of(tmp_path)
    assert as_json(live_settings)["http"]["token"] == "***"
    assert "0123456789abcdef" not in as_toml(live_settings)


def test_an_optional_key_without_a_value_leaves_the_file(tmp_path):
    """JSON null, then any write of the file, used to end without an answer: TOML has no null."""
    live_settings = live_settings_of(tmp_path, "[camera.controls]\nBrightness = 0.5  # bright\n")
    live_settings.change({"camera.controls.Brightness": None})
    live_settings.overwrite()
    assert "Brightness" not in tomllib.loads((tmp_path / "config.toml").read_text())["camera"].get("controls", {})


def test_the_password_in_a_cameras_url_is_in_no_dump(tmp_path):
    text = """
[cameras.cam1]
source = "url"
url = "rtsp://me:hunter2@host/x"
width = 800
[cameras.cam1.night]
enable = false
[cameras.cam1.ring.downscale]
enable = true
[cameras.cam1.controls]
Brightness = 0.5
"""
    live_settings = live_settings_of(tmp_path, text)
    own = as_json(live_settings)["cameras"]["cam1"]
    assert own["url"] == "***" and own["width"] == 800 and own["night"] == {"enable": False}
    assert own["ring"] == {"downscale": {"enable": True}} and own["controls"] == {"Brightness": 0.5}
    assert "hunter2" not in as_toml(live_settings) + json.dumps(as_json(live_settings))


def test_a_dump_is_a_config_that_loads_to_the_same(tmp_path):
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"night.dark_threshold": 35})
    dump = tmp_path / "dump.toml"
    dump.write_text(as_toml(live_settings).replace('"***"', '"0123456789abcdef0123"'))
    loaded = Settings.load(dump, environ={})
    for key in loaded.schema():
        assert loaded.value(key.path) == live_settings.current.value(key.path), key.path


def test_restarts_are_named_by_the_owner_of_the_key(tmp_path):
    live_settings = live_settings_of(tmp_path)
    schema = [key for key in live_settings.current.schema() if key.apply == "restart"]
    assert any(key.path.startswith("recorder.") for key in schema)
    [change] = live_settings.change({"recorder.container": "h264"})
    assert roles_to_restart([change]) == ["recorder"]


def test_a_new_hub_of_the_same_run_takes_unsaved_changes_over_and_of_another_run_does_not(tmp_path):
    live_settings_of(tmp_path).change({"night.dark_threshold": 35})
    again = live_settings_of(tmp_path)
    assert again.current.value("night.dark_threshold") == 35
    assert again.events_for_new_process() == [SettingChanged(key="night.dark_threshold", old=40.0, new=35.0)]
    assert live_settings_of(tmp_path, run="2@2").current.value("night.dark_threshold") == 40


def test_a_change_that_is_saved_while_a_process_starts_reaches_it(tmp_path, monkeypatch):
    """It had read config.toml before, was not connected at the change, and kept the old value until its next start."""
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"night.dark_threshold": 35, "recorder.container": "h264"})
    live_settings.overwrite()
    (event,) = live_settings.events_for_new_process()
    assert (event.key, event.new) == ("night.dark_threshold", 35)
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + STARTUP_S + 1)
    assert not live_settings.events_for_new_process(), "later ones have read it; their owner may have edited the file"


def test_the_hub_s_own_log_follows_its_level_after_a_restart_too(tmp_path):
    root = logging.getLogger()
    level = root.level
    try:
        live_settings_of(tmp_path).change({"logging.level": "ERROR"})
        assert root.level == logging.ERROR
        root.setLevel(level)
        live_settings_of(tmp_path)
        assert root.level == logging.ERROR
    finally:
        root.setLevel(level)


@pytest.mark.parametrize(
    "journal", ["", "{", "[]", "null", '{"run": "1@1"}', '{"run":"1@1","changes":{"a":1}}', "[" * 9999]
)
def test_a_journal_that_cannot_be_used_is_set_aside(tmp_path, journal):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/changes.json").write_text(journal)
    assert live_settings_of(tmp_path).current.value("night.dark_threshold") == 40


def test_a_journal_has_a_record_for_each_change_and_is_written_anew_where_it_cannot_grow(tmp_path):
    """Each `set` replaced the file, which took longer than all else that it does."""
    live_settings, journal = live_settings_of(tmp_path), tmp_path / "run/changes.json"
    live_settings.change({"night.dark_threshold": 31})
    inode = journal.stat().st_ino
    with journal.open("ab") as stream:
        stream.write(b'\n{"run": "1@1", "changes": {"night.dark_th')  # a kill in the middle of a write
    live_settings.change({"night.dark_threshold": 32, "night.bright_threshold": 90})
    assert journal.stat().st_ino == inode
    assert live_settings_of(tmp_path).unsaved == {"night.dark_threshold": 32, "night.bright_threshold": 90}
    for number in range(1000):
        live_settings.change({"night.dark_threshold": 30 + number % 9})
    assert journal.stat().st_size <= JOURNAL_BYTES_MAX
    assert live_settings_of(tmp_path).unsaved == {"night.dark_threshold": 30, "night.bright_threshold": 90}
    journal.unlink()
    os.mkfifo(journal)
    live_settings.change({"night.dark_threshold": 41})
    assert live_settings_of(tmp_path).unsaved == {"night.dark_threshold": 41, "night.bright_threshold": 90}


KILLER = """
import os, signal, sys
from pathlib import Path
from shmcam.config.settings import Settings
from shmcam.hub.live_settings import LiveSettings
folder, after = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def counted(frame, event, arg):
    global calls
    calls += 1
    if calls == after:
        os.kill(os.getpid(), signal.SIGKILL)
settings = Settings.load(folder / "config.toml", environ={})
live_settings = LiveSettings(settings, folder / "run/changes.json", "1@1")
sys.setprofile(counted)
live_settings.change({"night.dark_threshold": 50, "night.bright_threshold": 90})
live_settings.overwrite()
sys.setprofile(None)
print(calls)
"""


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_anywhere_while_setting_and_saving_it_is_all_or_nothing(tmp_path, kills, seed=20261121):
    print(f"seed={seed}")
    rng, seen, steps = random.Random(seed), set(), 0
    for kill in range(kills + 1):
        (tmp_path / "config.toml").write_text(CONFIG)
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run/changes.json").unlink(missing_ok=True)
        after = rng.randrange(1, steps) if kill else 0  # the first is not killed: it counts the steps there are
        command = [sys.executable, "-c", KILLER, str(tmp_path), str(after)]
        done = subprocess.run(command, timeout=60, capture_output=True, text=True)
        steps = steps or int(done.stdout)
        assert done.returncode == (-signal.SIGKILL if kill else 0)
        settings = live_settings_of(tmp_path).current
        pair = (settings.value("night.dark_threshold"), settings.value("night.bright_threshold"))
        assert pair in {(40.0, 80.0), (50.0, 90.0)}
        seen.add(pair)
        assert "# tuned on 2026-08-01" in (tmp_path / "config.toml").read_text()
    assert len(seen) == 2


def test_two_writers_at_once_leave_what_one_of_them_wanted():
    with HubProcess(CONFIG) as hub:

        def write(dark, bright):
            for _ in range(15):
                answer = hub.text(f"set night.dark_threshold={dark} night.bright_threshold={bright} --save")
                assert answer.startswith("OK: changed"), answer

        writers = [threading.Thread(target=write, args=pair) for pair in ((20, 60), (120, 160))]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        night = tomllib.loads(hub.config.read_text())["night"]
        assert (night["dark_threshold"], night["bright_threshold"]) in {(20, 60), (120, 160)}
        values = hub.json({"command": "get", "key": "night"})["data"]["settings"]
        assert values["night.dark_threshold"] == night["dark_threshold"]
        assert "# tuned on 2026-08-01" in hub.config.read_text()


def test_a_hub_killed_after_set_comes_back_with_it():
    with HubProcess(CONFIG) as hub:
        assert hub.text("set night.dark_threshold 33").endswith("from 40.0 to 33.0 (live)")
        hub.kill()
        hub.start()
        assert hub.text("get night.dark_threshold").startswith("night.dark_threshold = 33.0")


def bad_files(count, seed):
    """Yield config files that are wrong in many ways; some may happen to be right."""
    rng = random.Random(seed)
    yield from (
        b"\xff\xfe",
        b"\x00",
        b"[camera]\nwidth = nan\n",
        b"[camera]\nwidth = 1" + b"0" * 5000 + b"\n",
        b"a = " + b"[" * 5000,
    )
    yield from (
        b"[camera]\nwidth = " + value
        for value in (b"-1", b"1e400", b"'x'", b"[]", b"{}", b"true", b"1979-05-27", b"10**9")
    )
    good = CONFIG.encode()
    for _ in range(count):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            start = rng.randrange(len(data))
            edit = rng.choice(
                [b"", rng.randbytes(3), b"=", b"\n", b"]", b'"', b"[x.y]\n", b"inf", b"-", b"night = 5\n"]
            )
            data[start : start + rng.randrange(0, 8)] = edit
        yield bytes(data)


def test_200_bad_config_files_never_crash_anything(tmp_path, seed=20261121):
    print(f"seed={seed}")
    path, refused = tmp_path / "config.toml", 0
    for data in bad_files(200, seed):
        path.write_bytes(data)
        try:
            settings = Settings.load(path, environ={})
        except SettingsError as problem:
            refused += 1
            assert "config.toml" in str(problem)
            continue
        (tmp_path / "run").mkdir(exist_ok=True)
        live_settings = LiveSettings(settings, tmp_path / "run/changes.json", "1@1")
        live_settings.change({"night.min_dark_frames": 7})
        live_settings.overwrite()
        assert Settings.load(path, environ={}).value("night.min_dark_frames") == 7
    assert refused > 100


def test_a_hub_with_a_bad_config_says_where_and_exits_78():
    with HubProcess(CONFIG) as hub:
        hub.stop()
        hub.config.write_text("[camera]\nwidth = 'wide'\n")
        command = [sys.executable, "-m", "shmcam.hub", "--config", str(hub.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=os.environ)
        assert done.returncode == 78
        assert "config.toml:2: [camera] width = 'wide': must be integer" in done.stderr


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_value_for_any_key_does_more_than_be_refused(tmp_path_factory, data):
    live_settings = live_settings_of(tmp_path_factory.mktemp("c"))
    path = data.draw(st.sampled_from([key.path for key in live_settings.current.schema()]) | st.text(max_size=30))
    try:
        changes = live_settings.change({path: data.draw(VALUES)})
    except SettingsError as problem:
        assert str(problem)
        return
    json.dumps(live_settings.unsaved)
    live_settings.events_of(changes)
    live_settings.overwrite()


def test_dump_config_in_both_forms_over_the_socket():
    with HubProcess(CONFIG) as hub:
        dumped = tomllib.loads(hub.text("dump_config toml"))
        assert dumped["night"]["dark_threshold"] == 40.0
        assert dumped["http"]["token"] == "***"
        assert json.loads(hub.text("dump_config"))["camera"]["width"] == 1280
        assert hub.json({"command": "dump_config"})["data"]["config"]["camera"]["width"] == 1280
        hub.text("set night.dark_threshold 39")
        assert "CHANGED, not saved" in hub.text("dump_config toml")
        assert hub.text("overwrite_config").startswith("OK: 1 changed settings written to")
        until(lambda: "39" in hub.config.read_text(), "the file has it")


CAMERAS = """
[cameras.cam0]
[cameras.cam1]
width = 640
url = "rtsp://u:geheim@h/x"
[cameras.cam1.night]
enable = false
"""


def test_get_cameras_shows_what_cameras_have_of_their_own():
    with HubProcess(CONFIG + CAMERAS) as hub:
        own = ['cameras.cam1.url = "***"', "cameras.cam1.width = 640 [pixels]", "cameras.cam1.night.enable = false"]
        assert sorted(hub.text("get cameras").splitlines()) == sorted(own)
        assert sorted(hub.text("get cameras.cam1").splitlines()) == sorted(own)
        assert hub.text("get cameras.cam0") == "no camera has a value of its own"
        assert "no camera 'cam9'; cameras: cam0, cam1" in hub.text("get cameras.cam9")
        hub.text("set cameras.cam1.height=480 cameras.cam1.buffers=4 night.dark_threshold=30")
        data = hub.json({"command": "get"})["data"]
        assert data["own"]["cameras.cam1.height"] == 480
        assert data["own"]["cameras.cam1.url"] == "***"
        assert set(data["unsaved"]) == {"cameras.cam1.height", "cameras.cam1.buffers", "night.dark_threshold"}
        assert data["waiting"]["cameras.cam1.buffers"]["roles"] == ["capture"]
        assert "night.dark_threshold" not in data["waiting"], "that is live"


def test_the_keys_that_wait_for_a_restart_can_be_read_while_set_adds_one(tmp_path):
    """`set` changed them in its thread while the hub's loop went through them for the page."""
    live_settings = live_settings_of(tmp_path)
    live_settings.change({"logging.files": 5})
    reading = iter(live_settings.restart_keys)
    live_settings.change({"logging.max_bytes": 20_000})
    assert list(reading) == ["logging.files"]
    assert set(live_settings.restart_keys) == {"logging.files", "logging.max_bytes"}
