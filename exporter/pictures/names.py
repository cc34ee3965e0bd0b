"""Makes file names from time, frame number and a checked label; never takes them from the network.

20261121_081500_f4711.jpg                       one frame
cam1_fox_20261121_081500_f4711.jpg              of several cameras, with a label
20261121_081500_f4711_stack16.png               16 frames, the last of which is 4711
snapshot_cam0_20261121_081500.jpg               all cameras at one instant
timelapse_cam0_20261121_081500.mp4
"""

from __future__ import annotations

import re

from shmcam.config.settings import LABEL
from shmcam.runtime.clock import to_stamp


def check_label(label: str) -> str:
    """Returns the label, fit for a file name, or empty. Raises: ValueError (the caller's fault)."""
    if label and not re.fullmatch(LABEL, label):
        raise ValueError(f"label {label[:40]!r}: 1..32 of A-Z a-z 0-9 _ -, the first a letter or digit")
    return label


def name_picture(camera: str, label: str, utc_ns: int, frame_id: int, kind: str) -> str:
    """Returns the name of one frame; `camera` is empty where there is only one."""
    return f"{_join_stem(camera, label, utc_ns, frame_id)}.{kind}"


def name_stack(camera: str, label: str, utc_ns: int, frame_id: int, *, count: int, kind: str) -> str:
    """Returns the name of a stack of `count` frames that ends with `frame_id`."""
    return f"{_join_stem(camera, label, utc_ns, frame_id)}_stack{count}.{kind}"


def name_snapshot(camera: str, label: str, utc_ns: int, kind: str) -> str:
    """Returns the name of one camera's part of a synchronised snapshot."""
    return f"{'_'.join(part for part in ('snapshot', camera, check_label(label), to_stamp(utc_ns)) if part)}.{kind}"


def name_film(what: str, camera: str, label: str, utc_ns: int, kind: str) -> str:
    """Returns the name of a timelapse or startrails file; `what` is its first word."""
    return f"{'_'.join(part for part in (what, camera, check_label(label), to_stamp(utc_ns)) if part)}.{kind}"


def is_film_of(name: str, what: str, camera: str) -> bool:
    """Tells whether an unlabelled film of this camera bears the name; a label hides which camera it is."""
    return re.fullmatch(rf"{what}_{re.escape(camera)}_\d{{8}}_\d{{6}}(_\d+)?\.\w+", name) is not None


def film_camera_of(name: str, what: str) -> str:
    """Returns the camera in the name of a film without a label, finished or not; empty for any other name."""
    match = re.fullmatch(rf"{what}_(.+)_\d{{8}}_\d{{6}}(_\d+)?\.\w+(\.\w+)?", name)
    return match[1] if match else ""


def _join_stem(camera: str, label: str, utc_ns: int, frame_id: int) -> str:
    return "_".join(part for part in (camera, check_label(label), to_stamp(utc_ns), f"f{frame_id}") if part)
