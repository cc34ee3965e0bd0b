"""Independent eyes: read our pictures, streams and clips back with other people's programs, down to the pixels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from shmcam.imaging import frame_number_code


def number_in(path: Path) -> int | None:
    """The frame number drawn into the pixels of a saved picture, read by OpenCV or numpy."""
    picture = np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None, f"{path} does not open"
    return number_in_pixels(picture)


def number_in_pixels(picture: np.ndarray) -> int | None:
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    luma = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return frame_number_code.read(luma)


def number_in_jpeg(jpeg: bytes) -> int | None:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, "not a JPEG"
    return number_in_pixels(picture)


def numbers_in_clip(path: Path) -> list[int | None]:
    """The frame number in each decoded frame of a clip; a cut-off tail ends the list instead of failing."""
    numbers: list[int | None] = []
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        try:
            for packet in clip.demux(stream):
                numbers += [frame_number_code.read(frame.to_ndarray(format="gray")) for frame in packet.decode()]
        except av.error.InvalidDataError:
            numbers += [
                frame_number_code.read(frame.to_ndarray(format="gray")) for frame in stream.codec_context.decode(None)
            ]
    return numbers


def ffprobe(path: Path) -> dict[str, Any]:
    """What ffprobe says of a file: format and streams, frames counted by decoding."""
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_format", "-show_streams", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"ffprobe refuses {path}: {done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stream_parts(url: str, seconds: float = 20) -> Iterator[tuple[dict[str, str], bytes]]:
    """The parts of a multipart MJPEG stream: headers (names lower case) and JPEG, by plain reading of the bytes."""
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        boundary = re.search(r"boundary=\"?([^\";]+)", answer.headers["Content-Type"])
        assert boundary, answer.headers["Content-Type"]
        mark = b"--" + boundary[1].lstrip("-").encode()
        while line := answer.readline():
            if not line.strip().endswith(mark.lstrip(b"-")):
                continue
            headers: dict[str, str] = {}
            while header := answer.readline().strip():
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            yield headers, answer.read(int(headers["content-length"]))
