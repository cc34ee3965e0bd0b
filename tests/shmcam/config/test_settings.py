"""config.toml: what loads, what is refused, and whether the refusal tells a person where to look."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.settings import Format
from shmcam.config.polygon_checks import explain_corners
from shmcam.config.schema import list_keys, load_tables
from shmcam.config.settings import FOR_ALL, PER_CAMERA, WORDS_OF_COMMANDS, Settings, SettingsError, apply_change
from shmcam.control.command_table import COMMANDS
from shmcam.control.messages import choices, fields_of

ROOT = Path(__file__).resolve().parents[3]
NightSettings = load_tables()["night"]
CameraSettings = load_tables()["camera"]


@pytest.fixture
def load(tmp_path):
    def loader(text: str, *overrides: str, environ: dict[str, str] | None = None) -> Settings:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return Settings.load(path, overrides, environ or {})

    return loader


def test_the_shipped_file_loads_and_shows_the_defaults(tmp_path):
    shipped = Settings.load(ROOT / "config.toml", environ={})
    for key in shipped.schema():
        table, _, name = key.path.rpartition(".")
        here = shipped.document
        for part in table.split("."):
            here = here.get(part, {})
        if name in here:
            default = list(key.default) if isinstance(key.default, tuple) else key.default
            assert here[name] == default, key.path


def test_an_empty_file_is_all_defaults_and_one_camera(load):
    settings = load("")
    assert settings.cameras == ("cam0",)
    assert settings.table(NightSettings).dark_threshold == 40.0
    assert settings.ring_name("cam0", "scores") == "/shmcam.cam0.scores"


def test_paths_are_relative_to_the_file(load, tmp_path):
    settings = load('[paths]\nrun = "r"\nrecordings = "/data/rec"')
    assert settings.paths.run == tmp_path / "r"
    assert settings.paths.recordings == Path("/data/rec")
    assert settings.paths.captures == tmp_path / "captures"
    assert settings.socket_path == tmp_path / "r" / "control.sock"


def test_a_camera_overrides_its_tables_and_only_its_own(load):
    settings = load(
        "[camera]\nwidth = 800\n[night]\ndark_threshold = 30\n"
        "[cameras.front]\n[cameras.back]\nwidth = 320\n[cameras.back.night]\ndark_threshold = 20\n"
    )
    assert settings.cameras == ("front", "back")
    assert settings.table(CameraSettings, "front").width == 800
    assert settings.table(CameraSettings, "back").width == 320
    assert settings.table(NightSettings, "front").dark_threshold == 30
    assert settings.table(NightSettings, "back").dark_threshold == 20
    assert settings.value("cameras.back.width") == 320


def test_command_line_beats_environment_beats_file(load):
    text = "[camera]\nwidth = 100\nheight = 100\nframerate = 1"
    environ = {"SHMCAM_CAMERA__WIDTH": "200", "SHMCAM_CAMERA__HEIGHT": "200", "SHMCAM_CONFIG": "ignored"}
    camera = load(text, "camera.width=300", environ=environ).table(CameraSettings)
    assert (camera.width, camera.height, camera.framerate) == (300, 200, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[camera]\n\nwidth = 'wide'",
            r"config.toml:3: \[camera\] width = 'wide': must be integer 16..8192 \(pixels\)",
        ),
        ("[camera]\nwidth = 1e30", r"config.toml:2: \[camera\] width = 1e\+30: must be integer"),
        ("[camera]\nwidth = true", r"config.toml:2: .* width = true: must be integer"),
        ("[camera]\nwidht = 3", r"config.toml:2: \[camera\] unknown key 'widht'; did you mean width\?"),
        ("[camera]\nsource = 'usb'", r"source = 'usb': must be one of 'auto', 'file'"),
        ("[nigth]\nenable = true", r"config.toml:1: unknown table \[nigth\]; did you mean night\?"),
        ("[night]\ndark_threshold = nan", r"config.toml:2: \[night\] dark_threshold = nan: must be"),
        ("[night]\ndwell_s = inf", r"dwell_s = inf: must be"),
        ("[ring.downscale]\nwidth = 3", r"config.toml:2: \[ring.downscale\] width = 3: must be integer 16..8192"),
        ("[ring.downscale]\nsise = 3", r"config.toml:2: \[ring.downscale\] unknown key 'sise'; did you mean size\?"),
        (
            "[cameras.cam1.night]\nenable = 3",
            r"config.toml:2: \[cameras.cam1.night\] enable = 3: must be true or false",
        ),
        ("[cameras.cam1]\nwidht = 3", r"config.toml:2: \[cameras.cam1\] unknown key 'widht'; did you mean width\?"),
        ("[cameras.'../x']\nwidth = 640", r"must be a camera name"),
        ("cameras = 3", r"config.toml:1: cameras = 3: must be a table"),
        ("camera = 3", r"camera = 3: must be a table"),
        ("[recorder]\noverlay = 3", r"config.toml:2: \[recorder\] overlay = 3: must be a table$"),
        (
            "[recorder.overlay]\ntext_color = [0, 0, 256]",
            r"config.toml:2: \[recorder.overlay\] text_color = \[0, 0, 256\]: must be list of 3 integers 0..255$",
        ),
        (f"[recorder.overlay]\ntext = '{'a' * 81}'", r"must be text of at most 80 characters$"),
        ("[camera.controls]\nColourGains = [1]", r"ColourGains = \[1\]: must be list of 2 numbers$"),
        ("[motion]\nmasks = [[0, 0], [1, 1]]", r"must be list of lists of lists of 2 numbers$"),
        ("[motion]\nzones = {door = [[0, 0]]}", r"\[motion\] zones.door = \[\[0.0, 0.0\]\] needs two or more corners"),
        ("[motion]\nzones = {door = [[0, 0], [0, 1]]}", r"\[motion\] zones.door = .* covers no area$"),
        ("[motion]\nmasks = [[[0, 0.3], [1, 0.30000000000000004]]]", r"\[motion\] masks = .* covers no area$"),
        ("[motion]\nmasks = [[[0, 0], [0.5, 0.5], [1, 1]]]", r"\[motion\] masks = .* covers no area$"),
        ("[privacy]\npolygons = [[[0, 0], [1, 0], [0, 0], [0, 1]]]", r"\[privacy\] polygons: .* covers no area$"),
        ("[motion.zones]\ndoor = [[0, 0], [1]]", r"must be table of lists of lists of 2 numbers$"),
        ("[export]\nformats = ['bmp']", r"formats = \[\"bmp\"\]: must be list of jpg, npy, png, tiff, at least 1$"),
        ("[export]\nformats = []", r"formats = \[\]: must be list of jpg, npy, png, tiff, at least 1$"),
        ("[export]\nstack_formats = []", r"must be list of jpg, npy, png, tiff, at least 1$"),
        ("[export]\nauto_save_formats = []", r"must be list of jpg, npy, png, tiff, at least 1$"),
        ("[camera]\nwidth = ", r"config.toml: Invalid value"),
        ("x = " + "[" * 5000, r"nested too deeply"),
        ("x = " + "9" * 6000, r"config.toml: "),
    ],
)
def test_mistakes_are_refused_with_place_value_and_expectation(load, text, message):
    with pytest.raises(SettingsError, match=message):
        load(text)


@pytest.mark.parametrize("path", ["motion.zones", "cameras.back.motion.zones"])
def test_a_wrong_zone_is_told_with_the_word_that_brought_it(load, path):
    """`set` and --set blamed config.toml, as the message named the zone and not the key."""
    text = "[motion]\nzones = {door = [[0, 0], [1, 1]]}\n[cameras.front]\n[cameras.back]"
    for corners in ([[0.1, 0.2]], [[0.1, 2], [1, 1]], [[0.5, 0.5], [0.5, 0.5]]):
        with pytest.raises(SettingsError, match=r"^set: \[motion\] zones.gate = "):
            load(text).with_changes({path: {"gate": corners}})
        with pytest.raises(SettingsError, match=r"^--set: \[motion\] zones.gate = "):
            load(text, f"{path}={{ gate = {corners} }}")


@pytest.mark.parametrize(
    ("corners", "is_area"),
    [
        ([(0, 0), (1, 1)], True),
        ([(1, 1), (0.5, 0.999)], True),
        ([(0.2, 0), (0.2, 1)], False),
        ([(0, 0.2), (1, 0.2)], False),
        ([(0.3, 0.3), (0.3, 0.3)], False),
        ([(0, 0), (0.1, 0.1), (0.7, 0.7)], False),
        ([(0, 0), (0, 0), (1, 1)], False),
        ([(0, 0), (1, 0), (0, 0), (0, 1)], False),  # a line there and back
        ([(0, 0), (1, 1), (1, 0), (0, 1)], True),  # crosses itself in the middle
        ([(0, 0), (0.002, 0), (0, 0.002)], True),
    ],
)
def test_corners_enclose_an_area(corners, is_area):
    assert (explain_corners(corners, least=2) == "") == is_area


def test_every_number_has_limits():
    """99999999999999999999 MiB, bits per second and bytes were taken, shown and sent to processes that refused them."""
    assert not [
        key.path
        for key in list_keys().values()
        if key.type in ("integer", "number") and None in (key.minimum, key.maximum)
    ]


def test_bytes_that_are_not_text_a_missing_and_a_huge_file_are_refused(tmp_path):
    path = tmp_path / "c.toml"
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        Settings.load(path)
    path.write_bytes(b"# fine\n[camera]\nwidth = \xff\n")
    with pytest.raises(SettingsError, match=r"c.toml:3: not UTF-8 text \(byte 0xff\)"):
        Settings.load(path)
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(SettingsError, match="larger than 1000000 bytes"):
        Settings.load(path)
    with pytest.raises(SettingsError, match="Is a directory"):
        Settings.load(tmp_path)


@pytest.mark.parametrize("assignment", ["width", "=3", "camera.width.x=3", "camera=3"])
def test_a_bad_override_is_refused(load, assignment):
    with pytest.raises(SettingsError):
        load("", assignment)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SHMCAM_CAMERA__WIDTH=abc", "SHMCAM_CAMERA__WIDTH: [camera] width = 'abc': must be integer"),
        ("SHMCAM_CAMERA__WIDHT=640", "SHMCAM_CAMERA__WIDHT: [camera] unknown key 'widht'; did you mean width?"),
        ("SHMCAM_SET=camera.width=3", "--set: [camera] width = 3: must be integer"),
        ("SHMCAM_CAMERA__HEIGHT=640", "config.toml:2: [camera] width = 5: must be integer"),
    ],
)
def test_a_wrong_override_is_told_with_its_own_place_and_not_with_a_line_of_the_file(load, text, said):
    name, _, value = text.partition("=")
    width = 5 if "HEIGHT" in name else 320
    with pytest.raises(SettingsError, match=f"^{re.escape(said)}"):
        load(f"[camera]\nwidth = {width}", environ={name: value})


@pytest.mark.parametrize(
    ("overrides", "environ", "place"),
    [
        (
            ["night.dark_threshold=80"],
            {"SHMCAM_NIGHT__BRIGHT_THRESHOLD": "70"},
            "SHMCAM_NIGHT__BRIGHT_THRESHOLD, --set",
        ),
        (["cameras.cam0.night.dark_threshold=220"], {}, "--set"),
        ([], {"SHMCAM_NIGHT__DWELL_S": "3", "SHMCAM_RECORDER__PRE_ROLL_S": "60"}, "SHMCAM_RECORDER__PRE_ROLL_S"),
    ],
)
def test_keys_that_contradict_each_other_are_told_with_the_place_of_the_one_that_is_not_the_file_s(
    load, overrides, environ, place
):
    text = "[recorder]\nmax_event_s = 60\n[cameras.cam0]\n"
    with pytest.raises(SettingsError, match=rf"^{re.escape(place)}: \[(night|recorder)\] "):
        load(text, *overrides, environ=environ)
    with pytest.raises(SettingsError, match=r"^set: \[recorder\] max_event_s must be longer"):
        load(text).with_changes({"recorder.max_event_s": 1})
    with pytest.raises(SettingsError, match=r"^config.toml: \[night\] dark_threshold"):
        load("[night]\ndark_threshold = 220", environ={"SHMCAM_NIGHT__DWELL_S": "3"})


def test_with_changes_checks_the_whole_and_leaves_the_original(load):
    settings = load("[night]\ndark_threshold = 30")
    with pytest.raises(SettingsError, match=r"^set: \[night\] dark_threshold = 'dark': must be number"):
        settings.with_changes({"night.dark_threshold": "dark"})
    changed = settings.with_changes({"night.dark_threshold": 20.0})
    assert (settings.value("night.dark_threshold"), changed.value("night.dark_threshold")) == (30, 20)
    with pytest.raises(SettingsError, match="dark_threshold = 'x'"):
        settings.with_changes({"night.dark_threshold": "x"})
    with pytest.raises(SettingsError, match=r"did you mean night.dark_threshold"):
        settings.with_changes({"night.dark_treshold": 3})


def test_an_optional_key_that_is_set_to_nothing_has_its_default_again(load):
    settings = load("[camera.controls]\nBrightness = 0.5\n[cameras.cam1.controls]\nBrightness = 0.7")
    changed = settings.with_changes({"cameras.cam1.controls.Brightness": None})
    assert changed.value("cameras.cam1.controls.Brightness") == 0.5
    assert changed.with_changes({"camera.controls.Brightness": None}).value("camera.controls.Brightness") is None


def test_a_live_change_is_taken_over_and_logged(load, caplog):
    caplog.set_level(logging.INFO)
    settings = load("[cameras.cam0]\n[cameras.cam1.recorder]\ncsv = true")
    changed = apply_change(settings, "recorder.csv", False, "cam1")
    assert (changed.value("cameras.cam1.recorder.csv"), changed.value("recorder.csv")) == (False, True)
    assert caplog.messages == ["setting taken over key=cameras.cam1.recorder.csv value=false"]
    assert apply_change(changed, "cameras.cam1.recorder.csv", True, "cam1").value("cameras.cam1.recorder.csv") is True


@pytest.mark.parametrize(("key", "value"), [("night.dark_threshold", "x"), ("night.dark_treshold", 3.0)])
def test_a_live_change_that_cannot_be_leaves_all_as_it_was(load, caplog, key, value):
    changed = apply_change(load("[night]\ndark_threshold = 30"), key, value)
    assert changed.value("night.dark_threshold") == 30
    assert f"setting refused key={key}: " in caplog.text
    changed = apply_change(changed, "night.bright_threshold", 90.0)
    assert (changed.value("night.dark_threshold"), changed.value("night.bright_threshold")) == (30, 90)


def test_changes_that_fit_together_only_arrive_one_by_one(load):
    """`set` of both thresholds above the old bright one left every process with the old dark one."""
    settings = load("[night]\ndark_threshold = 40\nbright_threshold = 60")
    for first, second in (("dark", "bright"), ("bright", "dark")):
        now = settings
        for name in (first, second):
            now = apply_change(now, f"night.{name}_threshold", {"dark": 100.0, "bright": 150.0}[name])
        assert (now.value("night.dark_threshold"), now.value("night.bright_threshold")) == (100, 150)
        assert not now.refused


def test_the_level_of_the_log_changes_live(load):
    """`set logging.level DEBUG` said live and changed nothing."""
    level = logging.getLogger().level
    try:
        changed = apply_change(load(""), "logging.level", "DEBUG")
        assert logging.getLogger().level == logging.DEBUG
        apply_change(changed, "logging.level", "ERROR")
        assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(level)


def test_set_of_shmcam_run_reaches_cameras_with_capitals(load):
    settings = load("[cameras.Front]\nwidth = 640", environ={"SHMCAM_SET": "cameras.Front.width=800\nring.size=9"})
    assert settings.cameras == ("Front",)
    assert settings.value("cameras.Front.width") == 800 and settings.value("ring.size") == 9


def test_a_secret_of_the_wrong_type_is_refused_without_being_shown(load):
    for text in ("[http]\ntoken = 1234567890123456789", "[cameras.cam1]\nurl = 98765"):
        with pytest.raises(SettingsError, match=r"= \*\*\*: must be text"):
            load(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[hooks.actions]]\nwebhook = "https://hooks.example/SECRET"', "table of tables"),
        ('[hooks]\nactions = "SECRET"', "table of tables"),
        ('[hooks.actions]\nphone = "https://hooks.example/SECRET"', "a table"),
        ('[hooks.actions.phone]\nevents = ["saved"]\nheaders = "SECRET"', "table of text"),
    ],
)
def test_a_hook_of_the_wrong_shape_is_refused_without_showing_its_secrets(load, text, expected):
    with pytest.raises(SettingsError, match=rf"= \*\*\*: must be {expected}"):
        load(text)


def test_every_key_has_words_for_people(load):
    for key in load("").schema():
        assert key.help and key.expected and key.apply in ("live", "restart", "file"), key.path


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_file_crashes_the_loader(noise):
    import tempfile

    raw = noise.encode(errors="replace") if isinstance(noise, str) else noise
    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        try:
            Settings.load(file.name, environ={})
        except SettingsError as error:
            assert str(error)


def test_names_of_a_former_release_are_read_or_refused_in_words(load):
    assert load('[ring]\nprefix = "_cam"').value("ring.prefix") == "_cam"
    form = "of 1 to 32 letters, digits, _ and -, the first a letter or digit"
    for text in ("[cameras._a]", '[recorder]\nsession_prefix = "-a"'):
        with pytest.raises(SettingsError, match=form):
            load(text)
    with pytest.raises(SettingsError, match=r"prefix = 'a/b': must be text of 1 to 32 letters, digits, _ and -$"):
        load('[ring]\nprefix = "a/b"')


@pytest.mark.parametrize("name", [*PER_CAMERA, *FOR_ALL, "hub", "hooks", "mqtt", "rtsp_publish", "upload"])
def test_a_camera_is_not_called_as_a_program_is(load, name):
    """[cameras.mqtt] took the place of the program mqtt in run/programs/, without a word."""
    with pytest.raises(SettingsError, match=rf"config.toml:2: .*'{name}': must be a camera name that is not a program"):
        load(f"[cameras.cam0]\n[cameras.{name}]\n")


def test_a_camera_is_not_called_as_a_word_that_stands_where_its_name_may(load):
    """`save jpg`, `record stop` and `supervisorctl restart all` could not tell which was meant."""
    rows = [row for row in COMMANDS if {"camera", "cameras"} & set(row.positional)]
    words = {
        word
        for row in rows
        for name in row.positional
        for word in choices(fields_of(row.message)[name]).split("|")
        if word
    }
    assert words | {"all", *get_args(Format)} == WORDS_OF_COMMANDS
    for name in ("all", "stop", "Live", "jpg"):
        with pytest.raises(
            SettingsError, match=rf"config.toml:2: .*'{name}': must be a camera name that is no word of"
        ):
            load(f"[cameras.cam0]\n[cameras.{name}]\n")


def test_a_camera_may_be_called_as_a_table_without_a_program_is(load):
    assert load("[cameras.night]\n[cameras.porch]\n").cameras == ("night", "porch")


@pytest.mark.parametrize("run", ["", " ", "/", "/tmp", "/tmp/", "//", "/var/tmp/.", "/dev/shm", "a\\u0000b"])
def test_a_run_folder_is_one_of_our_own(load, run):
    with pytest.raises(SettingsError, match="run"):
        load(f'[paths]\nrun = "{run}"\n')


def test_no_text_holds_a_nul(tmp_path):
    """`export.base_dir = "a\\u0000b"` ended every process with a traceback; others failed later, again and again."""
    config = tmp_path / "config.toml"
    config.touch()
    keys = [key for key in Settings.load(config, environ={}).schema() if key.type in ("text", "list", "table")]
    assert len(keys) > 40
    for key in keys:
        table, _, name = key.path.rpartition(".")
        for value in ('"a\\u0000b"', '["a", "a\\u0000b"]', '{ a = "\\u0000" }'):
            config.write_text(f"[{table}]\n{name} = {value}\n")
            with pytest.raises(SettingsError, match=r"NUL|must be"):
                Settings.load(config, environ={})


def test_the_same_text_is_checked_once_and_where_its_links_lead_is_found_anew(tmp_path, monkeypatch):
    """A forked program takes what its parent has checked, but the disk behind a link may have come since."""
    config = tmp_path / "config.toml"
    config.write_text("[camera]\nwidth = 640\n")
    before = Settings.load(config, environ={})
    assert before.paths.recordings == tmp_path / "recordings"
    monkeypatch.setattr("shmcam.config.settings.parse", lambda *_: pytest.fail("parsed again"))
    (tmp_path / "disk").mkdir()
    (tmp_path / "recordings").symlink_to(tmp_path / "disk")
    again = Settings.load(config, environ={})
    assert again == before and again.paths.recordings == tmp_path / "disk"
    monkeypatch.undo()
    assert Settings.load(config, ["camera.width=320"], {}).value("camera.width") == 320
    config.write_text("[camera]\nwidth = 800\n")
    assert Settings.load(config, environ={}).value("camera.width") == 800
