"""Which events a hook takes: topics, cameras, hours, limits; and what a wrong [hooks] is told. No processes."""

import pytest

from shmcam.config.masking import MASK, find_secrets, mask_secret
from shmcam.config.schema import list_keys
from shmcam.config.settings import Settings, SettingsError
from shmcam.control.messages import ClipClosed, DiskLow, MotionBegan, NightBegan, NightEnded, Uploaded
from shmcam.hooks.hook import EventLimit, hooks_of, is_within
from shmcam.hooks.payload import describe, fill_in, to_environment, to_payload

MOTION = MotionBegan(camera="cam0", zone="door", score=0.5)


def load(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    return Settings.load(tmp_path / "config.toml", environ={})


def hook(tmp_path, **keys):
    lines = "".join(f"{name} = {value!r}\n" for name, value in {"command": ["true"], **keys}.items())
    return hooks_of(load(tmp_path, f"[hooks]\nenable = true\n[hooks.actions.a]\n{lines}"))[0]


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        ("08:00-17:30", (480, 1049), (479, 1050)),
        ("22:00-06:00", (1320, 1439, 0, 359), (1319, 360, 720)),
        ("00:00-00:00", (0, 720, 1439), ()),
    ],
)
def test_hours_are_local_and_may_go_over_midnight(span, inside, outside):
    assert all(is_within((span,), minute) for minute in inside)
    assert not any(is_within((span,), minute) for minute in outside)


def test_two_spans_are_both_open_and_none_means_always():
    assert is_within(("01:00-02:00", "03:00-04:00"), 200) and not is_within(("01:00-02:00", "03:00-04:00"), 150)
    assert is_within((), 1439)


def test_topics_groups_and_cameras(tmp_path):
    motion = hook(tmp_path, events=["motion"], cameras=["cam0"])
    assert motion.takes(MOTION, 0)
    assert not motion.takes(MotionBegan(camera="cam1"), 0)
    assert not motion.takes(NightBegan(camera="cam0"), 0)
    assert not hook(tmp_path, events=["pictures"]).takes(Uploaded(path="/a.jpg"), 0), "one picture is one event"
    system = hook(tmp_path, events=["system", "clip_closed"])
    assert system.takes(DiskLow(path="/"), 0) and system.takes(ClipClosed(camera="cam3", path="/x.mp4"), 0)
    assert not hook(tmp_path, events=["system"], cameras=["cam0"]).takes(DiskLow(path="/"), 0), "it has no camera"


def test_a_limit_per_camera_and_one_per_hour():
    limit = EventLimit(min_interval_s=10, max_per_hour=3)
    assert [limit.take("cam0", s) for s in (0, 9, 10)] == [True, False, True]
    assert limit.take("cam1", 11) and not limit.take("cam1", 30), "the fourth of the hour"
    assert limit.take("cam1", 3601)


def test_day_and_night_commands_of_each_camera_are_hooks_with_and_without_the_table(tmp_path):
    text = '[night]\non_night = ["on"]\nhook_timeout_s = 3.0\n[cameras.cam0]\n[cameras.cam1.night]\non_day = ["off"]\n'
    settings = load(tmp_path, text)
    first, second = hooks_of(settings)
    assert (first.name, second.name) == ("cam0.night", "cam1.night")
    assert first.events == {"night_began"} and second.events == {"night_began", "night_ended"}
    assert second.command_of("night_ended") == ("off",) and second.command_of("night_began") == ("on",)
    assert second.takes(NightEnded(camera="cam1"), 0) and not second.takes(NightEnded(camera="cam0"), 0)
    assert second.action.timeout_s == 3.0 and second.action.queue_max == 1 and not second.is_repeated


def test_a_disabled_table_does_nothing(tmp_path):
    assert hooks_of(load(tmp_path, '[hooks.actions.a]\nevents = ["saved"]\ncommand = ["true"]\n')) == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('events = ["saved"]', "actions.a: needs one of command, webhook and push"),
        ('command = ["true"]', "needs events"),
        ('events = ["motin"]\ncommand = ["true"]', "no topic 'motin'"),
        ('events = ["saved"]\ncommand = ["true"]\nhours = ["25:00-26:00"]', "must be HH:MM-HH:MM"),
        ('events = ["saved"]\nwebhook = "ftp://s3cretuser@host"', "must be an http:// or https:// address"),
        ('events = ["saved"]\nwebhook = "http://h/"\ncommand = ["x"]', "needs one of"),
        ('evnts = ["saved"]\ncommand = ["true"]', "[hooks.actions.a] unknown key 'evnts'; did you mean events?"),
        ('events = ["saved"]\nwebhook = 5', "[hooks.actions.a] webhook = ***: must be text"),
        ('events = ["saved"]\nheaders = "s3cret"', "[hooks.actions.a] headers = ***: must be table"),
        ('events = ["saved"]\ntimeout_s = -1', "timeout_s = -1: must be number 0..3600 (s)"),
        ('events = ["saved"]\nattach = "all"', "must be one of 'clip', 'none', 'picture'"),
    ],
)
def test_a_wrong_row_is_told_with_its_place_and_no_secret(tmp_path, row, told):
    with pytest.raises(SettingsError) as problem:
        load(tmp_path, f"[hooks]\nenable = true\n[hooks.actions.a]\n{row}\n")
    assert told in str(problem.value) and "s3cret" not in str(problem.value)


def test_rows_are_shown_without_their_secrets_as_struct_and_as_document(tmp_path):
    text = """[hooks.actions.phone]
events = ["saved"]
webhook = "https://hooks.example/T000/verysecretpath?token=0123456789"
secret = "whsec_aaaa"
headers = { Authorization = "Bearer verysecretbearer" }
"""
    settings, key = load(tmp_path, text), list_keys()["hooks.actions"]
    for value in (settings.value("hooks.actions"), settings.document["hooks"]["actions"]):
        shown = mask_secret(key, value)
        assert dict(shown["phone"], events=0) == {"events": 0, "webhook": MASK, "secret": MASK, "headers": MASK}
        assert "verysecret" not in str(shown) and "whsec" not in str(shown)
    hidden = set(find_secrets(key, settings.value("hooks.actions")))
    assert {"verysecretpath", "0123456789", "verysecretbearer", "whsec_aaaa"} <= hidden


def test_what_is_told_as_environment_and_text():
    payload = to_payload(MOTION, ident="1-2", hook="a", host="pi", time_utc="2026-11-30T00:00:00.000Z")
    environment = to_environment(payload)
    assert environment["SHMCAM_HOOK_EVENT"] == "motion_began" and environment["SHMCAM_HOOK_ZONE"] == "door"
    assert environment["SHMCAM_HOOK_CAMERA"] == "cam0" and environment["SHMCAM_HOOK_SCORE"] == "0.5"
    assert "SHMCAM_HOOK_BOX" not in environment, "lists are in the JSON"
    night = to_payload(NightBegan(camera="c", reason="level=3<40"), ident="", hook="n", host="", time_utc="")
    assert to_environment(night)["SHMCAM_HOOK_NIGHT"] == "began"
    assert to_environment(night)["SHMCAM_HOOK_REASON"] == "level=3<40"
    assert fill_in("$event at $zone of $camera on $host, $nothing ${camera.__class__}", payload) == (
        "motion_began at door of cam0 on pi, $nothing ${camera.__class__}"
    )
    assert describe(payload).startswith("motion began: score 0.5, zone door")
