"""Rings with names of their own, and the check that every test leaves /dev/shm as it found it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shm_ring import RingWriter, segment
from shm_ring.formats import geometry

SHM = Path("/dev/shm")


@pytest.fixture
def prefix() -> Iterator[str]:
    """A prefix no other test uses; what bears it is removed, and is a failure when the test did not expect it."""
    name = f"t{uuid.uuid4().hex[:10]}"
    yield name
    left = [path.name for path in SHM.glob(f"{name}*")]
    for segment_left in left:
        segment.unlink(f"/{segment_left}")
    assert not left, f"left in /dev/shm: {left}"


@pytest.fixture
def ring_name(prefix: str) -> Iterator[str]:
    name = f"/{prefix}.cam0.main"
    yield name
    segment.unlink(name)  # tests that kill writers leave it behind on purpose


@pytest.fixture
def make_writer(ring_name: str, tmp_path: Path) -> Iterator[Callable[..., RingWriter]]:
    made: list[RingWriter] = []

    def make(**options) -> RingWriter:
        options = {"slots": 8, "payload_bytes": geometry("yuv420p", 64, 48).payload_bytes, **options}
        writer = RingWriter.create(ring_name, lock_dir=tmp_path / "run", camera="cam0", stream="main", **options)
        made.append(writer)
        return writer

    yield make
    for writer in made:
        writer.close()
