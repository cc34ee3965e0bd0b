"""The disk that /healthz and the page look at may be a network disk that is away."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from shmcam.library.disks.disk_space import DiskRoom
from streamer.monitoring import disk_probe
from streamer.monitoring.disk_probe import DiskProbe
from streamer.monitoring.health import find_reasons
from tests.machine import until
from tests.shmcam.library.conftest import make_settings

ROOM = DiskRoom(10**9, 10**12, 10**6)


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


def test_a_disk_that_does_not_answer_is_told_and_nobody_waits_for_it(settings, monkeypatch):
    """A NAS was switched off: the streamer stood still, live video too, until the watchdog killed it."""
    release, asked = threading.Event(), []

    def measure(_path, _own):
        asked.append(release.wait(30))
        return ROOM

    monkeypatch.setattr(disk_probe, "measure_room", measure)
    probe = DiskProbe(lambda: settings)
    try:
        disk = [probe.read() for _ in range(5)][-1]
        assert find_reasons({}, disk, hub=True, processes=[]) == [
            f"disk {settings.paths.recordings}: does not answer for 0 s"
        ]
    finally:
        release.set()
    until(lambda: not probe.read().problem, 10, "it answers again")
    assert probe.read().free_bytes == 10**9 and len(asked) <= 3, "one thread waits, not one for each question"


def test_a_disk_that_answers_with_an_error_is_told(settings, monkeypatch):
    """/healthz and the page answered 500 while the server of an SSHFS was gone."""

    def measure(_path, _own):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(disk_probe, "measure_room", measure)
    disk = DiskProbe(lambda: settings).read()
    reasons = find_reasons({}, disk, hub=True, processes=[])
    assert reasons == [f"disk {settings.paths.recordings}: Transport endpoint is not connected"]
