"""docs/config.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from shmcam.config.reference_page import render_page


def test_the_page_of_all_keys_is_current():
    shipped = Path(__file__).resolve().parents[3] / "docs" / "config.md"
    assert shipped.read_text() == render_page(), "run: python -m shmcam.config.reference_page > docs/config.md"
