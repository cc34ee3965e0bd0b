"""Makes the names of pictures, videos and sessions from time, frame number and a checked label; knows them again.

20261121_081500_f4711.jpg                            one frame
cam1_fox_20261121_081500_f4711.jpg                   of several cameras, with a label
20261121_081500_f4711_stack16.png                    16 frames, the last of which is 4711
snapshot_cam0_20261121_081500.jpg                    all cameras at one instant
timelapse_cam0_20261121_081500.mp4
cam0_1280x720_30.0fps_20261121_081500_trial7.mp4     a clip, `…_frame_timing.csv` beside it
session_20261121_081500_trial7                       the folder of a recording

Names are made without the suffix; a second file of one name gets `_2`. None is ever taken from the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shmcam.config.settings import LABEL
from shmcam.runtime.clock import to_stamp

TIMING = "_frame_timing.csv"
"""The end of the name of a clip's CSV."""

_STAMP, _NUMBER = r"\d{8}_\d{6}", r"(_\d+)?"
_FORMAT = r"\d+x\d+_[\d.]+fps"


def check_label(label: str) -> str:
    """Returns the label, fit for a file name, or empty. Raises: ValueError (the caller's fault)."""
    if label and not re.fullmatch(LABEL, label):
        raise ValueError(f"label {label[:40]!r}: 1..32 of A-Z a-z 0-9 _ -, the first a letter or digit")
    return label


def name_picture(camera: str, label: str, utc_ns: int, frame_id: int) -> str:
    """Returns the name of one frame; `camera` is empty where there is only one."""
    return _join(camera, check_label(label), to_stamp(utc_ns), f"f{frame_id}")


def name_stack(camera: str, label: str, utc_ns: int, frame_id: int, *, count: int) -> str:
    """Returns the name of a stack of `count` frames that ends with `frame_id`."""
    return _join(camera, check_label(label), to_stamp(utc_ns), f"f{frame_id}", f"stack{count}")


def name_snapshot(camera: str, label: str, utc_ns: int) -> str:
    """Returns the name of one camera's part of a synchronised snapshot."""
    return _join("snapshot", camera, check_label(label), to_stamp(utc_ns))


def name_film(what: str, camera: str, label: str, utc_ns: int) -> str:
    """Returns the name of a timelapse or startrails file; `what` is its first word."""
    return _join(what, camera, check_label(label), to_stamp(utc_ns))


def name_clip(camera: str, label: str, utc_ns: int, *, width: int, height: int, fps: float) -> str:
    """Returns the name of a recording; `fps` stands in it as `30.0`, `7.5`, `29.97`."""
    return _join(camera, f"{width}x{height}", f"{round(fps, 2)}fps", to_stamp(utc_ns), label)


def name_session(prefix: str, label: str, utc_ns: int) -> str:
    """Returns the name of a recording's folder."""
    return _join(prefix, to_stamp(utc_ns), label)


def is_session_name(name: str) -> bool:
    """Tells whether a folder may be a recording's; its prefix is the user's."""
    return re.fullmatch(rf".+_{_STAMP}(_.+)?", name) is not None


def is_film_of(name: str, what: str, camera: str) -> bool:
    """Tells whether an unlabelled film of this camera bears the name; a label hides which camera it is."""
    return re.fullmatch(rf"{what}_{re.escape(camera)}_{_STAMP}{_NUMBER}\.\w+", name) is not None


def film_camera_of(name: str, what: str) -> str:
    """Returns the camera in the name of a film, finished or not, with its label if it has one; empty for others."""
    match = re.fullmatch(rf"{what}_(.+)_{_STAMP}{_NUMBER}\.\w+(\.\w+)?", name)
    return match[1] if match else ""


def is_clip_of(name: str, camera: str) -> bool:
    """Tells whether a file of a clip of this camera bears the name: `front` has no part in `front_door_640x360_…`."""
    return re.match(rf"{re.escape(camera)}_{_FORMAT}_{_STAMP}", name) is not None


def clip_camera_of(name: str) -> str:
    """Returns the camera in the name of a clip; empty for any other name."""
    match = re.match(rf"(.+?)_{_FORMAT}_{_STAMP}", name)
    return match[1] if match else ""


def has_date(name: str) -> bool:
    """Tells whether there is a date in a file name, as in all of ours."""
    return re.search(r"(?<!\d)\d{8}(?!\d)", name) is not None


def is_picture_name(stem: str, description: Mapping[str, Any]) -> bool:
    """Tells whether we name a picture of this description so.

    The time is not compared: it is local, and its zone may be another one now.
    """
    camera, label, frame = (re.escape(str(description.get(key, ""))) for key in ("camera", "label", "last_frame"))
    form = rf"(snapshot_)?({camera}_)?({label}_)?{_STAMP}(_f{frame or '[0-9]+'})?(_stack\d+)?{_NUMBER}"
    return re.fullmatch(form, stem, re.ASCII) is not None


def is_video_name(stem: str, description: Mapping[str, Any]) -> bool:
    """Tells whether we name a video of this description so, a clip or a film; the time is not compared."""
    camera, label = (re.escape(str(description.get(key, ""))) for key in ("camera", "label"))
    form = rf"{camera}_{_FORMAT}_{_STAMP}(_{label})?{_NUMBER}|(timelapse|startrails)_.*{_STAMP}{_NUMBER}"
    return re.fullmatch(form, stem, re.ASCII) is not None


def _join(*parts: str) -> str:
    return "_".join(filter(None, parts))
