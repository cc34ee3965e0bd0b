"""The text burnt into pictures: its colour, and whether there is a box behind it."""

import numpy as np
import pytest
from msgspec.structs import asdict, replace

from recorder.settings import OverlaySettings
from shm_ring import FrameMeta
from shmcam.imaging.text_overlay import overlay_of

META = FrameMeta(frame_id=8, captured_ns=1, captured_utc_ns=1)
PLAIN = OverlaySettings(background=False, show_time=False, show_fps=False, font_scale_base=8.0)


def drawn(gray: int, settings: OverlaySettings) -> np.ndarray:
    luma = np.full((480, 640), gray, np.uint8)
    overlay_of(asdict(settings)).draw(luma, META)
    return luma


@pytest.mark.parametrize(
    ("color", "luma"),
    [
        ((255, 255, 255), 255),
        ((0, 0, 0), 0),
        ((200, 200, 200), 200),
        ((255, 0, 0), 76),
        ((0, 255, 0), 150),
        ((0, 0, 255), 29),
    ],
)
def test_the_letters_have_the_brightness_of_text_color(color, luma):
    for gray in (60, 180):
        seen = drawn(gray, replace(PLAIN, text_color=color))
        low, high = min(gray, luma), max(gray, luma)
        assert seen.min() >= low and seen.max() <= high, "letters and blends between them and the picture"
        assert np.count_nonzero(abs(seen.astype(int) - luma) <= 1) > 500, "the inside of the strokes"
        assert np.count_nonzero(seen == gray) > seen.size / 2


def test_the_box_behind_the_text_darkens_the_picture_and_is_left_out_on_request():
    with_box = drawn(180, replace(PLAIN, background=True))
    assert np.count_nonzero(with_box < 170) > 1000
    assert drawn(180, PLAIN).min() == 180
