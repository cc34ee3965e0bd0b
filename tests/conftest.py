"""What holds for every test."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.machine import SHORT

HERE = Path(__file__).parent

# As streamer/__init__.py has it; aiohttp reads it at its first import, which may be another package's test.
os.environ.setdefault("AIOHTTP_NOSENDFILE", "1")

# Programs under test write as they do at home, whatever the shell or the CI runner has set.
os.environ.pop("PYTHONUNBUFFERED", None)
# They keep what they have compiled, too: else each that is started here compiles the whole product anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# There are sockets in tmp_path.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", SHORT)
if SHORT != "/tmp":
    os.environ.setdefault("TMPDIR", SHORT)  # browsers

# An example takes as long as it takes: Hypothesis' 200 ms are a claim about the machine.
with suppress(ImportError):  # the rig of tests/picamera2 does without
    from hypothesis import HealthCheck, settings

    settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")

# A shell starts background jobs (`make test &`, nohup, some CI runners) with SIGINT ignored, and programs inherit that
# through exec: the programs under test would then never see the Ctrl-C that the tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `timeout` and CI runners end a run with SIGTERM: the running test then still takes its processes and segments with it.
signal.signal(signal.SIGTERM, signal.default_int_handler)

LONG = frozenset(
    f"test_{name}.py"
    for name in (
        *("page", "disk", "save", "process", "shell", "server", "catalogue", "view", "detector", "stack_engine"),
        *("configuration", "special_files", "faults", "all_day", "events", "power_cut", "recording", "frame_pipeline"),
        *("replay", "trigger_port", "live_video", "mjpeg", "watchdog", "publish", "home_assistant", "programs"),
        *("storm", "faulty_disk", "triggers"),
    )
)
"""Files that take half a minute or more, beside those of whole services in tests/ itself."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take long first: side by side, a long one that begins last keeps everybody waiting."""
    items.sort(key=lambda item: item.path.parent != HERE and item.path.name not in LONG)
