"""The process under supervisord: what a person sees of it, kill -9 in the middle of a file, and an unusable rclone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from tests.machine import until
from tests.shmcam.library.conftest import on_disk
from tests.shmcam.upload.conftest import Store, find_commands, other_disk, rclone
from tests.shmcam.watchdog.supervised import SupervisedOptional

pytestmark = rclone

CONFIG = """
[upload]
enable = true
remote = "nas:shmcam"
rclone_config = "rclone.conf"
max_kb_s = 400
"""


@pytest.fixture(scope="module")
def service():
    with SupervisedOptional(CONFIG) as service:
        yield service


@pytest.fixture(scope="module")
def store(service):
    with other_disk() as disk:
        yield Store(service.folder, "nas", {"type": "alias", "remote": disk})


@pytest.fixture(scope="module")
def library(service):
    settings = Settings.load(service.config, environ={})
    with Catalogue.of(settings) as catalogue:
        yield lambda name, size: catalogue.add(on_disk(settings, name, size, len(catalogue.find()))), catalogue


def row_of(service) -> dict[str, object]:
    rows = service.json({"command": "status"})["data"]["processes"]
    return next((row for row in rows if row["program"] == "upload"), {"state": "", "figures": {}})


def log_of(service) -> str:
    path = service.folder / "logs/upload.log"
    return path.read_text() if path.exists() else ""


def test_a_transfer_that_was_killed_is_finished_after_the_restart(service, store, library):
    save, catalogue = library
    first, second = save("a_20260101.mp4", 4000), save("b_20260101.mp4", 4_000_000)
    row = until(
        lambda: 0 < (row := row_of(service))["figures"].get("percent", 0) < 90 and row, 40, lambda: log_of(service)
    )
    assert row["state"] == "uploading" and row["figures"]["waiting"] == 2 and row["reason"] == ""
    mine = [pid for argv, pid in find_commands("rclone").items() if str(store.config) in argv]
    pid = service.pid("upload")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in mine), 10, "rclone to die with it")
    service.json({"command": "set", "key": "upload.max_kb_s", "value": "0"})
    until(lambda: all(entry.uploaded == store.remote for entry in catalogue.find()), 60, lambda: log_of(service))
    assert service.pid("upload") not in (0, pid)
    for entry in (first, second):
        assert store.read(f"recordings/{entry.path.name}") == entry.path.read_bytes()
    until(lambda: row_of(service)["figures"]["waiting"] == 0 and row_of(service)["state"] == "running", 20, "idle")


def test_a_live_setting_ends_the_transfer_and_begins_it_anew_with_the_new_speed(service, store, library):
    save, catalogue = library
    service.json({"command": "set", "key": "upload.max_kb_s", "value": "100"})
    entry = save("slow_20260101.mp4", 6_000_000)  # a minute at this speed
    until(lambda: row_of(service)["figures"].get("percent", 0) > 0, 30, lambda: log_of(service))
    service.json({"command": "set", "key": "upload.max_kb_s", "value": "0"})
    until(lambda: catalogue.get(entry.id).uploaded, 20, lambda: log_of(service))


def test_hours_and_what_is_chosen_act_while_it_runs(service, store, library):
    save, catalogue = library

    def put(key, value):
        answer = service.json({"command": "set", "key": key, "value": value})
        assert answer["status"] == "setting_changed", answer

    hour = time.localtime().tm_hour
    put("upload.hours", f"{(hour + 2) % 24:02}:00-{(hour + 3) % 24:02}:00")
    entry = save("later_20260101.mp4", 4000)
    until(lambda: row_of(service)["state"] == "paused", 20, lambda: log_of(service))
    put("upload.only_triggered", "true")
    put("upload.hours", "")
    until(lambda: row_of(service)["state"] == "running", 20, lambda: log_of(service))
    assert not catalogue.get(entry.id).uploaded, "no event made it"
    put("upload.only_triggered", "false")
    until(lambda: catalogue.get(entry.id).uploaded, 20, lambda: log_of(service))


def test_keys_that_choose_place_or_file_are_not_for_the_socket(service):
    for key, value in (("remote", "/etc"), ("rclone_config", "/etc/passwd"), ("enable", "false"), ("groups", "clips")):
        answer = service.json({"command": "set", "key": f"upload.{key}", "value": value})
        assert answer["status"] != "ok" and "config.toml" in str(answer), answer
