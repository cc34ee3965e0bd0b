"""What the exporter's loop decides by itself: how long a pastStack waits, when the library is looked at again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from control.messages import PastStack, Reply
from exporter.disks import Disks
from exporter.loop import ripe, take
from exporter.parts import Parts
from exporter.worker import Worker
from service.settings import Settings
from service.stop import Stop

TOML = """
[export]
save_after_s = 0.5
[cameras.cam0.export]
save_after_s = 3.0
[cameras.cam1]
"""
S = 10**9


class Saver:
    """Takes work as Jobs does; what it was handed."""

    def __init__(self) -> None:
        self.work = []

    def submit(self, work, asked=None) -> bool:
        self.work.append(work)
        return True


def parts_of(tmp_path: Path, toml: str = TOML) -> Parts:
    (tmp_path / "config.toml").write_text(toml)
    settings = Settings.load(tmp_path / "config.toml", environ={})
    studio = SimpleNamespace(past_stack=lambda _command, _now: Reply())
    control = SimpleNamespace(announce=lambda _event: None)
    return Parts(settings, control, studio, None, Saver(), Saver(), Disks(control.announce))  # type: ignore[arg-type]


@pytest.mark.parametrize(("camera", "after_s"), [("", 3.0), ("cam0", 3.0), ("cam1", 0.5), ("nobody", 0.5)])
def test_a_past_stack_waits_for_the_time_after_of_its_own_camera(tmp_path, camera, after_s):
    parts = parts_of(tmp_path)
    asked = SimpleNamespace(message=PastStack(camera=camera), reply=lambda _reply: True)
    take(asked, parts, 100 * S)  # type: ignore[arg-type]
    ripe(parts, round((100 + after_s - 0.1) * S))
    assert parts.saver.work == []
    ripe(parts, round((100 + after_s + 0.1) * S))
    assert len(parts.saver.work) == 1


class Buggy(Worker):
    def work(self) -> None:
        raise ZeroDivisionError("a bug")


def test_a_thread_that_meets_a_bug_ends_the_process_with_an_error(caplog):
    """Not with 0: supervisord takes that for the end of a process that was asked to stop."""
    stop = Stop()
    with Buggy("follow-cam0", stop):
        assert stop.wait(10) and stop.failed
    assert "follow-cam0 broke" in caplog.text and "ZeroDivisionError: a bug" in caplog.text
