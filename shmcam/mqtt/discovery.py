"""The payload by which Home Assistant makes one device, with its entities, of one camera. Pure.

Device discovery (Home Assistant 2024.12 and later): one retained message holds the device, where it comes from, and
all components. Source: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from shmcam.control.messages import JSON
from shmcam.mqtt.topics import Topics

ORIGIN = "shmcam"
"""The name by which we know our own payloads again."""

NIGHT_OPTIONS = ("auto", "on", "off")
"""The words of the command `night`."""


class CameraFacts(Struct, frozen=True):
    """The facts about a camera that its device shows; a change is announced anew."""

    camera: str
    model: str = ""
    version: str = ""
    """The version of shmcam."""
    page_url: str = ""
    is_controlled: bool = True
    """Commands are taken over the broker."""
    has_image: bool = True


def device_payload_of(facts: CameraFacts, topics: Topics) -> dict[str, JSON]:
    """Returns the discovery payload of one camera."""
    camera, identity = facts.camera, f"{ORIGIN}_{topics.device}_{facts.camera}"
    device: dict[str, JSON] = {
        "identifiers": [identity],
        "name": f"{topics.device} {camera}",
        "manufacturer": "shmcam",
        "model": facts.model or "camera",
        "sw_version": facts.version,
    }
    if facts.page_url:
        device["configuration_url"] = facts.page_url
    components = _list_sensors(topics, camera)
    if facts.has_image:
        components["image"] = {
            "platform": "image",
            "name": None,
            "image_topic": topics.camera(camera, "image"),
            "content_type": "image/jpeg",
            **_needs_camera(topics, camera),
        }
    if facts.is_controlled:
        components |= _list_controls(topics, camera)
    for key, component in components.items():
        component["unique_id"] = f"{identity}_{key}"
    return {
        "device": device,
        "origin": {"name": ORIGIN, "sw_version": facts.version},
        "availability": [{"topic": topics.own("availability")}],
        "state_topic": topics.camera(camera, "state"),
        "qos": 1,
        "components": components,
    }


def is_our_payload(payload: JSON) -> bool:
    """Tells whether a discovery payload is one that we wrote."""
    origin = payload.get("origin") if isinstance(payload, dict) else None
    return isinstance(origin, dict) and origin.get("name") == ORIGIN


def _needs_camera(topics: Topics, camera: str) -> dict[str, Any]:
    """Returns the availability of what a lost camera cannot tell: device and camera must be there."""
    both = [{"topic": topics.own("availability")}, {"topic": topics.camera(camera, "availability")}]
    return {"availability": both, "availability_mode": "all"}


def _list_sensors(topics: Topics, camera: str) -> dict[str, dict[str, Any]]:
    needs_camera = _needs_camera(topics, camera)
    diagnostic = {"entity_category": "diagnostic"}
    measured = {"platform": "sensor", "state_class": "measurement"}
    return {
        "motion": {
            "platform": "binary_sensor",
            "device_class": "motion",
            "value_template": _switch_template("motion"),
            **needs_camera,
        },
        "night": {
            "platform": "binary_sensor",
            "name": "Night",
            "icon": "mdi:weather-night",
            "value_template": _switch_template("night"),
            **needs_camera,
        },
        "problem": {
            "platform": "binary_sensor",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.problem else 'OFF' }}",
            "json_attributes_topic": topics.camera(camera, "state"),
            "json_attributes_template": "{{ {'reason': value_json.problem} | tojson }}",
            **diagnostic,
        },
        "fps": {
            **measured,
            "name": "Frame rate",
            "icon": "mdi:speedometer",
            "unit_of_measurement": "fps",
            "suggested_display_precision": 1,
            "value_template": "{{ value_json.fps }}",
            **diagnostic,
            **needs_camera,
        },
        "brightness": {
            **measured,
            "name": "Brightness",
            "icon": "mdi:brightness-6",
            "suggested_display_precision": 0,
            "value_template": "{{ value_json.dark_score }}",
            **diagnostic,
            **needs_camera,
        },
        "drops": {
            "platform": "sensor",
            "name": "Dropped frames",
            "icon": "mdi:filmstrip-off",
            "state_class": "total_increasing",
            "value_template": "{{ value_json.drops }}",
            **diagnostic,
        },
        "disk": {
            **measured,
            "name": "Disk free",
            "device_class": "data_size",
            "unit_of_measurement": "GB",
            "suggested_display_precision": 1,
            "value_template": "{{ value_json.disk_free_gb }}",
            **diagnostic,
        },
        "update": {
            "platform": "update",
            "name": "Version",
            "title": "shmcam",
            "value_template": (
                "{{ {'installed_version': value_json.version, 'latest_version': value_json.version_on_disk} | tojson }}"
            ),
            **diagnostic,
        },
    }


def _list_controls(topics: Topics, camera: str) -> dict[str, dict[str, Any]]:
    def command(entity: str) -> dict[str, str]:
        return {"command_topic": topics.camera(camera, f"{entity}/set")}

    return {
        "recording": {
            "platform": "switch",
            "name": "Recording",
            "icon": "mdi:record-rec",
            "value_template": _switch_template("recording"),
            **command("recording"),
        },
        "save": {"platform": "button", "name": "Save picture", "icon": "mdi:camera", **command("save")},
        "stack": {"platform": "button", "name": "Stack the past", "icon": "mdi:layers-plus", **command("stack")},
        "night_mode": {
            "platform": "select",
            "name": "Night mode",
            "icon": "mdi:theme-light-dark",
            "options": list(NIGHT_OPTIONS),
            "value_template": "{{ value_json.night_mode }}",
            **command("night_mode"),
        },
    }


def _switch_template(key: str) -> str:
    """Returns the template of true and false; null, which is not known, becomes unknown."""
    return f"{{{{ {{true: 'ON', false: 'OFF'}}.get(value_json.{key}, None) }}}}"
