"""A rig per test, cleaned up whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recorder.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**recorder: Any) -> Rig:
        folder = tmp_path / f"r{len(made)}"
        folder.mkdir()
        made.append(Rig(folder, **recorder))
        return made[-1]

    yield make
    for one in made:
        one.close()
