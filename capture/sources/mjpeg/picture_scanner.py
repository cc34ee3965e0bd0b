"""Finds JPEG pictures in the bytes of an HTTP answer. Pure: bytes in, pictures out.

A picture begins with FF D8 FF and ends with FF D9; that is looked for first, because cameras' headers are wrong more
often than their pictures: no first boundary, another boundary than announced, a Content-Length that is too small, text
between the parts. What has no end is ended by the next boundary, by the part's length, or by the next beginning.

    --boundary                      <- the delimiter: two dashes and the boundary, which may bring dashes of its own
    Content-Type: image/jpeg
    Content-Length: 33482           <- optional, sometimes wrong
    X-Timestamp: 12.345678          <- optional: the camera's own clock, s (ESP32-CAM, mjpg-streamer, ustreamer)

    FF D8 ... FF D9

Source: RFC 2046 5.1 (multipart), ITU-T T.81 B.1 (markers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

SOI, EOI = b"\xff\xd8\xff", b"\xff\xd9"
"""The beginning with the first byte of the marker that must follow, and the end."""

PICTURE_LIMIT_BYTES = 16 << 20
"""Of one picture: 8192x8192 at a usual quality is 10 MB."""
GAP_LIMIT_BYTES, GAP_KEPT_BYTES = 1 << 20, 4096
"""Longest text between two pictures, and how much of a longer one is kept."""

_BOUNDARY = re.compile(r"""boundary\s*=\s*(?:"([^"]*)"|([^\s;]+))""", re.IGNORECASE)
_LENGTH = re.compile(rb"content-length:[ \t]*(\d{1,9})", re.IGNORECASE)
_STAMP = re.compile(rb"x-timestamp:[ \t]*(\d{1,12}(?:\.\d{1,9})?)", re.IGNORECASE)
_LINE_BREAK_BEFORE = re.compile(rb"\r?\n-*\Z")
_DELIMITER_LINE = re.compile(rb"(?:^|\n)(--[^\r\n]{1,200}?)[ \t]*\r?\n")

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers without a length."""


class ScannedPicture(Struct, frozen=True):
    """The bytes of one picture; whether they can be decoded is not known yet."""

    jpeg: bytes
    arrived_ns: int
    """Arrival of its first byte."""
    own_s: float | None = None
    """The camera's X-Timestamp; None: it sends none."""
    lost_before: int = 0
    """Parts since the picture before in which there was no picture."""
    is_complete: bool = True
    """False: its end is missing."""


def boundary_of(content_type: str) -> bytes:
    """Returns the boundary that a Content-Type announces, without its dashes; empty: none."""
    match = _BOUNDARY.search(content_type)
    return (match[1] or match[2] or "").lstrip("-").encode("latin-1", "replace") if match else b""


class PictureScanner:
    """Takes the bytes of one answer in any pieces."""

    def __init__(self, boundary: bytes = b"") -> None:
        """`boundary`: as announced; another one that really comes is used instead."""
        self._buffer = bytearray()
        self._in_picture = False
        """The buffer begins with a picture; else with what stands between two."""
        self._delimiter = b"--" + boundary if boundary else b""
        self._lost = self._searched = 0
        self._are_lengths_right = False
        """The last picture ended where its length said: then nothing has to be searched for."""
        self._begin_picture(0, b"")

    def feed(self, data: bytes, arrived_ns: int) -> Iterator[ScannedPicture]:
        """Takes the next bytes and yields the pictures that end in them."""
        self._buffer += data
        while True:
            if not self._in_picture and not self._find_beginning(arrived_ns):
                return
            picture = self._take_picture()
            if picture is not None:
                yield picture
            elif self._in_picture:
                return

    def end(self) -> Iterator[ScannedPicture]:
        """Yields the picture that the end of the answer cut off."""
        if self._in_picture and len(self._buffer) > len(SOI):
            yield self._cut(len(self._buffer), is_complete=False)

    # ---- between pictures

    def _find_beginning(self, arrived_ns: int) -> bool:
        at = self._buffer.find(SOI, max(0, self._searched - len(SOI)))
        if at < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) > GAP_LIMIT_BYTES:
                del self._buffer[:-GAP_KEPT_BYTES]
                self._searched = GAP_KEPT_BYTES
            return False
        gap = bytes(self._buffer[:at])
        del self._buffer[:at]
        self._begin_picture(arrived_ns, self._read_gap(gap))
        self._in_picture = True
        return True

    def _read_gap(self, gap: bytes) -> bytes:
        """Counts the parts without a picture, and learns the delimiter. Returns: the head of the picture's part."""
        if not self._delimiter or self._delimiter not in gap:
            lines = _DELIMITER_LINE.findall(gap)
            self._delimiter = lines[-1] if lines else self._delimiter
        if not self._delimiter:
            return gap
        # Two delimiters in a row are one: some cameras end each part and begin the next.
        name = re.escape(self._delimiter)
        starts = [match.end() for match in re.finditer(name + rb"[ \t]*\r?\n(?!\s*-*" + name + rb")", gap)]
        self._lost += max(0, len(starts) - 1)
        return gap[starts[-1] :] if starts else gap

    def _begin_picture(self, arrived_ns: int, head: bytes) -> None:
        length, stamp = _LENGTH.search(head), _STAMP.search(head)
        self._length = int(length[1]) if length else 0
        self._own_s = float(stamp[1]) if stamp else None
        self._arrived_ns = arrived_ns
        self._marker_at: int | None = 2
        """The next marker of the picture's head; None: the picture's data have begun, or it is no JPEG."""
        self._searched = self._delimiter_searched = 2

    # ---- inside a picture

    def _take_picture(self) -> ScannedPicture | None:
        """Cuts the picture off the buffer. Returns: None while its end has not come, or if it was given up."""
        if self._are_lengths_right and len(EOI) < self._length <= PICTURE_LIMIT_BYTES:
            if len(self._buffer) < self._length:
                return None
            if self._buffer[self._length - len(EOI) : self._length] == EOI:
                return self._cut(self._length)
        if self._marker_at is not None:
            self._marker_at = self._walk_head(self._marker_at)
        buffer, begin = self._buffer, self._searched
        limit = self._find_limit(begin)
        if self._marker_at is None:
            at = buffer.find(EOI, max(2, begin - 1), limit if limit >= 0 else len(buffer))
            if at >= 0:
                return self._cut(at + len(EOI))
        if limit >= 0:
            return self._cut(limit, is_complete=False)
        if self._length >= begin and buffer[self._length : self._length + 3].startswith((b"\r\n", b"\n--")):
            return self._cut(self._length, is_complete=False)
        self._searched = len(buffer) if self._marker_at is None else begin
        if len(buffer) > PICTURE_LIMIT_BYTES:
            self._lost += 1
            buffer.clear()
            self._in_picture, self._searched = False, 0
        return None

    def _find_limit(self, begin: int) -> int:
        """Returns where the next part or picture begins, -1: not yet."""
        found = [self._find_delimiter()]
        if self._marker_at is None:
            found.append(self._buffer.find(SOI, max(2, begin - 2)))
        return min((at for at in found if at >= 0), default=-1)

    def _find_delimiter(self) -> int:
        """Returns where a line with the delimiter begins, -1: not yet.

        Also inside what the head calls a segment: in a picture that is cut off there it reaches into the next part.
        """
        if not self._delimiter:
            return -1
        buffer, length = self._buffer, len(self._delimiter)
        while (at := buffer.find(self._delimiter, self._delimiter_searched)) >= 0:
            behind = bytes(buffer[at + length : at + length + 2])
            # In a picture the delimiter's bytes may stand by chance, a line of them hardly.
            if not behind or behind.lstrip(b" \t")[:1] in (b"\r", b"\n", b"-"):
                return at if behind else -1
            self._delimiter_searched = at + 1
        self._delimiter_searched = max(self._delimiter_searched, len(buffer) - length)
        return -1

    def _walk_head(self, at: int) -> int | None:
        """Passes over whole segments, as a thumbnail inside one has an end of its own.

        Returns: the marker that has not come in full yet; None: the data have begun, or this is no JPEG.
        """
        buffer = self._buffer
        while at + 4 <= len(buffer):
            if buffer[at] != 0xFF:
                break
            marker = buffer[at + 1]
            if marker == 0xFF:
                at += 1  # a fill byte
            elif marker in STANDALONE:
                at += 2
            elif marker == END_OF_IMAGE:
                break
            else:
                length = int.from_bytes(buffer[at + 2 : at + 4], "big")
                at += 2 + length
                if marker == START_OF_SCAN or length < 2:
                    break
        else:
            return at
        self._searched = min(at, len(buffer))
        return None

    def _cut(self, end: int, *, is_complete: bool = True) -> ScannedPicture:
        jpeg = bytes(self._buffer[:end])
        del self._buffer[:end]
        if not is_complete and end != self._length:
            jpeg = _LINE_BREAK_BEFORE.sub(b"", jpeg)
        picture = ScannedPicture(jpeg, self._arrived_ns, self._own_s, self._lost, is_complete)
        self._lost, self._in_picture, self._searched = 0, False, 0
        self._are_lengths_right = is_complete and end == self._length
        return picture
