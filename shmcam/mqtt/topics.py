"""The topics of one device at the broker. Pure.

PREFIX/all/command                   a command for every device
PREFIX/reply/…                       answers that a caller asked for (MQTT 5: response topic)
PREFIX/DEVICE/availability           online, offline (retained; offline is our last will)
PREFIX/DEVICE/health                 versions, cameras, disk, clock (JSON, retained)
PREFIX/DEVICE/command                a command: a line of text, or a JSON object
PREFIX/DEVICE/reply                  its answer, where the caller named no response topic
PREFIX/DEVICE/event/NAME             an event (JSON)
PREFIX/DEVICE/camera/CAMERA/…        availability, state (JSON), image (JPEG): retained; ENTITY/set: from Home Assistant
DISCOVERY/device/DEVICE/CAMERA/config  the device that Home Assistant makes of a camera (JSON, retained)
DISCOVERY/status                     Home Assistant's birth and will
"""

from __future__ import annotations

import re

from msgspec import Struct

from shmcam.mqtt.settings import NOT_DEVICES, MqttSettings

ONLINE, OFFLINE = b"online", b"offline"
"""Payloads of availability, which are Home Assistant's defaults, and of its own birth and will."""

DEVICE_MAX = 32


def device_name_of(settings: MqttSettings, host_name: str) -> str:
    """Returns the name of this machine at the broker: as set, else the host name without what topics forbid."""
    name = settings.device or re.sub(r"[^A-Za-z0-9_-]+", "-", host_name.partition(".")[0])[:DEVICE_MAX].strip("-")
    return name if name and name not in NOT_DEVICES else "camera"


class Topics(Struct, frozen=True):
    """The topics of one device; see the module."""

    prefix: str
    device: str
    discovery_prefix: str = "homeassistant"

    @property
    def command_for_all(self) -> str:
        """The topic of commands for every device."""
        return f"{self.prefix}/all/command"

    def own(self, leaf: str) -> str:
        """Returns a topic of this device: availability, health, command, reply."""
        return f"{self.prefix}/{self.device}/{leaf}"

    def event(self, name: str) -> str:
        """Returns the topic of an event."""
        return self.own(f"event/{name}")

    def camera(self, camera: str, leaf: str) -> str:
        """Returns a topic of one camera: availability, state, image, or that of an entity's command."""
        return self.own(f"camera/{camera}/{leaf}")

    def discovery(self, camera: str) -> str:
        """Returns the topic of a camera's discovery payload."""
        return f"{self.discovery_prefix}/device/{self.device}/{camera}/config"

    @property
    def birth(self) -> str:
        """The topic at which Home Assistant says that it is there."""
        return f"{self.discovery_prefix}/status"

    @property
    def may_be_stale(self) -> tuple[str, ...]:
        """The filters of all retained topics that this device has for its cameras, also for those it had before."""
        return self.own("camera/+/+"), self.discovery("+")

    def camera_of(self, topic: str) -> str:
        """Returns the camera of a retained topic that `may_be_stale` matches."""
        return topic.split("/")[-2]

    def entity_of(self, topic: str) -> tuple[str, str] | None:
        """Returns (camera, entity) of the topic of an entity's command; None for any other."""
        start = self.own("camera/")
        levels = topic.removeprefix(start).split("/")
        is_entity = topic.startswith(start) and len(levels) == 3 and levels[2] == "set"
        return (levels[0], levels[1]) if is_entity else None

    def is_reply(self, topic: str) -> bool:
        """Tells whether an answer may go to this topic: a caller must not have us write to topics of others."""
        is_plain = not any(c in topic for c in "+#\0") and len(topic) <= 256
        return is_plain and (topic.startswith(f"{self.prefix}/reply/") or topic == self.own("reply"))
