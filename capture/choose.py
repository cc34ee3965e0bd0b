"""Which source the settings mean, made but not opened, with the reason. Heavy sources are imported when chosen."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from capture.makers import MAKERS
from capture.settings import CameraSettings
from capture.source import FrameSource


class Choice(NamedTuple):
    """A source, made but not opened."""

    source: FrameSource
    kind: str
    """camera.source that it is, never `auto`."""
    reason: str


AUTO_ORDER = ("picamera2", "v4l2")
"""Real cameras, in the order in which `auto` tries them; synthetic comes when none answers."""


def pick(source: str, answers: dict[str, str]) -> tuple[str, str]:
    """Decide the kind of source. Pure.

    `answers`: for each real kind, why it cannot be used; empty: it can.
    Returns: kind and reason.
    """
    if source != "auto":
        return source, f"camera.source = {source}"
    for kind in AUTO_ORDER:
        if not answers[kind]:
            passed = "; ".join(f"{k}: {answers[k]}" for k in AUTO_ORDER if answers[k])
            return kind, f"auto: {kind} answers" + (f" ({passed})" if passed else "")
    return "synthetic", "auto: " + "; ".join(f"{kind}: {answers[kind]}" for kind in AUTO_ORDER)


class Chooser:
    """Makes sources.

    Once `auto` has found a real camera it stays with it: an unplugged one must not become a picture that looks alive.
    """

    def __init__(self, position: int, folder: Path) -> None:
        self._position, self._folder = position, folder
        self._settled = ""

    def __call__(self, camera: CameraSettings) -> Choice:
        """Make the source of `camera`. Raises: CameraError where it cannot even be made."""
        index = camera.index if camera.index >= 0 else self._position
        if camera.source == "auto" and self._settled:
            kind, reason = self._settled, "auto: chosen before"
        else:
            answers = _answers(index) if camera.source == "auto" else {}
            kind, reason = pick(camera.source, answers)
            self._settled = kind if camera.source == "auto" and kind in AUTO_ORDER else ""
        return Choice(MAKERS[kind](camera, index, self._folder), kind, reason)


def _answers(index: int) -> dict[str, str]:
    from capture import detect

    return {"picamera2": detect.why_no_picamera2(index), "v4l2": detect.why_no_v4l2(index)}
