"""The end of a night where the disk refuses: one picture of each night, no frame left out, nothing saved twice."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import numpy as np
import pytest

from exporter.continuous import follower as module
from exporter.continuous.follower import CameraFollower
from shm_ring import Flags, FrameMeta
from shm_ring.formats import geometry
from shmcam.config.settings import Settings
from shmcam.library import Catalogue
from shmcam.runtime.stop import Stop
from tests.exporter.test_startrails import FakeFrame, sky_of

LAYOUT, SMALL = geometry("yuv420p", 160, 120), geometry("yuv420p", 128, 96)


class FakeSaver:
    """Takes pictures until its disk is full."""

    room = 99

    def __init__(self):
        self.saved, self.events = [], []

    def announce(self, event):
        self.events.append(event)

    def save_stack(self, _camera, stack, _more, options):
        for picture_format in options.formats or ("jpg", "png"):
            if self.room == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room -= 1
            self.saved.append((options.label, picture_format, stack.count, stack.geometry.width))


@pytest.fixture
def night(tmp_path, monkeypatch):
    """A follower, the frames of which the test gives by hand; `clock.s` is its time."""
    (tmp_path / "config.toml").write_text(
        "[export]\nstartrails = true\nstartrails_film_interval_s = 1\n[library]\nfree_reserve_mb = 0\n"
    )
    settings = Settings.load(tmp_path / "config.toml", environ={})
    clock = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(module, "now_ns", lambda: round(clock.s * 1e9))
    saver = FakeSaver()
    with Catalogue.of(settings) as catalogue:
        camera = SimpleNamespace(name="cam0", release_if_retired=lambda: None)
        one = CameraFollower(camera, lambda: settings, Stop(), saver, catalogue)

        def add(count, *, flags=int(Flags.NIGHT), layout=LAYOUT, step_s=1.0):
            for _ in range(count):
                clock.s += step_s
                meta = FrameMeta(int(clock.s), round(clock.s * 1e9), round(clock.s * 1e9), flags=flags)
                one._add_to_startrails(FakeFrame(np.resize(sky_of(20, LAYOUT), layout.payload_bytes), layout, meta))
                one._try_work(one._write_what_is_due)

        captures = settings.paths.captures
        yield SimpleNamespace(add=add, saver=saver, clock=clock, follower=one, captures=captures, catalogue=catalogue)
        one._finish()


def test_a_disk_that_is_full_at_dawn_gets_each_picture_once(night):
    """Each try saved the first pictures of the night again, until the disk was full of them."""
    night.add(5)
    night.saver.room = 3
    night.add(300, flags=0)
    assert len(night.saver.saved) == 3 and night.follower.trouble
    night.saver.room = 99
    night.add(40, flags=0)
    pictures = [saved[:2] for saved in night.saver.saved]
    assert pictures == [("startrails", "jpg"), ("startrails", "png"), ("night", "jpg"), ("night", "png")]
    assert not night.follower.trouble and not list((night.captures / "_night").iterdir())


def test_frames_of_a_night_are_stacked_while_the_disk_refuses_files(night, monkeypatch):
    """Frames that came during a pause, up to 30 s each, were missing in the trails."""
    night.add(3)
    monkeypatch.setattr(
        type(night.follower.startrails), "save_state", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
    )
    night.add(100, step_s=0.25)
    assert night.follower.trouble == "[Errno 28] full"
    monkeypatch.undo()
    assert night.follower.startrails.night.trails.count == 103


def test_another_size_in_the_middle_of_the_night_divides_it_and_leaves_no_film_of_one_frame(night):
    """The new night's film was closed with the old one's pictures, after its first frame."""
    night.add(60)
    night.saver.room = 1
    night.add(90, layout=SMALL)
    night.saver.room = 99
    night.add(60, layout=SMALL)
    assert (night.captures / "_night" / "cam0.npz").exists(), "the state of the night that goes on"
    night.add(3, layout=SMALL, flags=0)
    assert [saved[1:] for saved in night.saver.saved] == [
        *(("jpg", 60, 160), ("png", 60, 160)) * 2,
        *(("jpg", 150, 128), ("png", 150, 128)) * 2,
    ]
    films = night.catalogue.find(kinds=["startrails"], newest_first=False)
    assert len(films) == 2 and films[0].frames >= 59 and films[1].frames > 40


def test_a_night_that_the_disk_refuses_until_the_next_one_ends_is_told(night):
    for _ in range(2):
        night.add(3)
        night.saver.room = 0
        night.add(60, flags=0)
    assert [event.what for event in night.saver.events] == [
        "startrails of a night are lost, the disk refused them: [Errno 28] No space left on device"
    ]


def test_no_state_is_written_where_the_disk_is_not_mounted(night, monkeypatch):
    monkeypatch.setattr(night.follower, "_add_to_startrails_film", lambda: False)
    monkeypatch.setattr(type(night.catalogue.mounts), "is_away", lambda _self, _folder: True)
    night.add(100)
    assert not (night.captures / "_night").exists() and "not mounted" in night.follower.trouble
