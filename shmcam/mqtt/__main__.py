"""The process mqtt: publishes cameras and events at an MQTT broker, and takes commands from there."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from shmcam.control.client import ControlClient
from shmcam.mqtt.settings import MqttSettings
from shmcam.mqtt.topics import Topics, device_name_of
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


class _ThreadForEach(ThreadPoolExecutor):
    """Runs each call in a daemon thread: asyncio and Python wait for a pool's, and a resolver may hold one up."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begins a call. Returns: its result to come."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as problem:  # noqa: BLE001 - whoever waits for the result gets it
                future.set_exception(problem)

        future.set_running_or_notify_cancel()
        threading.Thread(target=run, daemon=True).start()
        return future


async def _run(mqtt_loop: MqttLoop) -> None:
    asyncio.get_running_loop().set_default_executor(_ThreadForEach())
    await mqtt_loop.run()


if __name__ == "__main__":
    sys.exit(main())
