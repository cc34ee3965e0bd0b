"""Colours of clips and films, as FFmpeg reads them back."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from shmcam.video.color_tags import tag_colors


@pytest.mark.parametrize(("space", "space_tag"), [("bt709", 1), ("smpte170m", 6)])
@pytest.mark.parametrize(("limits", "range_tag"), [("tv", 1), ("pc", 2)])
def test_a_decoder_is_told_what_the_colours_mean(space, space_tag, limits, range_tag):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tag_colors(stream.codec_context, space, limits)
        frame = av.VideoFrame.from_ndarray(np.full((72, 64), 128, np.uint8), "yuv420p")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    with av.open(file) as container:
        context = container.streams.video[0].codec_context
        next(container.decode(video=0))
        assert context.color_range == range_tag
        assert (context.colorspace, context.color_primaries, context.color_trc) == (space_tag,) * 3
