"""`python -m exporter.take_dark`: cover the lens, run this, and later stacks lose the sensor's warm and hot pixels.

Takes the median of covered frames from the ring, for the exposure and gain the camera has at that moment (at night, so
that it is the night's exposure: `shmcam night on` first).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.films.build import camera_of
from exporter.hardware_id import read_camera_id
from exporter.stacking import dark_frames
from exporter.stacking.median import median_of
from shm_ring import Frame, LiveRing, RingError
from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.library import Catalogue, LibraryError, retention
from shmcam.runtime.startup import end_with_error, find_config

TIMEOUT_S = 20.0
"""Seconds to wait for the ring."""
TOO_BRIGHT = 64
"""Mean luma; a covered lens gives less at any black level."""
MAX_FRAMES = 129
"""The most frames; with more, the median costs more than it improves."""


def main(argv: Sequence[str] | None = None) -> int:
    """Takes one dark frame; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m exporter.take_dark", description=__doc__)
    parser.add_argument("--config", type=Path, default=find_config(), help="config.toml (default: %(default)s)")
    parser.add_argument("--camera", default="", help="which camera (default: the first)")
    parser.add_argument("--count", type=int, default=32, help="frames (default: %(default)s)")
    options = parser.parse_args(argv)
    if not dark_frames.MIN_FRAMES <= options.count <= MAX_FRAMES:
        parser.error(f"--count {options.count}: must be {dark_frames.MIN_FRAMES}..{MAX_FRAMES}")
    try:
        settings = Settings.load(options.config)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    try:
        camera = camera_of(settings, options.camera)
        frames = _read_covered_frames(settings.ring_name(camera), options.count)
        last = frames[-1]
        dark = dark_frames.measure_dark(median_of([frame.payload for frame in frames]), last.picture)
        facts = dark_frames.facts_of(camera, last.meta, last.picture, read_camera_id(settings.socket_path, camera))
        folder = settings.paths.captures / dark_frames.FOLDER
        with Catalogue.of(settings) as catalogue:
            retention.require_disk(settings.paths, catalogue, folder)
        path = dark_frames.save_dark(dark, folder, facts)
    except (RingError, ValueError, OSError, LibraryError) as error:
        return end_with_error(error)
    print(f"{path} ({len(frames)} frames, {int(dark.hot.sum())} hot pixels)")
    return 0


def _read_covered_frames(ring_name: str, count: int) -> list[Frame]:
    """Returns the next `count` frames, all of one exposure. Raises: ValueError where the lens is open; RingError."""
    frames: list[Frame] = []
    with LiveRing(ring_name) as ring:
        ring.wait_ready(TIMEOUT_S)
        for position in ring.sequences(idle_s=TIMEOUT_S):
            if position is None:
                raise ValueError(f"{ring_name}: no frame within {TIMEOUT_S:.0f} s")
            frame = position[0].copy(position[1])
            if not frame.meta.exposure_us or not frame.meta.analogue_gain:
                raise ValueError(
                    "the camera does not tell its exposure and gain; a dark frame could not be found again"
                )
            if float(frame.luma.mean()) > TOO_BRIGHT:
                raise ValueError(
                    f"mean brightness {frame.luma.mean():.0f}: is the lens covered? (at most {TOO_BRIGHT})"
                )
            if frames and _is_other_exposure(frames[-1], frame):
                frames.clear()
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def _is_other_exposure(before: Frame, now: Frame) -> bool:
    old, new = before.meta, now.meta
    is_other_light = (old.exposure_us, old.analogue_gain) != (new.exposure_us, new.analogue_gain)
    return is_other_light or before.geometry != now.geometry


if __name__ == "__main__":
    sys.exit(main())
