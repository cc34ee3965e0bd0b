r"""One frame encoded as JPEG for one variant, and the bytes of its part in a multipart stream.

Both are made once, however many viewers there are. A part looks like this:

--frame\r\n                         boundary; written before the first part and after every JPEG, because some
Content-Type: image/jpeg\r\n        readers (ffmpeg, gst) need the first and others show a part only when the
Content-Length: 48211\r\n           next boundary has come
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
from shmcam.imaging.jpeg import JpegEncoder, jpeg_size_of
from shmcam.runtime.clock import now_ns
from streamer.pictures.variant import Variant

BOUNDARY = "frame"
CONTENT_TYPE = f"multipart/x-mixed-replace;boundary={BOUNDARY}"
BOUNDARY_LINE = f"--{BOUNDARY}\r\n".encode()
NEXT_HEADER = BOUNDARY_LINE + b"Content-Type: image/jpeg\r\n\r\n"
"""The header of the next part, sent ahead of its picture: Chromium shows a part when the next header has come (bug
527446)."""


@dataclass(frozen=True, slots=True)
class JpegPicture:
    """A JPEG with the data of the frame that it shows."""

    jpeg: bytes
    frame_id: int
    """The frame's number, which continues over restarts; -1: no frame, a 'No signal' picture."""
    captured_ns: int
    """The time of capture, sensor clock."""
    captured_utc_ns: int
    """The time of capture, wall clock."""
    width: int
    height: int
    dark_score: float | None = None
    """0..255 and above; None: no analyzer."""
    night: bool | None = None
    """None: no analyzer."""
    signal: bool = True
    """False if the camera is away and this picture says 'No signal'."""
    reason: str = ""
    """The reason why there is no signal, as far as it is known."""
    published_ns: int = 0
    """The time at which capture published the frame, sensor clock."""
    encode_ns: int = 0
    """The duration of encoding."""
    part: bytes = field(init=False, repr=False)
    """The whole part: header, JPEG and the boundary after it."""

    def __post_init__(self) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers_of(self).items())
        header = f"Content-Type: image/jpeg\r\nContent-Length: {len(self.jpeg)}\r\n{lines}\r\n".encode()
        object.__setattr__(self, "part", b"".join((header, self.jpeg, b"\r\n", BOUNDARY_LINE)))


def headers_of(picture: JpegPicture) -> dict[str, str]:
    """Returns the X- headers that say which frame it is, for a part and for a snapshot."""
    fields = {"X-Frame-Id": str(picture.frame_id), "X-Timestamp": f"{picture.captured_utc_ns / 1e9:.6f}"}
    if picture.dark_score is not None:
        fields["X-Dark-Score"] = f"{picture.dark_score:.2f}"
    if picture.night is not None:
        fields["X-Night"] = str(int(picture.night))
    if not picture.signal:
        fields["X-Signal"] = "none"
    return fields


def advance_part_of(picture: JpegPicture) -> bytes:
    """Returns a picture whose header was sent before, followed by the header of the next one."""
    return b"".join((picture.jpeg, b"\r\n", NEXT_HEADER))


def encode_picture(
    encoder: JpegEncoder, payload: NDArray[np.uint8], frame: Frame, variant: Variant, score: Score | None
) -> JpegPicture:
    """Encodes one frame for one variant.

    `encoder`: that of the thread. `payload`: the frame's own, or a stack of the same geometry. `score`: the analyzer's
    newest record, None without one. The result is good only if the borrow of `frame` ends without FrameOverwritten.
    """
    started_ns = now_ns()
    geometry, meta = frame.picture_geometry, frame.meta
    jpeg = encoder.encode(payload, geometry, variant.quality, gray=variant.gray, width=variant.width or None)
    width, height = jpeg_size_of(geometry, variant.width or None)
    return JpegPicture(
        jpeg=jpeg,
        frame_id=meta.frame_id,
        captured_ns=meta.captured_ns,
        captured_utc_ns=meta.captured_utc_ns,
        width=width,
        height=height,
        dark_score=score.dark_score if score else None,
        night=score.night if score else bool(meta.flags & Flags.NIGHT),
        published_ns=frame.published_ns,
        encode_ns=now_ns() - started_ns,
    )
