"""The console's live picture: preview_frame messages of the hub, drawn in half blocks."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from control import messages as m
from control.codec import READ_BYTES, Decoder, Received
from control.encoding import encode
from control.messages import PROCESS_BYTES_MAX
from control.shell.halfblocks import Pixel, draw, fitted

FPS = 4.0
WIDTH_PX = 160


class Preview:
    """One connection that carries nothing but small pictures; none while switched off or without a hub."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._link: socket.socket | None = None
        self._decoder = Decoder(limit=PROCESS_BYTES_MAX)
        self._camera = ""
        self._jpeg = b""
        self._on = True
        self._tried_s = -1e9

    def toggle(self) -> None:
        """Switch the picture on or off."""
        self._on = not self._on
        self.close()

    def close(self) -> None:
        """Hang up; the streamer stops making pictures when nobody else wants them."""
        if self._link:
            self._link.close()
        self._link, self._jpeg, self._camera = None, b"", ""

    def lines(self, camera: str, columns: int, lines: int) -> list[str]:
        """Return the newest picture as lines of half blocks, fitting about half the screen."""
        if not self._on:
            return []
        if camera != self._camera:
            self.close()
        if self._link is None:
            self._connect(camera)
        self._receive()
        return picture(self._jpeg, columns, max(4, lines // 2)) if self._jpeg else []

    def _connect(self, camera: str) -> None:
        if time.monotonic() - self._tried_s < 1.0:
            return
        self._tried_s = time.monotonic()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(str(self._path))
            link.sendall(encode("msgpack", m.Preview(camera=camera, fps=FPS, width=WIDTH_PX), 1))
        except OSError:
            link.close()
            return
        link.setblocking(False)
        self._link, self._camera, self._decoder = link, camera, Decoder(limit=PROCESS_BYTES_MAX)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._link:
                data = self._link.recv(READ_BYTES)
                if not data:
                    self.close()
                    return
                for one in self._decoder.feed(data, 0.0):
                    if isinstance(one, Received) and isinstance(one.message, m.PreviewFrame):
                        self._jpeg = one.message.jpeg


def picture(jpeg: bytes, columns: int, lines: int) -> list[str]:
    """Decode a JPEG and draw it within so many cells; an unreadable one draws nothing."""
    import simplejpeg

    try:
        decoded = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    except ValueError:
        return []
    height, width = decoded.shape[:2]
    across, down = fitted(width, height, columns, lines)
    small = decoded[[y * height // down for y in range(down)]][:, [x * width // across for x in range(across)]]
    rows: list[list[Pixel]] = [[(int(r), int(g), int(b)) for r, g, b in row] for row in small.tolist()]
    return draw(rows)
