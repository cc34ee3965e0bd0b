"""A whole service at a real mosquitto: what Home Assistant sees of a camera, and what it may ask of it."""

import io
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from shmcam.video.growing_mp4 import read_about
from tests.machine import until
from tests.pipeline import Pipeline
from tests.shmcam.mqtt.brokers import MOSQUITTO, Listener, Mosquitto

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="not installed: mosquitto")

CAMERA = "shmcam/pi/camera/cam0"


@pytest.fixture(scope="module")
def broker():
    with Mosquitto() as broker:
        yield broker


@pytest.fixture(scope="module")
def service(broker):
    mqtt = {"enable": True, "port": broker.port, "device": "pi", "image_s": 1.0, "state_s": 0.5}
    with Pipeline(mqtt=mqtt) as service:
        yield service


@pytest.fixture
def listener(broker):
    with Listener(broker) as listener:
        yield listener


def state(listener):
    payloads = listener.payloads(f"{CAMERA}/state")
    return json.loads(payloads[-1]) if payloads else {}


def test_a_camera_is_a_device_with_state_and_picture(service, listener):
    until(lambda: state(listener).get("state") == "found", 30, lambda: service.logs("mqtt"))
    until(lambda: state(listener)["fps"] > 5, 20, lambda: state(listener))
    assert listener.retained[f"{CAMERA}/availability"] == b"online"
    payload = listener.json("homeassistant/device/pi/cam0/config")
    assert payload["device"]["identifiers"] == ["shmcam_pi_cam0"]
    assert payload["device"]["model"]
    image = until(lambda: listener.retained.get(f"{CAMERA}/image"), 20, "a picture")
    with Image.open(io.BytesIO(image)) as picture:
        assert picture.size == (640, 480)
    assert service.json({"command": "get", "key": "mqtt.enable"})["data"]
    assert "mqtt" in service.text("status")


def test_home_assistants_start_brings_everything_again_and_the_switch_records(service, listener):
    until(lambda: "homeassistant/device/pi/cam0/config" in listener.retained, 20, "discovery")
    known = len(listener.payloads("homeassistant/device/pi/cam0/config"))
    listener.publish("homeassistant/status", "online")
    until(lambda: len(listener.payloads("homeassistant/device/pi/cam0/config")) > known, 20, "discovery again")
    listener.publish(f"{CAMERA}/recording/set", "ON")
    until(lambda: state(listener)["recording"] is True, 20, lambda: service.logs("mqtt"))
    listener.publish(f"{CAMERA}/recording/set", "OFF")
    until(lambda: state(listener)["recording"] is False, 20, lambda: service.logs("mqtt"))
    until(lambda: listener.payloads("shmcam/pi/event/clip_closed"), 20, "the clip")
    listener.publish(f"{CAMERA}/night_mode/set", "on")
    until(lambda: state(listener)["night_mode"] == "on", 20, lambda: state(listener))
    listener.publish(f"{CAMERA}/night_mode/set", "maybe")
    until(lambda: b"expected one of auto, on, off" in b"".join(listener.payloads("shmcam/pi/reply")), 20, "a refusal")
    listener.publish(f"{CAMERA}/night_mode/set", "auto")


def test_a_snapshot_is_of_its_instant_by_the_wall_clock(service, listener):
    until(lambda: "shmcam/pi/health" in listener.retained, 20, "health")
    at_utc_ns = time.time_ns() + 1_000_000_000
    answer = listener.ask("shmcam/all/command", {"command": "snapshot", "at_utc_ns": at_utc_ns, "id": "x"})
    assert (answer["device"], answer["ok"], answer["id"], answer["at_utc_ns"]) == ("pi", True, "x", at_utc_ns)
    frame = answer["data"]["frames"]["cam0"]
    assert abs(frame["asked_age_s"] - frame["age_s"]) <= 0.5  # the frame nearest to the instant, on any machine
    assert time.time_ns() > at_utc_ns


def test_a_recording_begins_and_ends_at_its_instants(service, listener):
    at_utc_ns = time.time_ns() + 3_000_000_000
    for action, after_ns in (("start", 0), ("stop", 500_000_000)):
        order = {"command": "record", "action": action, "at_utc_ns": at_utc_ns + after_ns}
        listener.publish("shmcam/pi/command", order)
    clip = json.loads(until(lambda: listener.payloads("shmcam/pi/event/clip_closed"), 20, "the clip")[-1])["data"]
    assert 0 <= clip["duration_s"] <= 0.5
    about = read_about(Path(clip["path"]))
    assert about["captured_utc_ns"] >= at_utc_ns - 1_000_000
    assert "clock_error_us" in about
