"""What the running service is set up for before anything goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline import Pipeline


@pytest.fixture(scope="module")
def shmcam():
    with Pipeline(camera={"width": 320, "height": 240}, night={"enable": False}) as pipeline:
        pipeline.wait_running()
        yield pipeline


def test_the_kernel_takes_readers_before_capture_and_hub(shmcam):
    """Where memory runs out, the process with the highest score goes: its loss has to cost no frame."""
    scores = {name: int(Path(f"/proc/{shmcam.pid(name)}/oom_score_adj").read_text()) for name in shmcam.states()}
    assert min(scores["streamer"], scores["analyzer"]) > max(scores["capture"], scores["hub"]), scores
    assert scores["recorder"] < scores["streamer"], scores


def test_nobody_else_can_talk_to_supervisord(shmcam):
    assert (shmcam.run / "supervisor.sock").stat().st_mode & 0o777 == 0o700
    text = (shmcam.run / "supervisord.conf").read_text()
    assert "[inet_http_server]" not in text
