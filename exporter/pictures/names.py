"""File names. Made by us from time, frame number and a checked label; never taken from the network.

20261121_081500_f4711.jpg                       one frame
cam1_fox_20261121_081500_f4711.jpg              of several cameras, with a label
20261121_081500_f4711_stack16.png               16 frames, the last of which is 4711
snapshot_cam0_20261121_081500.jpg               all cameras at one instant
timelapse_cam0_20261121_081500.mp4
"""

from __future__ import annotations

import re

from shmcam.config.settings import LABEL
from shmcam.runtime.clock import stamp


def checked(label: str) -> str:
    """A label fit for a file name, or empty. Raises: ValueError (the caller's fault)."""
    if label and not re.fullmatch(LABEL, label):
        raise ValueError(f"label {label[:40]!r}: 1..32 of A-Z a-z 0-9 _ -")
    return label


def picture(camera: str, label: str, utc_ns: int, frame_id: int, kind: str) -> str:
    """The name of one frame; `camera` is empty where there is only one."""
    return f"{_stem(camera, label, utc_ns, frame_id)}.{kind}"


def stack(camera: str, label: str, utc_ns: int, frame_id: int, *, count: int, kind: str) -> str:
    """The name of a stack of `count` frames that ends with `frame_id`."""
    return f"{_stem(camera, label, utc_ns, frame_id)}_stack{count}.{kind}"


def snapshot(camera: str, label: str, utc_ns: int, kind: str) -> str:
    """The name of one camera's part of a synchronised snapshot."""
    return f"{'_'.join(part for part in ('snapshot', camera, checked(label), stamp(utc_ns)) if part)}.{kind}"


def film(what: str, camera: str, label: str, utc_ns: int, kind: str) -> str:
    """The name of a timelapse or startrails file."""
    return f"{'_'.join(part for part in (what, camera, checked(label), stamp(utc_ns)) if part)}.{kind}"


def is_film_of(name: str, what: str, camera: str) -> bool:
    """Whether a name is that of an unlabelled film of this camera; with a label, cameras cannot be told apart."""
    return re.fullmatch(rf"{what}_{re.escape(camera)}_\d{{8}}_\d{{6}}(_\d+)?\.\w+", name) is not None


def _stem(camera: str, label: str, utc_ns: int, frame_id: int) -> str:
    return "_".join(part for part in (camera, checked(label), stamp(utc_ns), f"f{frame_id}") if part)
