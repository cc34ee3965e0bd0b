"""The virtual long exposure where its ring cannot be made."""

from __future__ import annotations

import logging
import os
import secrets
from types import SimpleNamespace

import numpy as np

from exporter.continuous.long_exposure import LongExposure
from exporter.loop import send_heartbeat
from shm_ring import FrameMeta, RingReader
from shm_ring.formats import geometry
from tests.exporter.test_loop import make_exporter
from tests.exporter.test_startrails import FakeFrame

LAYOUT = geometry("yuv420p", 64, 48)
S = 10**9


def test_a_run_folder_that_refuses_is_told_once_and_the_picture_comes_when_it_does_not(tmp_path, caplog):
    """With a full run folder the exporter ended at each start, and saved nothing any more."""
    caplog.set_level(logging.INFO)
    exporter = make_exporter(tmp_path, f'[ring]\nprefix = "exp{os.getpid()}{secrets.token_hex(3)}"\n')
    long = LongExposure("cam0", exporter.settings, seconds=5.0)
    exporter.followers["cam0"] = SimpleNamespace(trouble="", frames=0, startrails_state="", long_exposure=long)
    beats = []
    exporter.control.beat = lambda _state, trouble, **_figures: beats.append(trouble)

    def publish(second):
        long.publish(second * S)
        send_heartbeat(exporter)
        return beats[-1]

    long.add(FakeFrame(np.full(LAYOUT.payload_bytes, 20, np.uint8), LAYOUT, FrameMeta(1, S, S)))
    run = exporter.settings.paths.run
    run.parent.mkdir(exist_ok=True)
    run.touch()
    assert publish(100).startswith("cam0: no long exposure is shown: ")
    assert publish(101) == publish(120) == beats[0], "it is tried again, and not at once"
    run.unlink()
    assert publish(121) == beats[0] and publish(140) == ""
    with RingReader.open(exporter.settings.ring_name("cam0", "long")) as ring:
        width = ring.copy(ring.latest()).geometry.width
    long.close()
    assert width == 64
    told = [record.getMessage() for record in caplog.records if "long exposure" in record.getMessage()]
    assert len(told) == 2 and told[0].startswith("long exposure not shown camera=cam0 reason=")
    assert told[1] == "long exposure shown again camera=cam0"
