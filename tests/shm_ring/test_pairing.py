"""Frames of two cameras, paired by the time of capture."""

from __future__ import annotations

import threading
import time
from importlib import import_module
from itertools import islice

from shm_ring import FrameMeta, Pair, RingReader, RingWriter, attach, pairs
from tests.shm_ring.frames import meta

pairing = import_module("shm_ring.attach")  # the package has a function of this name


def test_two_cameras_are_paired_by_timestamp_with_the_error(prefix, make_writer, tmp_path):
    with (
        make_writer(slots=16, payload_bytes=64) as left,
        RingWriter.create(
            f"/{prefix}.cam1.main", slots=16, payload_bytes=64, lock_dir=tmp_path, camera="cam1", stream="main"
        ) as right,
        attach("cam0", prefix=prefix) as one,
        attach("cam1", prefix=prefix) as two,
    ):
        ms = 1_000_000
        result: list[Pair] = []
        found = pairs(one, two, tolerance_s=0.004)
        reading = threading.Thread(target=lambda: result.extend(islice(found, 4)))
        reading.start()
        number, deadline_s = 0, time.monotonic() + 30
        while reading.is_alive() and time.monotonic() < deadline_s:
            # 10 ms apart; the second camera 3 ms late, and every third frame is missing there
            left.publish(bytes(9), FrameMeta(number, number * 10 * ms, 0))
            if number % 3:
                right.publish(bytes(9), FrameMeta(100 + number, number * 10 * ms + 3 * ms, 0))
            number += 1
            time.sleep(0.02)
        reading.join(20)
    ids = [pair.first.frame_id for pair in result]
    assert ids == sorted(set(ids)) and len(ids) == 4 and all(number % 3 for number in ids)
    assert [(pair.second.frame_id, pair.error_ns) for pair in result] == [(100 + number, 3 * ms) for number in ids]


def test_a_partner_that_comes_some_frames_late_is_waited_for(prefix, make_writer, monkeypatch):
    """A second camera whose frames arrive later: its next frame is not yet the one that belongs to ours."""
    monkeypatch.setattr(pairing, "PARTNER_WAIT_S", 20.0)
    with make_writer(slots=16) as writer, attach("cam0", prefix=prefix) as ring:

        def late() -> None:
            for number in range(6, 11):
                time.sleep(0.02)
                writer.publish(b"", meta(number))

        thread = threading.Thread(target=late)
        thread.start()
        partner = pairing._find_partner(ring, 99_000_000)
        thread.join()
        assert partner is not None and partner.frame_id == 10


def test_the_nearest_frame_is_found_on_either_side(make_writer, ring_name):
    with make_writer(slots=8) as writer, RingReader.open(ring_name) as reader:
        assert pairing.find_nearest(reader, 5) is None
        for number in range(12):
            writer.publish(b"", meta(number))
        for asked, got in ((0, 5), (64_000_000, 6), (66_000_000, 7), (10**12, 11)):
            assert pairing.find_nearest(reader, asked) == got
