"""The device that Home Assistant makes of a camera; home_assistant.sh asks Home Assistant itself."""

import json
from pathlib import Path

import pytest

from shmcam.mqtt.discovery import CameraFacts, device_payload_of, is_our_payload
from shmcam.mqtt.settings import MqttSettings
from shmcam.mqtt.topics import Topics, device_name_of

KEYS = json.loads((Path(__file__).parent / "home_assistant_keys.json").read_text())
"""The keys of Home Assistant's discovery schemas, written by home_assistant.sh."""
FACTS = CameraFacts("cam0", "imx708", "0.1.0", "http://pi:8080")
TOPICS = Topics("shmcam", "pi")
PAYLOAD = device_payload_of(FACTS, TOPICS)


def test_every_key_is_one_that_home_assistant_knows():
    assert PAYLOAD.keys() <= set(KEYS["device_payload"])
    assert PAYLOAD["device"].keys() <= set(KEYS["device"])
    assert PAYLOAD["origin"].keys() <= set(KEYS["origin"])
    for name, component in PAYLOAD["components"].items():
        assert component.keys() - {"platform"} <= set(KEYS[component["platform"]]), name


def test_a_camera_is_one_device_with_all_its_entities():
    platforms = {name: component["platform"] for name, component in PAYLOAD["components"].items()}
    assert platforms == {
        **dict.fromkeys(("motion", "night", "problem"), "binary_sensor"),
        **dict.fromkeys(("fps", "brightness", "drops", "disk"), "sensor"),
        **dict.fromkeys(("save", "stack"), "button"),
        "image": "image",
        "recording": "switch",
        "night_mode": "select",
        "update": "update",
    }
    assert len({component["unique_id"] for component in PAYLOAD["components"].values()}) == len(platforms)
    assert PAYLOAD["device"]["identifiers"] == ["shmcam_pi_cam0"]


def test_no_commands_means_no_buttons_and_no_pictures_no_image():
    payload = device_payload_of(CameraFacts("cam0", is_controlled=False, has_image=False), TOPICS)
    platforms = {component["platform"] for component in payload["components"].values()}
    assert platforms == {"binary_sensor", "sensor", "update"}
    assert "configuration_url" not in payload["device"]


def test_topics_of_commands_are_those_that_are_understood():
    for name in ("recording", "save", "stack", "night_mode"):
        assert TOPICS.entity_of(PAYLOAD["components"][name]["command_topic"]) == ("cam0", name)
    for other in ("shmcam/pi/camera/cam0/set", "shmcam/other/camera/cam0/save/set", "shmcam/pi/camera/a/b/c/set"):
        assert TOPICS.entity_of(other) is None


def test_only_payloads_of_ours_are_removed():
    assert is_our_payload(PAYLOAD)
    for other in ({}, {"origin": "shmcam"}, {"origin": {"name": "zigbee2mqtt"}}, [], None, "shmcam"):
        assert not is_our_payload(other)


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("shmcam/reply/a", True),
        ("shmcam/pi/reply", True),
        ("shmcam/other/reply", False),
        ("shmcam/all/command", False),
        ("homeassistant/device/x/config", False),
        ("shmcam/reply/#", False),
        ("shmcam/reply/" + "x" * 300, False),
    ],
)
def test_an_answer_goes_nowhere_but_to_topics_of_answers(topic, allowed):
    assert TOPICS.is_reply(topic) is allowed


@pytest.mark.parametrize(
    ("set_to", "host", "device"),
    [
        ("", "cam-7.local", "cam-7"),
        ("", "höhle+#/", "h-hle"),
        ("", "all", "camera"),
        ("", "", "camera"),
        ("", "x" * 60, "x" * 32),
        ("nest", "pi", "nest"),
    ],
)
def test_a_device_has_the_set_name_or_that_of_its_machine(set_to, host, device):
    assert device_name_of(MqttSettings(device=set_to), host) == device


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"device": "all"}, "word of the topics"),
        ({"host": ""}, "host must name"),
        ({"tls_cert": "a.pem", "tls": True}, "belong together"),
        ({"tls_ca": "ca.pem"}, "need tls = true"),
        ({"events": ("weather",)}, "no topic 'weather'"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(keys, reason):
    with pytest.raises(ValueError, match=reason):
        MqttSettings(**keys)


def test_it_is_off_by_default_and_says_what_it_needs():
    own = MqttSettings()
    assert not own.enable
    assert own.list_needs()[0].type_this.endswith("pip install 'shmcam[mqtt]'")
    assert (MqttSettings(tls=True).port_in_use, own.port_in_use, MqttSettings(port=5).port_in_use) == (8883, 1883, 5)
