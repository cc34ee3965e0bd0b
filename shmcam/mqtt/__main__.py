"""The process mqtt: publishes cameras and events at an MQTT broker, and takes commands from there."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING

from shmcam.control.client import ControlClient
from shmcam.mqtt.settings import MqttSettings
from shmcam.mqtt.topics import Topics, device_name_of
from shmcam.runtime.guarded_thread import ThreadForEach
from shmcam.runtime.startup import startup

if TYPE_CHECKING:
    from shmcam.mqtt.loop import MqttLoop


def main() -> int:
    """Wires and runs the process. Returns: 0 when asked to stop."""
    with startup("mqtt", oom_score_adj=400) as process:
        from shmcam.mqtt.loop import MqttLoop, events_wanted  # startup has said what to type if aiomqtt is missing

        settings, stop = process.settings, process.stop
        own = settings.table(MqttSettings)
        topics = Topics(own.prefix, device_name_of(own, socket.gethostname()), own.discovery_prefix)
        with ControlClient(
            "mqtt", socket_path=settings.socket_path, stop=stop, subscribe=events_wanted(own)
        ) as control:
            asyncio.run(_run(MqttLoop(settings, own, topics, control, stop)))
    return 0


async def _run(mqtt_loop: MqttLoop) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadForEach())
    await mqtt_loop.run()


if __name__ == "__main__":
    sys.exit(main())
