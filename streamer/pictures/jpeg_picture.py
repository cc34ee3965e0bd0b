r"""From a frame's bytes to a picture a viewer can be sent: one JPEG of one variant, with what is known of the frame.

One encoded picture and the bytes of its part in a multipart stream, made once however many viewers there are.

--frame\r\n                         boundary; written before the first part and after every JPEG, because some
Content-Type: image/jpeg\r\n        readers (ffmpeg, gst) need the first and others show a part only when the
Content-Length: 48211\r\n           next boundary has come (shared/imaging.md 4.2)
X-Frame-Id: 4711\r\n
X-Timestamp: 1787432645.123456\r\n
X-Dark-Score: 93.25\r\n
X-Night: 0\r\n
\r\n
<JPEG>\r\n
--frame\r\n
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shm_ring import Flags, Frame
from shm_ring.records.scores import Score
from shmcam.imaging.jpeg import to_jpeg
from shmcam.runtime.clock import now_ns
from streamer.pictures.variant import Variant

BOUNDARY = "frame"
CONTENT_TYPE = f"multipart/x-mixed-replace;boundary={BOUNDARY}"
OPENING = f"--{BOUNDARY}\r\n".encode()
ADVANCE = OPENING + b"Content-Type: image/jpeg\r\n\r\n"
"""Header of a part sent ahead of its picture: Chromium shows a part when the next header has come (bug 527446)."""


@dataclass(frozen=True, slots=True)
class JpegPicture:
    """A JPEG, and what is known about the frame it shows."""

    jpeg: bytes
    frame_id: int
    """Continues over restarts; -1: no frame, a 'No signal' picture."""
    captured_ns: int
    """Sensor clock."""
    captured_utc_ns: int
    """Wall clock."""
    width: int
    height: int
    dark_score: float | None = None
    """0..255 and above; None: no analyzer."""
    night: bool | None = None
    """None: no analyzer."""
    signal: bool = True
    """False: the camera is away and this picture says so."""
    reason: str = ""
    """Why there is no signal, as far as that is known."""
    published_ns: int = 0
    """When capture published the frame, sensor clock."""
    encode_ns: int = 0
    """How long encoding took."""
    part: bytes = field(init=False, repr=False)
    """Header, JPEG and the boundary after it, ready to be written."""

    def __post_init__(self) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers(self).items())
        content = f"Content-Type: image/jpeg\r\nContent-Length: {len(self.jpeg)}\r\n{head}\r\n".encode()
        object.__setattr__(self, "part", b"".join((content, self.jpeg, b"\r\n", OPENING)))


def headers(picture: JpegPicture) -> dict[str, str]:
    """The X- headers of features.md F1, for a part and for a snapshot alike."""
    named = {"X-Frame-Id": str(picture.frame_id), "X-Timestamp": f"{picture.captured_utc_ns / 1e9:.6f}"}
    if picture.dark_score is not None:
        named["X-Dark-Score"] = f"{picture.dark_score:.2f}"
    if picture.night is not None:
        named["X-Night"] = str(int(picture.night))
    if not picture.signal:
        named["X-Signal"] = "none"
    return named


def advance_part(picture: JpegPicture) -> bytes:
    """One picture for a viewer who has its header already, and the header of the next."""
    return b"".join((picture.jpeg, b"\r\n", ADVANCE))


def encoded(payload: NDArray[np.uint8], frame: Frame, variant: Variant, mark: Score | None) -> JpegPicture:
    """Encode one frame for one variant.

    `payload` is the frame's own, or a stack of the same geometry. `mark` is the analyzer's newest word, None where
    there is none. Counts only once the borrow of `frame` has ended well.
    """
    begun_ns = now_ns()
    geometry, meta = frame.picture, frame.meta
    jpeg = to_jpeg(payload, geometry, variant.quality, gray=variant.gray, width=variant.width or None)
    width = min(variant.width or geometry.width, geometry.width)
    return JpegPicture(
        jpeg=jpeg,
        frame_id=meta.frame_id,
        captured_ns=meta.captured_ns,
        captured_utc_ns=meta.captured_utc_ns,
        width=width,
        height=max(1, round(geometry.height * width / geometry.width)),
        dark_score=mark.dark_score if mark else None,
        night=mark.night if mark else bool(meta.flags & Flags.NIGHT),
        published_ns=frame.published_ns,
        encode_ns=now_ns() - begun_ns,
    )
