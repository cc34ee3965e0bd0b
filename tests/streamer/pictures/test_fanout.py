"""The places of viewers and variants are given back, each once."""

import pytest

from streamer.pictures.fanout import Fanout, TooManyViewers, ViewerSlots
from streamer.pictures.variant import Variant


def variant(width: int = 0) -> Variant:
    return Variant(fps=10.0, width=width, quality=80, gray=False, stack=1)


class Viewer:
    def offer(self, picture) -> None: ...


def test_the_place_of_a_variant_is_free_again_once_its_last_viewer_has_gone():
    small, large = variant(160), variant(320)
    slots = ViewerSlots(3, 1)
    fanout = Fanout("cam0", slots, lambda: 0)
    first, second = Viewer(), Viewer()
    fanout.join(small, first)
    fanout.join(small, second)
    fanout.leave(small, first)
    with pytest.raises(TooManyViewers, match=r"1 different variants are watched already \(mjpeg_server.max_variants\)"):
        fanout.join(large, first)
    fanout.leave(small, second)
    fanout.join(large, first)
    assert (slots.streams, slots.variants, fanout.variants) == (1, 1, (large,))


def test_the_place_of_a_viewer_is_free_again_once_it_has_gone():
    fanout, viewers = Fanout("cam0", ViewerSlots(1, 5), lambda: 0), (Viewer(), Viewer())
    fanout.join(variant(), viewers[0])
    with pytest.raises(TooManyViewers, match=r"all 1 places are taken \(mjpeg_server.max_streams\)"):
        fanout.join(variant(), viewers[1])
    fanout.leave(variant(), viewers[0])
    fanout.join(variant(), viewers[1])
    assert fanout.viewers == 1
