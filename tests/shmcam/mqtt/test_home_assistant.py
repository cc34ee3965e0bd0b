"""A real Home Assistant finds a real camera at a real mosquitto; home_assistant.sh makes and runs it.

It has no token for its API here: mqtt_statestream publishes every state, and an automation calls the services.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.machine import SHORT, until
from tests.pipeline import Pipeline, free_port
from tests.shmcam.mqtt.brokers import Listener, Mosquitto

HOME = Path(os.environ.get("SHMCAM_HOME_ASSISTANT", "/nowhere"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (HOME / "bin/python").exists(), reason="run by tests/shmcam/mqtt/home_assistant.sh"),
]

CONFIGURATION = """
http: {server_host: 127.0.0.1, server_port: %d}
logger: {default: warning}
mqtt_statestream: {base_topic: hastate}
automation:
  - alias: act
    mode: queued
    triggers: [{trigger: mqtt, topic: hado}]
    actions:
      - action: "{{ trigger.payload_json.action }}"
        data: "{{ trigger.payload_json.data }}"
"""
ENTRY = {
    "entry_id": "01HMQTT0000000000000000001",
    "version": 1,
    "minor_version": 2,
    "domain": "mqtt",
    "title": "broker",
    "options": {},
    "pref_disable_new_entities": False,
    "pref_disable_polling": False,
    "source": "user",
    "unique_id": None,
    "disabled_by": None,
    "discovery_keys": {},
    "subentries": [],
    **dict.fromkeys(("created_at", "modified_at"), "2025-01-01T00:00:00+00:00"),
}


class HomeAssistant:
    def __init__(self, broker):
        self.folder = Path(tempfile.mkdtemp(prefix="shmcam-ha", dir=SHORT))
        (self.folder / ".storage").mkdir()
        (self.folder / "configuration.yaml").write_text(CONFIGURATION % free_port())
        entry = {**ENTRY, "data": {"broker": "127.0.0.1", "port": broker.port, "discovery": True}}
        storage = {"version": 1, "minor_version": 5, "key": "core.config_entries", "data": {"entries": [entry]}}
        (self.folder / ".storage/core.config_entries").write_text(json.dumps(storage))

    def __enter__(self):
        self.start()
        return self

    def start(self):
        command = [str(HOME / "bin/python"), "-m", "homeassistant", "-c", str(self.folder), "--skip-pip"]
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def house():
    with Mosquitto() as broker, HomeAssistant(broker) as assistant, Listener(broker) as listener:
        mqtt = {"enable": True, "port": broker.port, "device": "pi", "image_s": 1.0, "state_s": 0.5}
        with Pipeline(mqtt=mqtt) as service:
            until(lambda: listener.payloads("homeassistant/status"), 60, (assistant.folder / "out").read_text)
            yield service, listener, assistant


def states_of(listener):
    found = {}
    for topic, payload in list(listener.messages):
        if topic.startswith("hastate/") and topic.endswith("/state"):
            found[topic.removeprefix("hastate/").removesuffix("/state").replace("/", ".")] = payload.decode()
    return found


def act(listener, action, entity, **data):
    listener.publish("hado", {"action": action, "data": {"entity_id": entity, **data}})


def test_home_assistant_has_every_entity_and_acts(house):
    service, listener, _ = house
    until(lambda: states_of(listener).get("switch.pi_cam0_recording") == "off", 60, lambda: states_of(listener))
    until(lambda: states_of(listener).get("sensor.pi_cam0_disk_free", "unknown") != "unknown", 30, "the disk")
    states = states_of(listener)
    assert float(states["sensor.pi_cam0_frame_rate"]) > 0
    for entity in ("motion", "night", "problem"):
        assert states[f"binary_sensor.pi_cam0_{entity}"] in ("on", "off")
    assert float(states["sensor.pi_cam0_dropped_frames"]) >= 0
    assert float(states["sensor.pi_cam0_brightness"]) > 0
    assert states["update.pi_cam0_version"] == "off"
    assert states["select.pi_cam0_night_mode"] == "auto"
    until(lambda: states_of(listener).get("image.pi_cam0", "unknown")[:2] == "20", 30, "a picture")
    act(listener, "switch.turn_on", "switch.pi_cam0_recording")
    until(lambda: states_of(listener)["switch.pi_cam0_recording"] == "on", 30, "recording")
    assert service.text("record status").startswith("RECORDING")
    act(listener, "switch.turn_off", "switch.pi_cam0_recording")
    act(listener, "select.select_option", "select.pi_cam0_night_mode", option="on")
    act(listener, "button.press", "button.pi_cam0_save_picture")
    act(listener, "button.press", "button.pi_cam0_stack_the_past")
    until(lambda: states_of(listener)["switch.pi_cam0_recording"] == "off", 30, "no recording")
    until(lambda: states_of(listener)["select.pi_cam0_night_mode"] == "on", 30, "night")
    until(lambda: {"picture", "stack"} <= set(service.text("pictures").split()), 60, lambda: service.text("pictures"))


def test_entities_follow_the_process_and_come_again_after_a_start_of_home_assistant(house):
    service, listener, assistant = house
    service.supervisorctl("stop", "mqtt")
    until(lambda: states_of(listener)["sensor.pi_cam0_frame_rate"] == "unavailable", 30, lambda: states_of(listener))
    service.supervisorctl("start", "mqtt")
    until(lambda: states_of(listener)["sensor.pi_cam0_frame_rate"] != "unavailable", 30, lambda: states_of(listener))
    assistant.stop()
    listener.messages.clear()
    assistant.start()
    until(lambda: states_of(listener).get("switch.pi_cam0_recording") == "off", 90, lambda: states_of(listener))
    problems = [
        line for line in (assistant.folder / "out").read_text().splitlines() if "mqtt" in line and "WARN" in line
    ]
    assert not [line for line in problems if "pi" in line and "cam0" in line]
