"""The console's screen as lines of text: cameras, processes, live picture, log, keys.

The picture comes from preview_frame messages of the hub. Each character cell shows two pixels: an upper half block in
24-bit colour. Only `CameraPreview` does I/O; simplejpeg (and with it numpy) is imported when the first picture comes.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shmcam.control.codec import READ_BYTES, Decoder, Received, encode
from shmcam.control.messages import PROCESS_BYTES_MAX, Preview, PreviewFrame

KEYS = "r record  s save  p picture  n night  c next camera  q quit"
PICTURE_LINES_MAX = 24
PREVIEW_FPS = 4.0
PREVIEW_WIDTH_PX = 160
RECONNECT_S = 1.0
"""Time between two attempts to reach the hub."""

UPPER_HALF = "▀"
RESET = "\x1b[0m"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")

COLOURS = {
    "running": "\x1b[32m",
    "recording": "\x1b[31m",
    "silent": "\x1b[31m",
    "FATAL": "\x1b[31m",
    "missing": "\x1b[33m",
}


@dataclass
class View:
    """The state that the console shows."""

    status: dict[str, Any] = field(default_factory=dict)
    """Data of the status command."""
    camera: str = ""
    answer: str = ""
    """Last answer to a key."""
    log: list[str] = field(default_factory=list)
    picture: list[str] = field(default_factory=list)
    """Lines with colours."""
    problem: str = ""
    """The reason why there is no status, such as no hub."""


def render(view: View, columns: int, lines: int) -> list[str]:
    """Returns exactly `lines` lines of at most `columns` cells."""
    top = [_title_of(view, columns), *(_camera_line_of(row) for row in view.status.get("cameras", []))]
    top += [_process_line_of(row) for row in view.status.get("processes", [])]
    bottom = [f"> {view.answer}" if view.answer else "", KEYS]
    room = lines - len(top) - len(bottom)
    picture = view.picture[: max(0, min(room - 3, PICTURE_LINES_MAX))]
    tail = view.log[len(view.log) - max(0, room - len(picture)) :] if room > len(picture) else []
    shown = [*top, *picture, *tail]
    shown = shown[: max(0, lines - len(bottom))]
    shown += [""] * (lines - len(bottom) - len(shown))
    return [cut(line, columns) for line in [*shown, *bottom][:lines]]


def _title_of(view: View, columns: int) -> str:
    text = f" shmcam  {view.camera}  {view.problem}"
    return f"\x1b[7m{text[:columns].ljust(columns)}\x1b[0m"


def _camera_line_of(row: dict[str, Any]) -> str:
    night = {True: "NIGHT", False: "DAY", None: ""}[row.get("night")]
    rate = f"{row['fps']:.1f}/s" if row.get("fps", -1) >= 0 else ""
    recording = "\x1b[31m● recording\x1b[0m" if row.get("recording") else ""
    words = (
        row["camera"],
        row["state"],
        row["source"],
        row["model"],
        rate,
        row["mode"],
        night,
        recording,
        row["reason"],
    )
    return " ".join(str(word) for word in words if word)


def _process_line_of(row: dict[str, Any]) -> str:
    colour = COLOURS.get(row["state"], "")
    rate = f"{row['fps']:5.1f}/s" if row["fps"] >= 0 else "       "
    memory = f"{row['rss_bytes'] / 1048576:4.0f} MiB" if row["rss_bytes"] else "        "
    lag = f"lag {row['lag']}" if row["lag"] > 0 else ""
    laps = f"laps {row['laps']}" if row["laps"] else ""
    words = " ".join(word for word in (lag, laps, row["reason"]) if word)
    return f"  {row['program']:<16} {colour}{row['state']:<10}\x1b[0m {rate} {memory} {words}"


def cut(line: str, columns: int) -> str:
    """Shortens a line to so many visible cells; colours take none."""
    if len(_ANSI.sub("", line)) <= columns:
        return line
    shown, cells = [], 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b"):
            shown.append(part)
            continue
        shown.append(part[: columns - cells])
        cells += len(shown[-1])
    return "".join(shown) + "\x1b[0m"


Pixel = tuple[int, int, int]
"""Red, green, blue, 0-255."""


def draw_half_blocks(pixels: Sequence[Sequence[Pixel]]) -> list[str]:
    """Returns one string for each line of text from rows of pixels; an odd last row gets black below it."""
    lines = []
    for top in range(0, len(pixels), 2):
        below = pixels[top + 1] if top + 1 < len(pixels) else [(0, 0, 0)] * len(pixels[top])
        cells, last = [], ""
        for upper, lower in zip(pixels[top], below, strict=True):
            colour = f"\x1b[38;2;{upper[0]};{upper[1]};{upper[2]};48;2;{lower[0]};{lower[1]};{lower[2]}m"
            cells.append((colour if colour != last else "") + UPPER_HALF)
            last = colour
        lines.append("".join(cells) + RESET)
    return lines


def fit_size(width: int, height: int, columns: int, lines: int) -> tuple[int, int]:
    """Returns (columns, pixel rows) of a picture that keeps its shape within so many cells; at least 2 x 2."""
    scale = min(columns / width, 2 * lines / height)
    return max(2, int(width * scale)), max(2, int(height * scale) // 2 * 2)


class CameraPreview:
    """A connection to the hub that carries only small pictures; closed while switched off or without a hub."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._link: socket.socket | None = None
        self._decoder = Decoder(limit_bytes=PROCESS_BYTES_MAX)
        self._camera = ""
        self._jpeg = b""
        self._is_on = True
        self._last_try_s = -1e9

    def toggle(self) -> None:
        """Switches the picture on or off."""
        self._is_on = not self._is_on
        self.close()

    def close(self) -> None:
        """Closes the connection; without other subscribers the streamer stops making pictures."""
        if self._link:
            self._link.close()
        self._link, self._jpeg, self._camera = None, b"", ""

    def draw(self, camera: str, columns: int, lines: int) -> list[str]:
        """Returns the newest picture as lines of half blocks that fit about half the screen."""
        if not self._is_on:
            return []
        if camera != self._camera:
            self.close()
        if self._link is None:
            self._connect(camera)
        self._receive()
        return draw_jpeg(self._jpeg, columns, max(4, lines // 2)) if self._jpeg else []

    def _connect(self, camera: str) -> None:
        if time.monotonic() - self._last_try_s < RECONNECT_S:
            return
        self._last_try_s = time.monotonic()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(str(self._path))
            link.sendall(encode("msgpack", Preview(camera=camera, fps=PREVIEW_FPS, width=PREVIEW_WIDTH_PX), 1))
        except OSError:
            link.close()
            return
        link.setblocking(False)
        self._link, self._camera, self._decoder = link, camera, Decoder(limit_bytes=PROCESS_BYTES_MAX)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._link:
                data = self._link.recv(READ_BYTES)
                if not data:
                    self.close()
                    return
                for received in self._decoder.feed(data, 0.0):
                    if isinstance(received, Received) and isinstance(received.message, PreviewFrame):
                        self._jpeg = received.message.jpeg


def draw_jpeg(jpeg: bytes, columns: int, lines: int) -> list[str]:
    """Decodes a JPEG and draws it within so many cells; an unreadable one gives no lines."""
    import simplejpeg

    try:
        decoded = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    except ValueError:
        return []
    height, width = decoded.shape[:2]
    across, down = fit_size(width, height, columns, lines)
    small = decoded[[y * height // down for y in range(down)]][:, [x * width // across for x in range(across)]]
    rows: list[list[Pixel]] = [[(int(r), int(g), int(b)) for r, g, b in row] for row in small.tolist()]
    return draw_half_blocks(rows)
