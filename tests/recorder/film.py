"""A short film, encoded once, and clips written from it through any file object."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from recorder.clips.clip import ClipFormat, ClipOrder, ClipPaths, Track
from recorder.clips.clip_file import ClipFile, FileOpener
from recorder.encoding.av_frames import Wrapper
from recorder.encoding.encoder import TIME_BASE, AccessUnit
from recorder.encoding.select import open_encoder
from recorder.settings import RecorderSettings
from shm_ring import FrameMeta
from shm_ring.formats import geometry
from shm_ring.records.packets import parameter_sets
from shmcam.imaging import frame_number_code
from shmcam.video.disk_file import DiskFile

WIDTH, HEIGHT = 320, 96
PERIOD_US = 33_333
ORDER = ClipOrder(1, "session", "manual", 0, 1_700_000_000_000_000_000)
FORMAT = ClipFormat("mp4", 0.5, csv=True, plain=True)


@cache
def encoded(count: int = 100) -> tuple[tuple[bytes, bool, FrameMeta], ...]:
    """Access units of frames 1000, 1001 … with noise, so that they weigh something."""
    shape = geometry("yuv420p", WIDTH, HEIGHT)
    wrapper = Wrapper(shape)
    encoder = open_encoder(RecorderSettings(encoder="libx264", threads=1, crf=30), wrapper.encoder_input, 30.0)
    rng = np.random.default_rng(3)
    units = []
    for number in range(count):
        payload = np.full(shape.payload_bytes, 128, np.uint8)
        luma = payload[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH)
        luma[:] = rng.integers(80, 120, luma.shape, np.uint8)
        frame_number_code.draw(luma, 1000 + number)
        meta = FrameMeta(
            1000 + number,
            5_000_000_000 + number * PERIOD_US * 1000,
            1_700_000_000_000_000_000 + number * PERIOD_US * 1000,
            frame_duration_us=PERIOD_US,
        )
        for unit in encoder.encode(wrapper.wrap(payload), meta=meta, order=ORDER, key=number % 30 == 0):
            units.append((bytes(unit.packet), unit.is_key, unit.meta))
    return tuple(units)


def units(count: int = 100) -> list[AccessUnit]:
    """Fresh packets of the film."""
    made = []
    for data, key, meta in encoded(count):
        packet = av.Packet(data)
        packet.pts = packet.dts = meta.captured_ns // 1000
        packet.time_base, packet.is_keyframe = TIME_BASE, key
        made.append(AccessUnit(packet, meta, ORDER, key))
    return made


def at_once(patch: pytest.MonkeyPatch) -> None:
    """Clips are written as a backlog is, in no time: only the number of fragments says when one is synced."""
    patch.setattr("recorder.clips.clip_file.time", SimpleNamespace(monotonic=lambda: 0.0, time=time.time))


def track() -> Track:
    return Track(WIDTH, HEIGHT, 30.0, parameter_sets(encoded()[0][0]))


def about() -> dict[str, object]:
    return {"camera": "cam0", "kind": "session", "first_frame": 1000, "captured_ns": 5_000_000_000}


def clip_file(folder: Path, opener: FileOpener = DiskFile, form: ClipFormat = FORMAT) -> ClipFile:
    suffix = {"mp4": "mp4", "mkv": "mkv", "h264": "h264"}[form.container]
    return ClipFile(
        ClipPaths(folder / f"cam0_{WIDTH}x{HEIGHT}_30fps_20260101_000000.{suffix}"), form, track(), about(), opener
    )


def killed(clip: ClipFile) -> None:
    """Leave the files as a process does that is killed: closed, and nobody's."""
    for file in (clip._file, clip._csv):
        if file is not None:
            os.close(file._descriptor)
            file._descriptor, file.broken = -1, OSError("killed")
