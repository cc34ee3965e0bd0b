"""Our own state on disk after a power cut: empty, torn, flipped bits. Nobody falls over it twice."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from exporter.continuous.startrails import FOLDER, StarTrails
from exporter.stacking import dark_frames
from shm_ring import Flags, FrameMeta
from shm_ring.formats import geometry

DAMAGES = {
    "empty": lambda _whole: b"",
    "torn": lambda whole: whole[: len(whole) // 2],
    "flipped": lambda whole: whole[:60] + bytes(byte ^ 0x55 for byte in whole[60:400]) + whole[400:],
    "text": lambda _whole: b"not one of ours",
}


class NightFrame:
    """A frame as Trails sees it, without a ring."""

    geometry = picture = geometry("yuv420p", 64, 48)
    payload = np.full(geometry.payload_bytes, 20, np.uint8)
    meta = FrameMeta(1, 10**9, 10**18, flags=int(Flags.NIGHT))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_night_is_set_aside_and_the_next_one_begins(damage, tmp_path):
    trails = StarTrails("cam0", lambda: tmp_path)
    trails.add(NightFrame())
    trails.save_state(10**12, 1)
    state = tmp_path / FOLDER / "cam0.npz"
    again = StarTrails("cam0", lambda: tmp_path)
    again.load_state()
    assert again.night is not None and again.night.trails.count == 1
    damaged = DAMAGES[damage](state.read_bytes())
    state.write_bytes(damaged)
    again = StarTrails("cam0", lambda: tmp_path)
    again.load_state()
    assert again.night is None and not state.exists()
    assert state.with_name("cam0.npz.damaged").read_bytes() == damaged
    again.add(NightFrame())
    again.save_state(10**12, 1)
    assert state.exists()


def packed(**changes):
    """A dark frame of another make: whole, and not what its place needs."""

    def change(whole: bytes) -> bytes:
        with np.load(io.BytesIO(whole)) as stored:
            arrays = dict(stored)
        facts = json.loads(str(arrays["facts"])) | changes.pop("facts", {})
        buffer = io.BytesIO()
        np.savez(buffer, **{**arrays, **changes, "facts": np.array(json.dumps(facts))})
        return buffer.getvalue()

    return change


ODD = {
    "no exposure": packed(facts={"exposure_us": None}),
    "gain in words": packed(facts={"gain": "six"}),
    "another field": packed(facts={"geometry": ["yuv420p", 64]}),
    "floats": packed(level=np.zeros(NightFrame.payload.size)),
    "numbers for hot": packed(hot=np.ones(NightFrame.payload.size, np.uint8)),
    "few hot": packed(hot=np.zeros(7, np.bool_)),
}


@pytest.mark.parametrize("damage", [*DAMAGES, *ODD])
def test_a_damaged_dark_frame_is_set_aside_and_the_next_one_that_fits_is_taken(damage, tmp_path: Path):
    size, shape = NightFrame.payload.size, NightFrame.geometry
    dark = dark_frames.DarkFrame(np.arange(size).astype(np.uint16), np.zeros(size, np.bool_))
    paths = []
    for exposure_us in (1_000_000, 1_010_000):
        meta = FrameMeta(1, 0, 0, exposure_us=exposure_us, analogue_gain=2.0)
        paths.append(dark_frames.save_dark(dark, tmp_path, dark_frames.facts_of("cam0", meta, shape, "")))
    first, _ = paths
    first.write_bytes({**DAMAGES, **ODD}[damage](first.read_bytes()))
    wanted = dark_frames.facts_of("cam0", FrameMeta(1, 0, 0, exposure_us=1_000_000, analogue_gain=2.0), shape, "")
    found = dark_frames.choose_dark(tmp_path, wanted, size, 0)
    assert found.dark is not None and "1010000us" in found.words
    assert first.with_name(first.name + ".damaged").exists() and not first.exists()
