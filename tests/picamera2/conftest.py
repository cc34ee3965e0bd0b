"""Fixtures for the simulated cameras. Outside the rig every test marked picamera2 is skipped: run.sh runs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.picamera2.camera import Camera, Rig

IN_RIG = "SHMCAM_IN_RIG" in os.environ
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IN_RIG:
        return
    skip = pytest.mark.skip(reason="needs the simulated cameras: make test-picamera2")
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("picamera2"):
            item.add_marker(skip)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The simulated cameras' switches, all as new, before and after."""
    from capture.sources.picamera2 import device

    monkeypatch.setenv("RIG_CTL", str(tmp_path))
    monkeypatch.setattr(device, "_places", {})
    switches = Rig(tmp_path, monkeypatch)
    yield switches
    switches.clear()
    if len(device.list_cameras()) < 2:  # libcamera was started while one was unplugged
        device.list_cameras(afresh=True)


@pytest.fixture
def camera(rig: Rig) -> Iterator[Callable[..., Camera]]:
    """`camera(width=…, …)` opens one; all are closed at the end."""
    opened: list[Camera] = []

    def open_one(**wishes: object) -> Camera:
        opened.append(Camera(**wishes))
        return opened[-1]

    yield open_one
    rig.clear()
    for one in opened:
        one.close()
