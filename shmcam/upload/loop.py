"""Takes over settings and sends heartbeats, while a thread uploads."""

from __future__ import annotations

import logging

from shmcam.config.settings import apply_change
from shmcam.control.client import ControlClient
from shmcam.control.messages import SettingChanged
from shmcam.runtime.stop import Stop
from shmcam.upload.uploader import Uploader

log = logging.getLogger(__name__)

WAIT_S = 0.5
"""The longest wait for a message."""


def run(uploader: Uploader, control: ControlClient, stop: Stop) -> None:
    """Runs until stop is requested."""
    while not stop.requested:
        control.wait(WAIT_S)
        for request in control.receive():
            if isinstance(change := request.message, SettingChanged):
                uploader.settings = apply_change(uploader.settings, change.key, change.new, change.camera)
        send_heartbeat(uploader, control)
    log.info("stopped uploaded=%d failed=%d", uploader.state.uploaded, uploader.state.failed)


def send_heartbeat(uploader: Uploader, control: ControlClient) -> None:
    """Sends the heartbeat with trouble and progress."""
    state, stats = uploader.state, uploader.state.stats
    control.beat(
        state.state,
        state.trouble or uploader.failing or ("the store takes nothing" if stats.is_quiet else ""),
        waiting=state.waiting,
        waiting_bytes=state.waiting_bytes,
        uploaded=state.uploaded,
        uploaded_bytes=state.uploaded_bytes,
        failed=state.failed,
        percent=stats.percent,
        bytes_s=round(stats.bytes_s),
        file=stats.file,
    )
