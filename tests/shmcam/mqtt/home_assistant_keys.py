"""Writes the keys that Home Assistant's own discovery schemas take, by platform; home_assistant.sh runs it."""

import importlib
import json
import sys
from pathlib import Path


def keys_of(schema, keys):
    """Collects the keys of a voluptuous schema."""
    if isinstance(schema, dict):
        keys.update(str(key) for key in schema)
    for part in getattr(schema, "validators", None) or [getattr(schema, "schema", None)]:
        if part is not None:
            keys_of(part, keys)
    return keys


def main(path):
    mqtt = "homeassistant.components.mqtt"
    schemas = importlib.import_module(f"{mqtt}.schemas")
    keys = {"home_assistant": importlib.import_module("homeassistant.const").__version__}
    for platform in ("image", "binary_sensor", "sensor", "switch", "button", "select", "update"):
        keys[platform] = sorted(keys_of(importlib.import_module(f"{mqtt}.{platform}").DISCOVERY_SCHEMA, set()))
    keys["device_payload"] = sorted(keys_of(schemas.DEVICE_DISCOVERY_SCHEMA, set()))
    keys["device"] = sorted(keys_of(schemas.MQTT_ENTITY_DEVICE_INFO_SCHEMA, set()))
    keys["origin"] = sorted(keys_of(schemas.MQTT_ORIGIN_INFO_SCHEMA, set()))
    Path(path).write_text(json.dumps(keys, indent=1))


main(sys.argv[1])
