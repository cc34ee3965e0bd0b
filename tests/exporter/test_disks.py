"""A disk that somebody else fills is announced, once, before pictures are refused."""

from __future__ import annotations

from shmcam.control.client import ControlClient
from shmcam.control.messages import DiskLow
from tests.exporter.conftest import Service
from tests.machine import until


def test_a_disk_that_others_fill_is_announced_once(tmp_path):
    service = Service(tmp_path, "[library]\nfree_reserve_mb = 1000000\nfree_reserve_percent = 0\n")
    heard: list[object] = []
    service.start("hub")
    try:
        with ControlClient("watcher", socket_path=service.settings.socket_path, subscribe=("disk_low",)) as watcher:
            until(lambda: watcher.is_connected, 20, "hub: " + service.logs())
            service.start("exporter")
            service.ready()
            until(lambda: heard.extend(one.message for one in watcher.receive()) or len(heard) > 1, 30, service.logs())
    finally:
        service.stop()
    paths = service.settings.paths
    assert [event.path for event in heard if isinstance(event, DiskLow)] == [str(paths.captures), str(paths.recordings)]
    assert all(0 <= event.free_bytes < event.need_bytes == 10**12 for event in heard)
    assert service.logs().count("disk low") == 2
