"""Burns text into a luma plane, the same in recordings and on streams.

Letters are drawn once; a line joins them, and a few array steps blend it in. Chroma is not touched, so a coloured scene
shines through slightly; the dark box behind the text keeps it legible.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from shm_ring import FrameMeta

Plane = NDArray[np.uint8]
Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]

REFERENCE_ROWS = 1080
"""Sizes in settings are for a picture of this height, and scale with it."""
FPS_FRAMES = 30
"""Frames over which the shown rate is measured."""
PRINTABLE = "".join(chr(code) for code in range(32, 127))
"""The letters of OpenCV's stroke fonts; any other is shown as a question mark."""


class Style(Struct, frozen=True):
    """The look of the text."""

    font_scale: float = 1.0
    """OpenCV's font scale at REFERENCE_ROWS rows."""
    thickness: int = 2
    """Stroke width in pixels at REFERENCE_ROWS rows."""
    brightness: int = 255
    """Luma of the letters, 0-255."""
    background: bool = True
    """Darken the picture behind the text."""
    corner: Corner = "top-left"
    margin_x: int = 10
    """Pixels from the picture's side."""
    margin_y: int = 10
    """Pixels from its top or bottom to the first line."""


class Content(Struct, frozen=True):
    """The content of the lines."""

    show_time: bool = True
    show_frame_number: bool = True
    show_fps: bool = True
    text: str = ""
    """One more line."""


class Overlay:
    """Draws on each frame of one camera; called with a plane that is ours, never the ring's."""

    def __init__(self, content: Content, style: Style) -> None:
        self._content, self._style = content, style
        self._renderer: TextRenderer | None = None
        self._height = 0
        self._counted: deque[tuple[int, int]] = deque(maxlen=FPS_FRAMES)
        """Capture time and number of the last frames."""

    def draw(self, luma: Plane, meta: FrameMeta) -> None:
        """Writes onto `luma` (height, width), in place."""
        self.count_frame(meta)
        if self._renderer is None or luma.shape[0] != self._height:
            self._renderer, self._height = TextRenderer(self._style, luma.shape[0]), luma.shape[0]
        self._renderer.draw(luma, self.format_lines(meta))

    def count_frame(self, meta: FrameMeta) -> None:
        """Counts a frame for the rate, drawn or not; a frame that is drawn for several pictures counts once.

        Frames in between count by their numbers; where many are missing the rate is measured anew.
        """
        last_ns, last_id = self._counted[-1] if self._counted else (-1, -1)
        if last_ns == meta.captured_ns:
            return
        if not 0 < meta.frame_id - last_id < FPS_FRAMES:
            self._counted.clear()
        self._counted.append((meta.captured_ns, meta.frame_id))

    def format_lines(self, meta: FrameMeta) -> list[str]:
        """Returns the text line by line; `draw` leaves empty lines out."""
        content, numbers = self._content, []
        if content.show_frame_number:
            numbers.append(f"#{meta.frame_id}")
        if content.show_fps and len(self._counted) > 1:
            (first_ns, first_id), (last_ns, last_id) = self._counted[0], self._counted[-1]
            numbers.append(f"{(last_id - first_id) * 1e9 / (last_ns - first_ns):.1f} fps" if last_ns > first_ns else "")
        time_text = datetime.fromtimestamp(meta.captured_utc_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        return [time_text if content.show_time else "", "  ".join(numbers), content.text]


def overlay_of(keys: Mapping[str, Any]) -> Overlay:
    """Returns an overlay for the keys of [recorder.overlay] in config.toml."""
    content = Content(keys["show_time"], keys["show_frame_number"], keys["show_fps"], keys["text"])
    style = Style(
        font_scale=keys["font_scale_base"],
        thickness=keys["thickness_base"],
        brightness=luma_of(keys["text_color"]),
        background=keys["background"],
        corner=keys["place"],
        margin_x=keys["margin_left"],
        margin_y=keys["line_start_y"],
    )
    return Overlay(content, style)


def luma_of(color: Sequence[int]) -> int:
    """Returns the brightness of a red, green, blue triple (BT.601)."""
    red, green, blue = color
    return round(0.299 * red + 0.587 * green + 0.114 * blue)


class TextRenderer:
    """Draws lines in one style on pictures of one height."""

    def __init__(self, style: Style, height: int) -> None:
        """Draws every letter once; only this needs OpenCV."""
        self._style = style
        factor = height / REFERENCE_ROWS
        self._glyphs = _draw_glyphs(style.font_scale * factor, max(1, round(style.thickness * factor)))
        self.line_height = self._glyphs["0"].shape[0]
        """Pixels from one line to the next."""

    def draw(self, luma: Plane, lines: Sequence[str]) -> None:
        """Writes `lines` onto `luma` (height, width), in place; text that does not fit is cut off."""
        lines = [line for line in lines if line]
        for number, line in enumerate(lines):
            self._blend(luma, self._join_glyphs(line), number, len(lines))

    def _join_glyphs(self, line: str) -> NDArray[np.uint16]:
        unknown = self._glyphs["?"]
        return np.concatenate([self._glyphs.get(letter, unknown) for letter in line], axis=1)

    def _blend(self, luma: Plane, alpha: NDArray[np.uint16], number: int, count: int) -> None:
        style, (rows, columns) = self._style, alpha.shape
        top, left = style.margin_y + number * rows, style.margin_x
        if style.corner.startswith("bottom"):
            top = luma.shape[0] - style.margin_y - (count - number) * rows
        if style.corner.endswith("right"):
            left = luma.shape[1] - style.margin_x - columns
        top, left = max(0, top), max(0, left)
        target = luma[top : top + rows, left : left + columns]
        alpha = alpha[: target.shape[0], : target.shape[1]]
        behind = target.astype(np.uint16)
        if style.background:
            behind >>= 2
        target[:] = (behind * (256 - alpha) + style.brightness * alpha) >> 8


def _draw_glyphs(scale: float, thickness: int) -> dict[str, NDArray[np.uint16]]:
    """Draws every printable letter as alpha 0..256, of one height; digits of one width, so that numbers stand still."""
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    digit_width = max(cv2.getTextSize(digit, font, scale, thickness)[0][0] for digit in "0123456789")
    (_, above), below = cv2.getTextSize("Ay", font, scale, thickness)
    rows = above + below + 2 * thickness
    glyphs = {}
    for letter in PRINTABLE:
        (width, _), _ = cv2.getTextSize(letter, font, scale, thickness)
        columns = (digit_width if letter.isdigit() else width) + max(1, thickness // 2)
        picture = np.zeros((rows, columns), np.uint8)
        cv2.putText(picture, letter, (0, above + thickness), font, scale, 255, thickness, cv2.LINE_AA)
        glyphs[letter] = picture.astype(np.uint16) + (picture >> 7)
    return glyphs
