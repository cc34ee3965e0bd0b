"""From the ring to the writer: what is missing at the beginning is said, torn frames vanish, ended rings are let go."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from recorder.clips.clip import ClipFormat, ClipLimits
from recorder.clips.storage import Storage
from recorder.clips.writer import BUNDLE, MAX_FRAMES, ClipWriter, End, QueuedUnit, WriteQueue
from recorder.commands import RecordCommands
from recorder.encoding import select
from recorder.encoding.encoder import Encoder
from recorder.encoding.session import EncoderSession
from recorder.frame_pipeline import FramePipeline
from recorder.live_packets import LivePackets
from recorder.loop import RecorderLoop
from recorder.settings import RecorderSettings
from recorder.status import Heartbeats
from recorder.triggers import Triggers
from shm_ring import LiveRing, RingCursor
from shmcam.config.settings import Settings
from shmcam.control.client import Delegation
from shmcam.control.messages import Record
from shmcam.library import Catalogue
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop
from shmcam.video.disk_file import DiskFile
from tests.machine import until
from tests.recorder.encoding.test_encoding import ORDER, Stand, metas, picture
from tests.recorder.film import track, units
from tests.recorder.rig import PERIOD_NS, check_clip


@pytest.fixture
def running(rig):
    """A hub, a recorder, and a camera that films until the test is over."""

    def make(slots=64, **recorder):
        made = rig(**recorder)
        made.start_hub()
        film = made.camera(slots=slots)
        made.start()
        made.ready()
        made.answers()
        film.begin_filming()
        return made, film

    return make


@pytest.mark.parametrize("frames", [80, 20], ids=["a ring that went round", "a young ring"])
def test_what_is_missing_at_the_beginning_is_stated_to_the_frame(running, frames):
    """The difference between the moment asked for and the file's first frame; nothing else is missing."""
    made, film = running(pre_roll_s=30.0, post_roll_s=0.3)
    film.wait_frames(frames)
    film.held = True  # a camera that goes on overwrites what a busy machine has not read yet
    oldest = max(0, film.next_id - film.slots)
    asked_ns = now_ns()
    reply = made.ask("record trigger")
    answered_ns = now_ns()
    stated_s = float(re.search(r"asked for frames from ([\d.]+) s earlier", reply.text)[1])
    until(lambda: made.ask("record status").status == "idle", 10)
    (clip,) = made.clips()
    ids = check_clip(clip, film)
    assert ids == list(range(ids[0], ids[0] + len(ids))) and ids[0] <= oldest + 2
    first_ns = {meta.frame_id: meta.captured_ns for meta in film.published}[ids[0]]
    gap_s = (first_ns - asked_ns) / 1e9 + 30
    assert gap_s - (answered_ns - asked_ns) / 1e9 - 0.001 <= stated_s <= gap_s + 0.001, (gap_s, reply.text)
    assert f"pre-roll is short by_s={stated_s:.3f}" in made.log()


def test_a_pause_of_the_camera_before_the_recording_is_no_short_pre_roll(running):
    """The reply said that the ring held no earlier frames, though it held the one before the pause."""
    made, film = running(pre_roll_s=0.3, post_roll_s=0.3)
    film.wait_frames(20)
    film.held = True
    time.sleep(0.8)  # the pause
    film.held = False
    film.wait_frames(1)
    reply = made.ask("record trigger")
    assert reply.ok and "earlier than the ring holds" not in reply.text, reply.text


def maps_of(process, prefix):
    """Distinct segments of the camera's pictures that a process has mapped: (inode, path)."""
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return {(line.split()[4], line.split(maxsplit=5)[5]) for line in lines if f"/{prefix}.cam0.main" in line}


def test_an_idle_recorder_maps_the_live_ring_only(rig):
    """Three other picture sizes, each looked at for a moment and then by nobody; in the end no camera at all."""
    made = rig()
    made.start_hub()
    process = made.start()
    made.ready()
    made.answers()
    for width in (640, 320, 480, 800):
        camera = made.camera(size=(width, 360))
        assert made.ask("watch seconds=1").ok
        camera.run(0.3)
        path = f"/dev/shm/{made.prefix}.cam0.main"
        live = (str(Path(path).stat().st_ino), path)
        until(lambda live=live: maps_of(process, made.prefix) == {live}, 5, "only the live ring")
        made.cameras.remove(camera)
        camera.close()
    until(lambda: not maps_of(process, made.prefix), 5, "no ring")
    assert made.log().count("picture is now") == 4


class Hub:
    """Asks for the status, again and again, and keeps the answers."""

    def __init__(self):
        self.statuses = []

    def receive(self):
        yield FakeRequest(Record(action="status"), self.statuses)

    def delegate(self, handle):
        return Delegation(handle, lambda: False)

    def announce(self, _event):
        return

    def beat(self, **_figures):
        return

    def wait(self, seconds):
        time.sleep(seconds)  # as the real one, which no message comes to


@dataclass
class FakeRequest:
    message: Record
    answers: list

    def reply(self, answer):
        self.answers.append(answer.status)


def test_a_disk_that_hangs_keeps_nobody_waiting_for_an_answer(rig, monkeypatch):
    """The writer hangs in its first write, as a card does in its garbage collection, until no more frames fit."""
    monkeypatch.setattr("recorder.clips.writer.MAX_FRAMES", 4)
    made, go_on, own = rig(), threading.Event(), RecorderSettings(encoder="libx264", threads=1, on_close="plain")

    class Hanging(DiskFile):
        def _write_some(self, descriptor, data, offset):
            assert go_on.wait(60)
            return super()._write_some(descriptor, data, offset)

    film, triggers, hub, stop = made.camera(slots=64), Triggers(ClipLimits.of(own)), Hub(), Stop()
    settings = Settings.load(made.folder / "config.toml", environ={})
    with Catalogue.of(settings) as catalogue, LiveRing(film.writer.name) as ring:
        writer = ClipWriter("cam0", ClipFormat.of(own), Storage(settings, own, catalogue), stop, Hanging)
        live = LivePackets(settings.ring_name("cam0", "h264"), settings.paths.run, "cam0", own)
        cursor, encoder = RingCursor(ring), EncoderSession(own)
        beats = Heartbeats(control=hub, cursor=cursor, encoder=encoder, live=live, triggers=triggers, writer=writer)
        commands = RecordCommands("cam0", own, triggers, writer, live)
        loop = RecorderLoop(hub, commands, writer, beats, stop)
        pipeline = FramePipeline(
            cursor=cursor,
            encoder=encoder,
            live=live,
            triggers=triggers,
            writer=writer,
            heartbeats=beats,
            commands=commands,
            serve=loop.serve,
        )
        thread = threading.Thread(target=lambda: [None for _ in loop.run(pipeline)], daemon=True)
        triggers.start(now_ns(), "session", "manual", utc_ns=time.time_ns())
        writer.start()
        thread.start()
        until(lambda: len(hub.statuses) > 1, 10)
        for _ in range(20):
            film.publish()
        until(lambda: writer.queue_length >= 4, 10)
        asked = len(hub.statuses)
        until(lambda: len(hub.statuses) > asked + 10, 10, "answers while the disk hangs")
        go_on.set()
        made.written(20)
        stop.request()
        thread.join(10)
        assert writer.close("done", 10)
    (clip,) = made.clips()
    assert check_clip(clip, film) == list(range(20))


def item(unit):
    return QueuedUnit(unit, track())


def test_frames_of_a_backlog_wake_the_writer_in_bundles_and_the_last_of_them_at_once():
    write_queue, taken = WriteQueue(), []
    thread = threading.Thread(target=lambda: taken.extend(write_queue.take_items()), daemon=True)
    thread.start()
    film = units(BUNDLE + 5)
    for unit in film[:3]:
        assert write_queue.put(item(unit), more=True)
    assert write_queue.length == 3 and not taken
    write_queue.put(item(film[3]), more=False)
    until(lambda: len(taken) == 4, 5)
    for unit in film[4:]:
        write_queue.put(item(unit), more=True)
    until(lambda: len(taken) == 4 + BUNDLE, 5)
    write_queue.put(End("over"), more=True)
    until(lambda: write_queue.length == 0, 5)
    write_queue.close("done")
    thread.join(5)
    assert [one.unit.meta.frame_id for one in taken[:-2]] == [unit.meta.frame_id for unit in film]
    assert [one.reason for one in taken[-2:]] == ["over", "done"]


def test_a_full_queue_takes_nothing_more_but_wakes_the_writer():
    write_queue, unit = WriteQueue(), units(1)[0]
    for _ in range(MAX_FRAMES):
        assert write_queue.put(item(unit), more=True)
    assert not write_queue.put(item(unit), more=True)
    assert write_queue.length == MAX_FRAMES
    for _, _ in zip(range(MAX_FRAMES), write_queue.take_items(), strict=False):
        pass
    assert write_queue.put(item(unit), more=False)


def test_a_frame_torn_inside_an_encoder_that_lags_is_never_seen(monkeypatch):
    """Hardware gives a frame back later: what was overwritten while it went in must not come out then."""

    class Late:
        """An encoder that gives each packet back with the next frame."""

        def __init__(self, context):
            self.context, self.held = context, []

        def encode(self, frame):
            given, self.held = self.held, self.context.encode(frame)
            return given if frame is not None else given + self.held

    class Lagging(Encoder):
        def __init__(self, plan):
            super().__init__(plan)
            self._context = Late(self._context)

    soft = RecorderSettings(encoder="libx264", threads=1)
    monkeypatch.setattr(
        "recorder.encoding.session.open_encoder",
        lambda settings, wanted, fps, **more: select.open_encoder(settings, wanted, fps, opener=Lagging, **more),
    )
    shape, payload = picture("yuv420p", 320, 240)
    encoding, shown = EncoderSession(soft), []
    for meta in metas(8):
        out = encoding.encode(Stand(shape, payload), meta, ORDER)
        shown += encoding.drop_torn(meta, out) if meta.frame_id == 4 else out
    shown += encoding.drain()
    assert [unit.meta.frame_id for unit in shown] == [0, 1, 2, 3, 5, 6, 7]
    assert [unit.meta.frame_id for unit in shown if unit.is_key] == [0, 5]
    assert np.all(np.diff([unit.packet.pts for unit in shown]) >= PERIOD_NS // 1000)
